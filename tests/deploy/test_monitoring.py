"""Real Prometheus and Alertmanager with the files of deploy/: an alert reaches the webhook, pods are found."""

import json
import re

import yaml
from ray._private.ray_constants import PROMETHEUS_SERVICE_DISCOVERY_FILE

from tests.deploy.stack import (
    DEPLOY,
    RECORDED,
    TOKEN,
    Exporter,
    Webhook,
    alertmanager,
    ask,
    needs,
    prometheus,
    serving,
    wait_until,
)
from tests.waiting import WAIT


@needs("prometheus", "prometheus-alertmanager")
def test_an_alert_reaches_the_webhook(tmp_path):
    exporter, webhook = Exporter(re.sub(r"^ganrun_\w+_total.*\n", "", RECORDED.read_text(), flags=re.M)), Webhook()
    nonfinite = '# TYPE ganrun_nonfinite_total counter\nganrun_nonfinite_total{run="faces",trial=""} 0\n'
    with (
        serving(exporter) as target,
        serving(webhook) as hook,
        alertmanager(tmp_path / "alertmanager", hook) as manager,
        prometheus(tmp_path / "prometheus", target, alertmanager=manager),
    ):
        exporter.text += nonfinite
        token, body = webhook.told.get(timeout=WAIT)
    assert token == f"Bearer {TOKEN}"
    (alert,) = [each for each in body["alerts"] if each["labels"]["alertname"] == "GanrunNonFinite"]
    assert alert["status"] == "firing"
    assert alert["labels"] | {"run": "faces", "severity": "warning"} == alert["labels"]
    assert alert["annotations"]["summary"] == "Run faces skipped turns because of non-finite gradients."
    assert "learning_rate" in alert["annotations"]["runbook"]


POD = {
    "__meta_kubernetes_pod_label_app": "ganrun-sidecar",
    "__meta_kubernetes_pod_container_port_number": "9108",
    "__meta_kubernetes_pod_container_port_name": "metrics",
}
RAY = {
    "__meta_kubernetes_pod_labelpresent_ray_io_node_type": "true",
    "__meta_kubernetes_pod_container_port_name": "metrics",
    "__meta_kubernetes_pod_label_ray_io_cluster": "gpus",
}
PODS = {
    "sidecar": POD,
    "sidecar-shell": POD | {"__meta_kubernetes_pod_container_port_number": "22"},
    "other": {"__meta_kubernetes_pod_container_port_number": "9108"},
    "ray": RAY,
    "ray-dashboard": RAY | {"__meta_kubernetes_pod_container_port_name": "dashboard"},
}


@needs("prometheus")
def test_pods_of_kubernetes_are_found_by_their_labels(tmp_path):
    """Debian's Prometheus cannot ask an API server, so a file tells it what one would."""
    pods = [{"targets": [f"{name}.invalid:1"], "labels": labels} for name, labels in PODS.items()]
    (tmp_path / "pods.json").write_text(json.dumps(pods))
    config = yaml.safe_load((DEPLOY / "prometheus/prometheus-kubernetes.yml").read_text())
    for job in config["scrape_configs"]:
        assert job.pop("kubernetes_sd_configs") == [{"role": "pod", "namespaces": {"own_namespace": True}}]
        job["file_sd_configs"] = [{"files": [str(tmp_path / "pods.json")]}]
    with prometheus(tmp_path / "prometheus", config=config) as url:
        wait_until(lambda: len(targets(url)) == 2, lambda: targets(url))
        assert targets(url) == {("ganrun", "sidecar.invalid:1", None), ("ray", "ray.invalid:1", "gpus")}


@needs("prometheus")
def test_sidecars_and_nodes_of_ray_are_found(tmp_path):
    config = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())
    (ray,) = (job for job in config["scrape_configs"] if job["job_name"] == "ray")
    assert ray["file_sd_configs"] == [{"files": [f"/tmp/ray/{PROMETHEUS_SERVICE_DISCOVERY_FILE}"]}]
    ray["file_sd_configs"] = [{"files": [f"{tmp_path}/ray.json"]}]
    (tmp_path / "ray.json").write_text('[{"labels": {"job": "ray"}, "targets": ["node.invalid:8080"]}]')
    with prometheus(tmp_path / "prometheus", config=config) as url:
        (tmp_path / "prometheus/sidecars.yml").write_text('- targets: ["other.invalid:9108"]')
        expected = {("ganrun", "localhost:9108"), ("ganrun", "other.invalid:9108"), ("ray", "node.invalid:8080")}
        wait_until(lambda: targets(url) == {(*each, None) for each in expected}, lambda: targets(url))


def targets(url: str) -> set[tuple[str, str, str | None]]:
    """Job, address and Ray cluster of each."""
    labels = [each["labels"] for each in ask(url, "targets", state="active")["activeTargets"]]
    return {(each["job"], each["instance"], each.get("cluster")) for each in labels}
