"""Tells Ray that the machine it runs on is to be taken away: the workers there save and leave it (docs/cluster.md).

    python notice.py aws    beside Ray on a spot instance of EC2: waits for its notice, which comes two minutes ahead
    python notice.py now    at once: from a pod's preStop hook, or by you, before maintenance

A file of its own, which needs Ray alone; `cluster/aws.yaml`, `cluster/kuberay/` and `deploy/kubernetes/` have it run.
"""

import argparse
import datetime
import json
import subprocess
import sys
import time
import urllib.error
import urllib.request

METADATA = "http://169.254.169.254/latest"
"""Where an EC2 instance is told about itself."""
POLL_SECONDS = 5.0


def main() -> int:
    """The command; returns the exit code."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="notice.py", description=__doc__, formatter_class=raw)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    now = verbs.add_parser("now", help="this machine is to be taken away")
    now.add_argument("--seconds", type=float, default=100, help="until then (default: %(default)s)")
    aws = verbs.add_parser("aws", help="wait until EC2 wants this spot instance back")
    aws.add_argument("--metadata", default=METADATA, help="its metadata service (default: %(default)s)")
    options = parser.parse_args()
    drain(options.seconds if options.verb == "now" else wait_for_ec2(options.metadata))
    return 0


def wait_for_ec2(metadata: str) -> float:
    """Seconds until EC2 takes this spot instance back; returns once it has said so."""
    while (left := seconds_left(metadata)) is None:
        time.sleep(POLL_SECONDS)
    return left


def seconds_left(metadata: str) -> float | None:
    """Until the time of the notice, if there is one: `spot/instance-action` of the instance metadata, version 2."""
    ttl = {"X-aws-ec2-metadata-token-ttl-seconds": "60"}
    try:
        token = _ask(urllib.request.Request(f"{metadata}/api/token", method="PUT", headers=ttl))
        known = {"X-aws-ec2-metadata-token": token}
        notice = json.loads(_ask(urllib.request.Request(f"{metadata}/meta-data/spot/instance-action", headers=known)))
        at = datetime.datetime.fromisoformat(notice["time"])
    except (OSError, ValueError, KeyError) as error:
        if not (isinstance(error, urllib.error.HTTPError) and error.code == 404):  # Which is: none yet.
            print(f"notice.py: {metadata}: {error}", file=sys.stderr, flush=True)
        return None
    return max(0.0, (at - datetime.datetime.now(datetime.UTC)).total_seconds())


def drain(seconds: float) -> None:
    """Tells the cluster that the node this process is on goes in so many seconds."""
    import ray

    with ray.init(log_to_driver=False, logging_level="ERROR"):
        node = ray.get_runtime_context().get_node_id()
    command = [sys.executable, "-m", "ray.scripts.scripts", "drain-node", f"--node-id={node}"]
    command += ["--reason=DRAIN_NODE_REASON_PREEMPTION", "--reason-message=the machine is to be taken away"]
    subprocess.run([*command, f"--deadline-remaining-seconds={max(1, int(seconds))}"], check=True)


def _ask(request: urllib.request.Request) -> str:
    with urllib.request.urlopen(request, timeout=5) as answer:
        return str(answer.read().decode())


if __name__ == "__main__":
    sys.exit(main())
