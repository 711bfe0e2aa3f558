"""Ray of a run: a local one on this machine, or the cluster that RAY_ADDRESS names."""

import contextlib
import logging
import math
import os
import signal
import socket
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from pathlib import Path
from types import FrameType
from typing import Any

from ganrun.cli.command import has_colours
from ganrun.config.ray_variables import cluster_address, session_folder
from ganrun.errors import RunError, UserError
from ganrun.ray_backend.internals import LOCAL_VARIABLES, set_default, set_variables
from ganrun.storage import open_storage

logger = logging.getLogger(__name__)
LOOPBACK = next((name for _, name in socket.if_nameindex() if name.startswith("lo")), "lo")
ANSWER_SECONDS = 10.0
"""Timeout of a TCP connection to the head of a cluster."""
JOIN_SECONDS = 45.0
"""Timeout of joining a cluster. Ray itself retries for minutes, or ends this process after 60 s."""
LOOK_SECONDS = 0.1
SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def ray_cluster(uri: str, cpus: float, stop: threading.Event) -> Iterator[Any]:
    """Join the cluster that RAY_ADDRESS names, or start a Ray on this machine; disconnect at the end.

    Args:
        uri: URI of the run's folder, whose `.ray` is deleted at the end.
        cpus: number of CPUs that the run needs; a local Ray gets at least as many.
        stop: set by a signal.

    Raises:
        UserError: RAY_ADDRESS names no Ray cluster that answers.
        RunError: no Ray starts on this machine.
        KeyboardInterrupt: `stop` was set before Ray was there.
    """
    set_default("RAY_USAGE_STATS_ENABLED", "0")
    address = cluster_address()
    # Ray prints faults of its processes to stdout, which is for our output; they are in Ray's logs too.
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(sys.stderr if _verbose() else nowhere):
        with _our_signals():
            _start_or_leave(cpus, stop) if address is None else _join(address, stop)
        import ray

        try:
            if stop.is_set():
                raise KeyboardInterrupt
            yield ray
        finally:
            ray.shutdown()
            with contextlib.suppress(OSError):  # A worker may still write to it; `ganrun runs gc` deletes it.
                open_storage(uri).delete(".ray")


@contextlib.contextmanager
def _our_signals() -> Iterator[None]:
    """Restore our signal handlers after the block: Ray replaces that of SIGTERM at its start, in Python and in C++."""
    numbers = SIGNALS if threading.current_thread() is threading.main_thread() else ()
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _start_or_leave(cpus: float, stop: threading.Event) -> None:
    """`_start`, which a signal ends at once and not only when Ray is up. No process of Ray stays.

    Raises:
        KeyboardInterrupt: a signal came.
    """

    def leave(number: int, frame: FrameType | None) -> None:
        stop.set()
        raise KeyboardInterrupt

    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            signal.signal(number, leave)
    ours, hook = _descendants(), sys.unraisablehook
    # Python prints an interrupt that comes within a hook of a fork, and drops it; `stop` then ends the start.
    sys.unraisablehook = lambda each: None if issubclass(each.exc_type, KeyboardInterrupt) else hook(each)
    try:
        _start(cpus, stop)
    except (KeyboardInterrupt, SystemExit) as error:  # Ray replaces the handler of SIGTERM by one that exits.
        # Ray itself ends some of its processes when this one ends, and others never.
        found: set[int] = set()
        while new := _descendants() - ours - found:
            _send(signal.SIGSTOP, new)  # So that they start no others.
            found |= new
        _send(signal.SIGKILL, found)
        raise KeyboardInterrupt from error
    finally:
        sys.unraisablehook = hook


def _descendants() -> set[int]:
    """Return the ids of the processes that this one has started, and of those that they have. Linux only."""
    children = defaultdict(set)
    for file in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # It has ended.
            parent = file.read_text(errors="replace").rpartition(")")[2].split()[1]
            children[int(parent)].add(int(file.parent.name))
    found, parents = set(), {os.getpid()}
    while parents := {child for parent in parents for child in children[parent]}:
        found |= parents
    return found


def _send(number: signal.Signals, processes: set[int]) -> None:
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, number)


