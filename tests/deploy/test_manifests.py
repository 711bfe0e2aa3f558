"""Dockerfile, compose stack, Kubernetes and AWS files: each against its schema or linter, and against the others."""

import copy
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import ray
import yaml

import ganrun
from ganrun.config.load import load_config
from tests.deploy.stack import DEPLOY, ROOT, needs

SCHEMAS = Path(__file__).with_name("schemas")
AWS = yaml.safe_load((ROOT / "cluster/aws.yaml").read_text())
COMPOSE = yaml.safe_load((DEPLOY / "compose/compose.yaml").read_text())
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
KUBERNETES = "1.31"
OWN = {"RayJob", "RayCluster", "PodMonitor"}
"""Kinds that Kubernetes gets from operators."""


def built(folder: str) -> list[dict[str, Any]]:
    """What kustomize makes of a folder."""
    made = subprocess.run(["kubectl", "kustomize", ROOT / folder], capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    return list(yaml.safe_load_all(made.stdout))


def ray_spec(manifest: dict[str, Any]) -> dict[str, Any]:
    return manifest["spec"]["rayClusterSpec"] if manifest["kind"] == "RayJob" else manifest["spec"]


def pods(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    """The pod templates in a manifest."""
    if manifest["kind"] in ("RayJob", "RayCluster"):
        groups = [ray_spec(manifest)["headGroupSpec"], *ray_spec(manifest)["workerGroupSpecs"]]
        submitter = manifest["spec"].get("submitterPodTemplate")
        return [group["template"] for group in groups] + ([submitter] if submitter else [])
    return [manifest["spec"]["template"]] if manifest["kind"] == "Deployment" else []


def schema_of(kind: str) -> dict[str, Any]:
    schema = json.loads((SCHEMAS / "rayjob-v1.json").read_text())
    return schema if kind == "RayJob" else schema["properties"]["rayClusterSpec"]


# Images and compose.


def test_the_dockerfile_passes_hadolint():
    program = Path(sys.executable).parent / "hadolint"
    done = subprocess.run([program, DEPLOY / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_image_is_pinned_small_and_not_roots():
    assert re.findall(r"^FROM (\S+)", DOCKERFILE, re.M) == ["python:3.11.14-slim-bookworm"] * 2
    assert re.findall(r"^USER (\S+)", DOCKERFILE, re.M) == ["1000"]
    pinned = [line for line in (DEPLOY / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[a-z0-9.-]+==[\w.]+", line) for line in pinned)
    assert f"ray=={ray.__version__}" in pinned
    needed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert {re.match(r"[\w-]+", each)[0] for each in needed} <= {line.partition("==")[0] for line in pinned}
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    copied = re.findall(r"^COPY (?!--from)(?:--chown=\S+ )?(.+) \S+$", DOCKERFILE, re.M)
    assert ignored[0] == "*"
    assert {f"!{name}" for line in copied for name in line.split()} == set(ignored[1:-1])


def test_the_compose_stack_fits_its_schema():
    jsonschema.validate(COMPOSE, json.loads((SCHEMAS / "compose.json").read_text()))
    broken = copy.deepcopy(COMPOSE)
    broken["services"]["head"]["port"] = ["1:1"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(broken, json.loads((SCHEMAS / "compose.json").read_text()))


def test_the_compose_stack_is_closed_bounded_and_whole():
    services = COMPOSE["services"]
    published = [port for service in services.values() for port in service.get("ports", ())]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)
    for name, service in services.items():
        assert "mem_limit" in service, name
        assert "no-new-privileges:true" in service["security_opt"], name
        assert ":" in service["image"], name
        assert not service["image"].endswith("latest")
        assert set(service["networks"]) <= COMPOSE["networks"].keys()
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            assert source in COMPOSE["volumes"] or (DEPLOY / "compose" / source).exists(), volume
    assert (
        services["head"]["environment"]["RAY_AUTH_MODE"]
        == services["worker"]["environment"]["RAY_AUTH_MODE"]
        == "token"
    )
    text = (DEPLOY / "compose/compose.yaml").read_text() + (DEPLOY / "compose/example.env").read_text()
    assert not re.findall(r"^(?:.*(?:TOKEN|SECRET|PASSWORD)\w*)[:=] *(?!replace-me)(\S+)", text, re.M)


def test_the_stack_watches_as_the_lone_machine_does():
    alone = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())
    stack = yaml.safe_load((DEPLOY / "compose/prometheus.yml").read_text())
    assert [job["job_name"] for job in stack["scrape_configs"]] == [job["job_name"] for job in alone["scrape_configs"]]
    assert stack["rule_files"] == alone["rule_files"]
    targets = re.findall(r"\b([a-z]+):\d{4}", (DEPLOY / "compose/prometheus.yml").read_text())
    assert set(targets) <= COMPOSE["services"].keys()
    source = yaml.safe_load((DEPLOY / "compose/datasource.yml").read_text())["datasources"][0]
    assert source["uid"] == "prometheus"
    assert source["url"] == "http://prometheus:9090"


# Kubernetes.

BOTH = pytest.mark.parametrize("folder", ["deploy/kubernetes", "cluster/kuberay"])


@needs("kubectl")
@BOTH
def test_manifests_fit_the_schemas_of_kubernetes_and_kuberay(folder):
    manifests = built(folder)
    assert len({(each["kind"], each["metadata"]["name"]) for each in manifests}) == len(manifests) >= 2
    for manifest in manifests:
        if manifest["kind"] in ("RayJob", "RayCluster"):
            jsonschema.validate(manifest["spec"], schema_of(manifest["kind"]))
        elif manifest["kind"] not in OWN:
            kubernetes_validate.validate(manifest, KUBERNETES, strict=True)
        for pod in pods(manifest):
            as_pod = {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": "x"} | pod["metadata"],
                "spec": pod["spec"],
            }
            kubernetes_validate.validate(as_pod, KUBERNETES, strict=True)


@needs("kubectl")
def test_the_schemas_refuse_what_is_wrong():
    job = next(each for each in built("deploy/kubernetes") if each["kind"] == "RayJob")
    for path, value in (
        ("workers", 3),
        ("authOptions", {"mode": "tokens"}),
        ("workerGroupSpecs", [{"groupName": "x"}]),
    ):
        wrong = copy.deepcopy(job["spec"])
        wrong["rayClusterSpec"][path] = value
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, schema_of("RayJob"))


@needs("kubectl")
@BOTH
def test_pods_are_bounded_not_roots_and_given_no_secret_in_the_open(folder):
    manifests = built(folder)
    for manifest in manifests:
        if manifest["kind"] in ("RayJob", "RayCluster"):
            assert ray_spec(manifest)["authOptions"] == {"mode": "token"}
            assert ray_spec(manifest)["headGroupSpec"]["serviceType"] == "ClusterIP"
            assert ray_spec(manifest)["enableInTreeAutoscaling"]
        for pod in pods(manifest):
            assert pod["spec"]["securityContext"]["runAsNonRoot"]
            for container in pod["spec"]["containers"]:
                assert {"requests", "limits"} <= container["resources"].keys()
                assert not container["securityContext"]["allowPrivilegeEscalation"]
                assert container["image"] in (f"ganrun:{ganrun.__version__}-cpu", f"ganrun:{ganrun.__version__}-cuda")
                assert not [each for each in container.get("env", ()) if re.search("TOKEN|SECRET|KEY", each["name"])]
                mounted = {mount["name"] for mount in container.get("volumeMounts", ())}
                assert mounted <= {volume["name"] for volume in pod["spec"].get("volumes", ())}
    assert not [each for each in manifests if each["kind"] == "Secret"]


@needs("kubectl")
def test_policies_services_and_monitors_select_pods_that_there_are():
    manifests = built("deploy/kubernetes")
    labels = [pod["metadata"]["labels"] for manifest in manifests for pod in pods(manifest)]
    selected = [each["spec"]["podSelector"]["matchLabels"] for each in manifests if each["kind"] == "NetworkPolicy"]
    selected += [each["spec"]["selector"] for each in manifests if each["kind"] == "Service"]
    assert len(selected) == 4
    for wanted in selected:
        assert any(wanted.items() <= each.items() for each in labels), wanted
    covered = [each for each in labels if any(wanted.items() <= each.items() for wanted in selected[:3])]
    assert covered == labels  # No pod without a policy.
    ports = {
        port["name"]
        for m in manifests
        for pod in pods(m)
        for c in pod["spec"]["containers"]
        for port in c.get("ports", ())
    }
    monitors = [each for each in manifests if each["kind"] == "PodMonitor"]
    # KubeRay names the port `metrics` itself.
    assert {point["port"] for each in monitors for point in each["spec"]["podMetricsEndpoints"]} <= ports | {"metrics"}


@needs("kubectl")
def test_the_run_of_the_job_is_a_config_that_fits_its_workers():
    run = load_config(DEPLOY / "kubernetes/run.yaml")
    job = next(each for each in built("deploy/kubernetes") if each["kind"] == "RayJob")
    (group,) = ray_spec(job)["workerGroupSpecs"]
    limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert group["maxReplicas"] * int(limits["nvidia.com/gpu"]) >= run.slots
    assert run.cluster.cpus_per_worker <= int(limits["cpu"])
    assert job["spec"]["entrypoint"] == "ganrun train /config/run.yaml"
    assert ray_spec(job)["rayVersion"] == ray.__version__


# AWS.


def test_the_aws_file_fits_rays_own_schema():
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(copy.deepcopy(AWS)))
    with pytest.raises(jsonschema.ValidationError):
        validate_config(prepare_config(copy.deepcopy(AWS) | {"max_worker": 3}))


def test_nothing_of_the_aws_cluster_is_public():
    text = (ROOT / "cluster/aws.yaml").read_text()
    assert "0.0.0.0" not in text
    assert AWS["provider"]["use_internal_ips"]
    for name, kind in AWS["available_node_types"].items():
        node = kind["node_config"]
        # Given groups, Ray makes none: its own lets SSH in from everywhere.
        assert node["SecurityGroupIds"]
        assert node["SubnetIds"]
        assert node["IamInstanceProfile"]["Name"] == f"ganrun-{'head' if name == 'head' else 'worker'}"
        assert node["MetadataOptions"]["HttpTokens"] == "required"
        assert {disk["Ebs"]["Encrypted"] for disk in node["BlockDeviceMappings"]} == {True}
    assert AWS["available_node_types"]["gpu"]["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert "InstanceMarketOptions" not in AWS["available_node_types"]["head"]["node_config"]
    assert "--env=RAY_AUTH_MODE=token" in AWS["docker"]["run_options"]
    (path,) = [option.partition("TOKEN_PATH=")[2] for option in AWS["docker"]["run_options"] if "TOKEN_PATH" in option]
    assert AWS["file_mounts"] == {path: "~/.ray/auth_token"}  # The token is no part of the file.
    assert "--dashboard-host=127.0.0.1" in AWS["head_start_ray_commands"][1]


def test_who_takes_a_machine_away_finds_the_notice_in_the_image():
    (path,) = re.findall(r"COPY --chown=ray cluster/notice.py (\S+)", (ROOT / "deploy/Dockerfile").read_text())
    assert "!cluster/notice.py" in (ROOT / ".dockerignore").read_text().splitlines()
    for file, verb in (
        ("cluster/aws.yaml", "aws"),
        ("cluster/kuberay/raycluster.yaml", "now"),
        ("deploy/kubernetes/rayjob.yaml", "now"),
    ):
        assert re.findall(r"python (\S*notice.py) (\w+)", (ROOT / file).read_text()) == [(path, verb)]


def test_a_lost_node_is_given_up_as_soon_everywhere():
    files = ["cluster/aws.yaml", "cluster/kuberay/raycluster.yaml", "deploy/kubernetes/rayjob.yaml"]
    files += ["deploy/compose/compose.yaml", "cluster/local/hosts.py"]
    pattern = r"RAY_health_check_(period_ms|timeout_ms|failure_threshold)\W+(?:value\W+)?(\d+)"
    found = [re.findall(pattern, (ROOT / file).read_text()) for file in files]
    assert all(each == found[0] for each in found)
    period, timeout, threshold = (int(value) for _, value in found[0])
    assert (period + timeout) * threshold <= 20_000


def test_rounds_come_before_what_else_a_node_does_everywhere():
    files = ["cluster/aws.yaml", "cluster/kuberay/raycluster.yaml", "deploy/kubernetes/rayjob.yaml"]
    for file in [*files, "deploy/compose/compose.yaml"]:
        assert re.findall(r"RAY_worker_niceness\W+(?:value\W+)?(\d+)", (ROOT / file).read_text()) == ["0"], file


def test_the_head_of_the_aws_cluster_outlives_its_workers():
    head, gpu = (AWS["available_node_types"][name] for name in ("head", "gpu"))
    assert AWS["head_node_type"] == "head"
    assert head["resources"] == {"CPU": 0}  # No worker of a run is ever placed there.
    assert gpu["resources"]["GPU"] == 1
    assert (gpu["min_workers"], gpu["max_workers"]) == (0, AWS["max_workers"])  # Started for a run, ended after it.
    assert AWS["idle_timeout_minutes"] > 0
    starts = [AWS["head_start_ray_commands"][1], AWS["worker_start_ray_commands"][1]]
    assert all(command.startswith("ulimit -n 65536; ray start ") for command in starts)
