"""The compose stack without Docker: `make drill`.

Each container is a host of its own with the command, variables, user, volumes and health check that its service has in
compose.yaml. Its files are this machine's, under a layer that goes with it. So two things are not shown: the images,
and Grafana, which no package brings.
"""

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.local.network import Network
from tests.deploy.stack import DEPLOY, ROOT, ask, needs, wait_until
from tests.faults.cluster import free_number, why_no_hosts

pytestmark = [pytest.mark.drill, needs("prometheus", "prometheus-alertmanager", "wget", "nsenter")]

COMPOSE = yaml.safe_load((DEPLOY / "compose/compose.yaml").read_text())
HOSTS = {
    "storage": "storage",
    "head": "head",
    "worker-1": "host1",
    "worker-2": "host2",
    "sidecar": "host3",
    "alertmanager": "host4",
    "prometheus": "host5",
}
"""Container -> its host; who depends on others comes after them."""
ENTRYPOINTS = {"prometheus": ["prometheus"], "alertmanager": ["prometheus-alertmanager"]}
"""Of others' images, with the names that Debian gives their programs."""
WORKDIRS = {"prometheus": "/prometheus", "alertmanager": "/alertmanager", "storage": "/data"}
"""Of the same."""
ROOTS, NOBODY = "0", "65534"
"""Users of SeaweedFS's image, and of those of Prometheus."""
CONTAINER = """
set -e
top=$1/layer; shift
mkdir -p "$top"
mount -t tmpfs tmpfs "$top"
root=$top/root
mkdir "$top/changes" "$top/work" "$root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$top/changes,workdir=$top/work" "$root"
for path in /dev /proc /sys {programs}; do mkdir -p "$root$path"; mount --rbind "$path" "$root$path"; done
for path in {programs}; do
    while [ "$path" != / ]; do chmod o+rx "$root$path"; path=$(dirname "$path"); done
done
mount --bind {hosts} "$root/etc/hosts"
rm -rf "$root/tmp"
mkdir -m 1777 "$root/tmp"
mkdir -p "$root/cache" "$root/tmp/ray" "$root/home/ray" "$root{workdir}"
cp -r {configs} "$root/home/ray"
chown -R {user}:{user} "$root/cache" "$root/tmp/ray" "$root/home/ray" "$root{workdir}"
{volumes}
exec chroot --userspec={user}:{user} "$root" env -i --chdir={workdir} {variables} "$@"
"""


class Container:
    """A replica of a service.

    Args:
        name: of the service, with a number if there are several.
        network: that it is on.
        folder: for its log, and the volumes of all.
        secrets: what .env says.
    """

    def __init__(self, name: str, network: Network, folder: Path, secrets: dict[str, str]) -> None:
        self.name, self.network, self.host = name, network, HOSTS[name]
        self.service: dict[str, Any] = COMPOSE["services"][name.partition("-")[0]]
        self.log, self.folder = folder / f"{name}.log", folder
        self.own = "ganrun" in self.service["image"]
        self.user = self.service.get("user", ROOTS if name == "storage" else NOBODY)
        image = re.findall(r"^(?:ENV|   ) ((?!PIP|PATH)[A-Z_]+)=(\S+)", (DEPLOY / "Dockerfile").read_text(), re.M)
        self.variables = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HOME": "/home/ray"}
        self.variables["GRPC_DNS_RESOLVER"] = "native"  # Names are in /etc/hosts; Docker has a name server.
        self.variables |= dict(image) if self.own else {}
        self.variables |= secrets if "env_file" in self.service else {}
        self.variables |= self.service.get("environment", {})

    def start(self) -> None:
        """Begins it on its host."""
        written = self.service["command"]
        words = shlex.split(written) if isinstance(written, str) else written
        command = [*self.service.get("entrypoint", ENTRYPOINTS.get(self.name, [])), *words]
        made = ["bash", "-c", self._script(), "bash", str(self.network.folder / self.host), *command]
        with self.log.open("ab") as log:
            self.process = self.network.popen(self.host, made, stdout=log, stderr=log)

    def execute(self, *command: str) -> "subprocess.CompletedProcess[str]":
        """`docker compose exec`: as its user, with its variables."""
        within = ["nsenter", f"--target={self.process.pid}", "--mount", "--net", "--root", "--wd"]
        within += ["setpriv", f"--reuid={self.user}", f"--regid={self.user}", "--clear-groups", "env", "-i"]
        within += [f"{name}={value}" for name, value in self.variables.items()]
        return subprocess.run([*within, *command], capture_output=True, text=True, check=False)

    def wait_until_healthy(self) -> None:
        """By its own health check."""
        kind, *command = self.service["healthcheck"]["test"]
        assert kind == "CMD"
        wait_until(lambda: self.execute(*command).returncode == 0, self.said, 240)

    def stop(self) -> int | None:
        """`docker compose stop`: SIGTERM; what it ended with within its grace, None if it did not."""
        grace = {"2m": 120, "20s": 20, None: 10}[self.service.get("stop_grace_period")]
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(grace)
        except subprocess.TimeoutExpired:
            return None

    def said(self) -> str:
        """The end of its log."""
        return f"--- {self.name}\n{self.log.read_text()[-3000:]}"

    def _script(self) -> str:
        return CONTAINER.format(
            programs=shlex.join(map(str, (ROOT, sys.prefix, sys.base_prefix))),
            hosts=shlex.quote(str(self.network.folder / "hosts")),
            configs=shlex.quote(str(ROOT / "configs")),
            volumes="\n".join(self._mount(*written.split(":")) for written in self.service.get("volumes", ())),
            user=self.user,
            workdir="/home/ray" if self.own else WORKDIRS[self.name],
            variables=shlex.join(f"{name}={value}" for name, value in self.variables.items()),
        )

    def _mount(self, source: str, target: str, mode: str = "rw") -> str:
        place = (DEPLOY / "compose" / source).resolve()
        if source in COMPOSE["volumes"]:
            place = self.folder / "volumes" / source
            if not place.exists():  # As Docker does: a new volume belongs to whom the image gave the folder.
                place.mkdir(parents=True)
                os.chown(place, int(self.user), int(self.user))
        make = "mkdir -p" if place.is_dir() else "touch"
        return f'{make} "$root{target}"; mount --bind -o {mode} "{place}" "$root{target}"'


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Network]:
    if why := why_no_hosts():
        pytest.skip(why)
    number = free_number()
    network = Network(f"ganrunc{number}", f"10.79.{number}", tmp_path / "hosts")
    for host in HOSTS.values():
        (network.folder / host / "ray").mkdir(parents=True)
    (network.folder / "ray").mkdir()
    known = [f"{network.address(host)} {name.partition('-')[0]}" for name, host in HOSTS.items()]
    (network.folder / "hosts").write_text("\n".join(["127.0.0.1 localhost", *known, ""]))
    try:
        network.make(HOSTS.values())
        yield network
    finally:
        network.remove(HOSTS.values())