def _start(cpus: float, stop: threading.Event) -> None:
    """Start a Ray on this machine that listens on the loopback address only. Ray gives up by itself after 30 s.

    In the main thread: Linux ends the processes of Ray with the thread that started them.
    """
    folder = session_folder()
    set_default("RAY_AUTH_MODE", "disabled")
    set_variables(*LOCAL_VARIABLES)
    for library in ("GLOO", "NCCL"):
        set_default(f"{library}_SOCKET_IFNAME", LOOPBACK)
    try:
        _init(
            address="local",
            num_cpus=max(os.cpu_count() or 1, math.ceil(cpus)),
            include_dashboard=False,
            object_store_memory=100 * 2**20,
            _temp_dir=f"{folder}/ray",
        )
    except Exception as error:  # Ray raises a plain Exception when its start times out.
        if stop.is_set():
            raise KeyboardInterrupt from error
        raise RunError(
            f"Ray does not start on this machine: {_line(error)} (its logs: {folder}/ray/session_latest/logs)"
        ) from error


def _join(address: str, stop: threading.Event) -> None:
    """Join the cluster at RAY_ADDRESS.

    In a thread: Ray waits for an answer in C++, where no signal handler of Python runs.
    """
    check_answers(address)
    joined, deadline = in_thread(_init, address), time.monotonic() + JOIN_SECONDS
    while not wait([joined], LOOK_SECONDS).done:
        if stop.is_set():
            raise KeyboardInterrupt
        if time.monotonic() > deadline:
            raise UserError(
                f"RAY_ADDRESS: what answers at {address!r} lets no one join within {JOIN_SECONDS:.0f} s; is it the "
                "head of a Ray cluster, HOST:PORT of `ray start --head`? Restart it, or unset RAY_ADDRESS"
            )
    try:
        joined.result()
    except Exception as error:
        raise UserError(f"RAY_ADDRESS: cannot join the Ray cluster at {address!r}: {_line(error)}") from error


def check_answers(address: str) -> None:
    """Raise UserError if nothing answers at `address`. Ray itself would retry for minutes."""
    if address.startswith("http"):
        raise UserError(
            f"RAY_ADDRESS: {address!r} is where jobs are submitted: `ray job submit --working-dir . -- python -m "
            "ganrun.train ...`; to run on this machine only, unset it"
        )
    _import_ray()
    from ganrun.ray_backend.internals import canonicalize_bootstrap_address

    found = address
    try:
        found = address.removeprefix("ray://") if "://" in address else canonicalize_bootstrap_address(address)
        host, _, port = found.rpartition(":")
        socket.create_connection((host.strip("[]"), int(port)), ANSWER_SECONDS).close()
    except (OSError, OverflowError, ValueError) as error:
        where = "" if found in address else f"{found}: "
        text = (isinstance(error, OSError) and error.strerror) or _line(error)
        raise UserError(
            f"RAY_ADDRESS: no Ray cluster answers at {address!r} ({where}{text}); start one, or unset it to run on "
            "this machine"
        ) from error


def _init(address: str, **options: Any) -> None:
    if not has_colours(sys.stderr):
        set_default("RAY_COLOR_PREFIX", "0")
    _import_ray().init(address, log_to_driver=_verbose(), logging_level=_level(), **options)


def _import_ray() -> Any:
    """Import Ray, whose import sets the level of its logger, and have it log errors only, or with --verbose more."""
    import ray

    logging.getLogger("ray").setLevel(_level())
    return ray


def _level() -> int:
    return logging.INFO if _verbose() else logging.ERROR


def _verbose() -> bool:
    return logger.isEnabledFor(logging.DEBUG)


def in_thread(work: Callable[..., Any], *arguments: Any) -> Future[Any]:
    """Call a function in a daemon thread. Return the future of its result."""
    outcome: Future[Any] = Future()

    def run() -> None:
        try:
            outcome.set_result(work(*arguments))
        except BaseException as error:
            outcome.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return outcome


def _line(error: BaseException) -> str:
    """Return the message of an error and of its cause in one line."""
    errors = [error, error.__cause__] if error.__cause__ else [error]
    return ": ".join(" ".join(str(each).split()) or type(each).__name__ for each in errors)
