"""Ray of a run: a local one on this machine, or the cluster that RAY_ADDRESS names."""

import contextlib
import logging
import math
import os
import signal
import socket
import threading
from collections.abc import Iterator
from typing import Any

from ganrun.errors import UserError
from ganrun.ray_backend.internals import LOCAL_VARIABLES, set_variables
from ganrun.storage import open_storage

LOOPBACK = next((name for _, name in socket.if_nameindex() if name.startswith("lo")), "lo")


def _check_answers(address: str) -> None:
    """Raise UserError if no Ray answers at `address`. Ray itself would retry for minutes."""
    if address.startswith("http"):
        raise UserError(
            f"RAY_ADDRESS: {address!r} is where jobs are submitted: `ray job submit --working-dir . -- python -m "
            "ganrun.train ...`; to run on this machine only, unset it"
        )
    host, _, port = address.rpartition(":")
    if host and port.isdigit() and "/" not in host:
        try:
            socket.create_connection((host, int(port)), timeout=10).close()
        except OSError as error:
            raise UserError(
                f"RAY_ADDRESS: no Ray cluster answers at {address!r} ({error.strerror or error})"
            ) from error


@contextlib.contextmanager
def _our_signals() -> Iterator[None]:
    """Restore our signal handlers after the block: Ray replaces that of SIGTERM at its start, in Python and in C++."""
    numbers = (signal.SIGINT, signal.SIGTERM) if threading.current_thread() is threading.main_thread() else ()
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def ray_cluster(uri: str, cpus: float) -> Iterator[Any]:
    """Connect to the cluster that RAY_ADDRESS names, or start a Ray on this machine; disconnect at the end.

    Args:
        uri: URI of the run's folder, whose `.ray` is deleted at the end.
        cpus: number of CPUs that the run needs; a local Ray gets at least as many.

    Raises:
        UserError: RAY_ADDRESS names no Ray cluster that answers.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if "RAY_ADDRESS" in os.environ:
        _check_answers(os.environ["RAY_ADDRESS"])
    else:
        os.environ.setdefault("RAY_AUTH_MODE", "disabled")
        set_variables(*LOCAL_VARIABLES)
        for library in ("GLOO", "NCCL"):
            os.environ.setdefault(f"{library}_SOCKET_IFNAME", LOOPBACK)
        options |= {
            "address": "local",
            "num_cpus": max(os.cpu_count() or 1, math.ceil(cpus)),
            "include_dashboard": False,
            "object_store_memory": 100 * 2**20,
        }
    import ray

    logging.getLogger("ray").setLevel(logging.ERROR)
    # Ray prints faults of its processes to stdout, which is for our output; they are in Ray's logs too.
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        try:
            with _our_signals():
                ray.init(**options)
        except ConnectionError as error:
            address = os.environ.get("RAY_ADDRESS")
            raise UserError(f"RAY_ADDRESS: no Ray cluster answers at {address!r}; start one, or unset it") from error
        try:
            yield ray
        finally:
            ray.shutdown()
            with contextlib.suppress(OSError):  # A worker may still write to it; `ganrun runs gc` deletes it.
                open_storage(uri).delete(".ray")
