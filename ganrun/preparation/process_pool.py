"""Spreads a job over processes; the results come in the order of the tasks, whatever their number."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from ganrun.errors import RunError

Task = TypeVar("Task")
Result = TypeVar("Result")


def parallel_map(job: Callable[[Task], Result], tasks: Sequence[Task], workers: int) -> Iterator[Result]:
    """job(task) for each task, over `workers` processes; with one worker or one task in this process.

    The job travels to each process once, a task each time.

    Raises:
        RunError: a process was killed.
        Exception: the first that a job raised; tasks not begun are dropped.
    """
    if workers == 1 or len(tasks) < 2:
        yield from map(job, tasks)
        return
    # Spawned, not forked: torch may be loaded here, and its threads do not survive a fork.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(tasks)), context, _begin, (job,)) as pool:
        try:
            yield from pool.map(_call, tasks)
        except BrokenProcessPool as error:
            raise RunError(
                "a worker process died, perhaps for lack of memory; run the same command again to go on, "
                "with fewer --workers"
            ) from error
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


_job: Callable[[Any], Any]


def _begin(job: Callable[[Any], Any]) -> None:
    global _job
    _job = job
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends workers without their tracebacks
    threading.Thread(target=_leave_with_parent, daemon=True).start()


def _leave_with_parent() -> None:
    """A worker whose parent was killed would wait for tasks for ever."""
    parent = multiprocessing.parent_process()
    if parent:
        parent.join()
        os._exit(1)


def _call(task: Any) -> Any:
    return _job(task)
