"""Serve runs to Prometheus and browsers over HTTP, without Ray. `ganrun train` starts a sidecar if none runs."""

import argparse
import errno
import ipaddress
import os
import signal
import sys
import time

from ganrun.cli import command
from ganrun.cli.arguments import listen_address
from ganrun.errors import RunError, UserError
from ganrun.telemetry.protocol import HOST, PORT, TOKEN_VARIABLE, Address, token

EXAMPLES = """examples:
  ganrun sidecar                                      http://127.0.0.1:9108, where runs of this machine push
  ganrun sidecar --stop                               stop it; runs continue without pushing
  GANRUN_SIDECAR_TOKEN=... ganrun sidecar --listen 0.0.0.0:9108
  GANRUN_SIDECAR_TOKEN=... GANRUN_SIDECAR=http://head:9108 ganrun train configs/quickstart.yaml

/ is a page of all runs, /metrics is for Prometheus, /runs is JSON, /healthz is for health checks."""
STOP_SECONDS = 20.0


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = command.parser("sidecar", __doc__, EXAMPLES)
    parser.add_argument("--listen", metavar="ADDR:PORT", default=f"{HOST}:{PORT}", help="default: %(default)s")
    parser.add_argument("--stop", action="store_true", help="end the one that listens there")
    return command.run(command.parse(parser, arguments), _main)


def _main(options: argparse.Namespace) -> int:
    where = listen_address(options.listen, PORT)
    return _stop(where) if options.stop else _serve(where)


def _serve(where: Address) -> int:
    from ganrun.telemetry.push import health
    from ganrun.telemetry.sidecar.runs import Runs
    from ganrun.telemetry.sidecar.server import Server

    if not ipaddress.ip_address(where.host).is_loopback and not token():
        raise UserError(
            f"--listen: {where.host} is open to other machines: set {TOKEN_VARIABLE} here and where runs are started"
        )
    try:
        server = Server(where, Runs(), token())
    except OSError as error:
        if error.errno == errno.EADDRINUSE and health(where):
            print(f"a sidecar is at {where.url} already", file=sys.stderr)
            return command.OK
        raise RunError(f"--listen: {where.host}:{where.port}: {error.strerror}; choose another port") from error
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    print(f"http://{where.host}:{server.port} (process {os.getpid()})", file=sys.stderr, flush=True)
    with server:
        server.serve_forever()
    return command.OK


def _stop(where: Address) -> int:
    from ganrun.telemetry.push import FAULTS, health, request

    found = health(where)
    if found is None:
        print(f"no sidecar is at {where.url}", file=sys.stderr)
        return command.OK
    try:
        status, answer = request(where, "DELETE", "/")
    except FAULTS as error:
        raise RunError(f"the sidecar at {where.url} does not answer: end process {found['pid']}") from error
    if status != 200:
        raise UserError(f"the sidecar at {where.url} refuses: {answer.decode('utf-8', 'replace')}")
    deadline = time.monotonic() + STOP_SECONDS
    while health(where):
        if time.monotonic() > deadline:
            raise RunError(f"the sidecar at {where.url} does not end: end process {found['pid']}")
        time.sleep(0.1)
    print(f"the sidecar at {where.url} ended", file=sys.stderr)
    return command.OK


if __name__ == "__main__":
    sys.exit(main())