@pytest.fixture
def secrets() -> dict[str, str]:
    """example.env, after what it says to replace is replaced."""
    example = re.findall(r"^(\w+)=(.*)$", (DEPLOY / "compose/example.env").read_text(), re.M)
    return {name: value.replace("replace-me", f"marked-{name.lower()}") for name, value in example}


def test_it_comes_up_in_order_trains_is_watched_and_stops(network: Network, tmp_path: Path, secrets) -> None:
    """Nobody restarts anything."""
    containers = {name: Container(name, network, tmp_path, secrets) for name in HOSTS}

    def said() -> str:
        return "\n".join(each.said() for each in containers.values())

    for container in containers.values():
        for needed, condition in container.service.get("depends_on", {}).items():
            assert condition == {"condition": "service_healthy"}
            containers[needed].wait_until_healthy()
        container.start()
    head = containers["head"]
    wait_until(lambda: head.execute("ray", "status").stdout.count(" 1 node_") == 3, said, 120)

    # A job from this machine, as docs/cluster.md has it: with the stack's token, to the dashboard's published port.
    outside = {"RAY_ADDRESS": f"http://{network.address('head')}:8265", "RAY_AUTH_MODE": "token"}
    outside |= {"RAY_AUTH_TOKEN": secrets["RAY_AUTH_TOKEN"]}
    command = [sys.executable, "-m", "ray.scripts.scripts", "job", "submit", "--working-dir=.", "--"]
    command += ["python", "-m", "ganrun.train", "configs/quickstart.yaml", "run.storage=s3://ganrun/runs"]
    command += ["cluster.workers=2", "cluster.cpus_per_worker=1", "model.width=8", "train.total_images=6_400"]
    command += ["train.tick_images=1_600", "checkpoint.every_images=3_200", "evaluate.samples=100"]
    job = subprocess.run(command, env=os.environ | outside, cwd=ROOT, capture_output=True, text=True, check=False)
    assert job.returncode == 0, job.stdout + job.stderr + said()
    assert "finished: 6,400 images shown" in job.stdout
    assert not [value for value in secrets.values() if "marked" in value and value in job.stdout + job.stderr]

    # Prometheus, as nobody, finds the sidecar and the three nodes, and the run in what the sidecar says.
    prometheus = f"http://{network.address(HOSTS['prometheus'])}:9090"

    def found(query: str) -> list[tuple[str, str]]:
        series = ask(prometheus, "query", query=query)["result"]
        return sorted((each["metric"]["job"], each["value"][1]) for each in series)

    def all_up() -> bool:
        up = found("up")
        return up[:1] == [("ganrun", "1")] and len(up) > 3 and set(up[1:]) == {("ray", "1")}

    wait_until(all_up, lambda: f"{found('up')}\n{said()}", 90)
    wait_until(lambda: found("ganrun_images") == [("ganrun", "6400")], lambda: f"{found('ganrun_images')}", 60)
    managers = ask(prometheus, "alertmanagers")["activeAlertmanagers"]
    assert [each["url"] for each in managers] == ["http://alertmanager:9093/api/v2/alerts"]

    for container in reversed(containers.values()):
        code = container.stop()
        print(f"{container.name} ended with {code}")
        assert code is not None, container.said()
