"""Runs tasks in parallel processes, with results in the order of the tasks."""

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
    """Yield job(task) for each task, computed in `workers` processes; in this process if there is one worker or task.

    The job is pickled to each process once, a task each time.

    Raises:
        RunError: a process was killed.
        Exception: the first error of a job; tasks that have not started are cancelled.
    """
    if workers == 1 or len(tasks) < 2:
        yield from map(job, tasks)
        return
    # Spawn, not fork: torch may be loaded here, and its threads do not survive a fork.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(tasks)), context, _begin, (job,)) as pool:
        try:
            yield from pool.map(_call, tasks)
        except BrokenProcessPool as error:
            raise RunError(
                "a worker process died, perhaps for lack of memory; run the same command again with fewer --workers, "
                "it continues where this one stopped"
            ) from error
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


_job: Callable[[Any], Any]


def _begin(job: Callable[[Any], Any]) -> None:
    global _job
    _job = job
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends workers without a traceback
    threading.Thread(target=_leave_with_parent, daemon=True).start()


def _leave_with_parent() -> None:
    """Exit when the parent dies. A worker whose parent was killed would wait for tasks forever."""
    parent = multiprocessing.parent_process()
    if parent:
        parent.join()
        os._exit(1)


def _call(task: Any) -> Any:
    return _job(task)
