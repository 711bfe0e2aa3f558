"""The Ray that a run is on: one of its own on this machine, or the cluster that RAY_ADDRESS names."""

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
    """Ray itself would try for minutes before it says that nobody is there."""
    if address.startswith("http"):
        raise UserError(
            f"RAY_ADDRESS: {address!r} is where jobs are submitted: `ray job submit --working-dir . -- python -m "
            "ganrun.train ...`; for a run of this machine alone, unset it"
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
    """Ray takes SIGTERM for itself when it starts, in Python (to leave at once) and below it (to abort)."""
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
        uri: of the run's folder, whose `.ray` is deleted at the end.
        cpus: that the run needs; a Ray of this machine has at least as many.
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
    # Ray prints what befalls its processes to stdout, which is ours alone; it is in Ray's logs too.
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
            with contextlib.suppress(OSError):  # A worker may still be at it; `ganrun runs gc` collects it.
                open_storage(uri).delete(".ray")
