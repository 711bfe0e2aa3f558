"""Tell Ray that this machine is about to go away, so that workers save a checkpoint and leave (docs/cluster.md).

    python notice.py aws    on an EC2 spot instance, beside Ray: waits for the interruption notice, 2 minutes ahead
    python notice.py now    drain this machine now: from a pod's preStop hook, or by hand before maintenance

A standalone file that needs only Ray. `cluster/aws.yaml`, `cluster/kuberay/` and `deploy/kubernetes/` run it.
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
"""URL of the EC2 instance metadata service."""
POLL_SECONDS = 5.0


def main() -> int:
    """Run the command and return its exit code."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="notice.py", description=__doc__, formatter_class=raw)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    now = verbs.add_parser("now", help="drain this machine now")
    now.add_argument("--seconds", type=float, default=100, help="seconds until it goes away (default: %(default)s)")
    aws = verbs.add_parser("aws", help="wait for the interruption notice of an EC2 spot instance, then drain it")
    aws.add_argument("--metadata", default=METADATA, help="URL of the metadata service (default: %(default)s)")
    options = parser.parse_args()
    drain(options.seconds if options.verb == "now" else wait_for_ec2(options.metadata))
    return 0


def wait_for_ec2(metadata: str) -> float:
    """Wait for the interruption notice. Return the seconds until EC2 stops this spot instance."""
    while (left := seconds_left(metadata)) is None:
        time.sleep(POLL_SECONDS)
    return left


def seconds_left(metadata: str) -> float | None:
    """Return the seconds until the time in the notice; None without a notice.

    Reads `spot/instance-action` of the instance metadata service, version 2 (with a session token).
    """
    ttl = {"X-aws-ec2-metadata-token-ttl-seconds": "60"}
    try:
        token = _ask(urllib.request.Request(f"{metadata}/api/token", method="PUT", headers=ttl))
        known = {"X-aws-ec2-metadata-token": token}
        notice = json.loads(_ask(urllib.request.Request(f"{metadata}/meta-data/spot/instance-action", headers=known)))
        at = datetime.datetime.fromisoformat(notice["time"])
    except (OSError, ValueError, KeyError) as error:
        if not (isinstance(error, urllib.error.HTTPError) and error.code == 404):  # 404: no notice yet
            print(f"notice.py: {metadata}: {error}", file=sys.stderr, flush=True)
        return None
    return max(0.0, (at - datetime.datetime.now(datetime.UTC)).total_seconds())


def drain(seconds: float) -> None:
    """Drain the Ray node of this machine with a deadline in `seconds`."""
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
