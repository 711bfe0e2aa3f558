"""Search on Ray Tune: trials in parallel, each a run with its own workers.

Ray Tune starts, pauses, restarts and ends the trials in its processes (`trainable.py`) and passes on what they report.
Exploits are decided by `scheduler.py`. A trial keeps running during an exploit: its workers receive a command, like the
one to stop, and read the donor's checkpoint from storage.
"""

import contextlib
import logging
import os
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import wait
from typing import TYPE_CHECKING, Any

from ganrun.config.run_spec import RunSpec
from ganrun.errors import RunError
from ganrun.ray_backend import launch
from ganrun.ray_backend.cluster import in_thread, ray_cluster
from ganrun.ray_backend.evaluation_tasks import begin_score
from ganrun.ray_backend.head_watch import HeadWatch
from ganrun.storage import Storage, for_ray, open_storage
from ganrun.telemetry.messages import Command, SearchEnded, TrialReport
from ganrun.tuning import trainable
from ganrun.tuning.population import Population
from ganrun.tuning.records import append_records

if TYPE_CHECKING:  # Ray reads its environment at import, so it is imported only after the connection.
    from ganrun.tuning.scheduler import Scheduler, SearchObserver

LISTEN_SECONDS = 0.2
QUIET = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000000",
}
"""Settings under which Ray Tune prints nothing and keeps no records, except `ScoreLog` until the search ends."""


def run(
    config: RunSpec, storage: Storage, population: Population, watch: "SearchObserver", stop: threading.Event
) -> str:
    """Run a search on a local Ray, or on the cluster that RAY_ADDRESS names. Return "finished" or "stopped".

    Args:
        config: the resolved search.
        storage: the search's folder.
        population: state of the trials by the records.
        watch: observer of all events.
        stop: set to make all trials save and exit.

    Raises:
        UserError: the config has a fault that only the workers could find.
        RunError: no trial finished.
    """
    try:
        with (
            ray_cluster(config.run.uri, len(population.trials) * config.most_cpus, stop) as ray,
            contextlib.closing(HeadWatch(ray.get_runtime_context().gcs_address)) as head,
        ):
            return _run(config, storage, population, watch, stop, head)
    finally:
        with contextlib.suppress(OSError):  # A worker may still use it; `ganrun runs gc` deletes it.
            for name in population.trials:
                open_storage(f"{storage.uri}/trials/{name}").delete(".ray")


def _run(
    config: RunSpec,
    storage: Storage,
    population: Population,
    watch: "SearchObserver",
    stop: threading.Event,
    head: HeadWatch,
) -> str:
    from ganrun.tuning.scheduler import ENDED, FINISHED, Scheduler

    boxes = {name: launch.mailbox() for name in population.trials}

    def send(name: str, stop: bool, commands: list[Command]) -> None:
        boxes[name].send.remote(stop, commands)

    scheduler = Scheduler(config, storage, population, watch, send)
    # In a thread: in the main thread Ray Tune would handle SIGINT itself.
    over = in_thread(tuner_of(config, scheduler, boxes).fit)
    while not wait([over], timeout=LISTEN_SECONDS).done:
        if stop.is_set() or head.lost:
            scheduler.stop()
        if head.gone:
            raise head.fault("the last checkpoints stay")
        watch.observe(scheduler.states())
    if head.lost:
        raise head.fault("trials that could be told have saved a checkpoint")
    if fault := scheduler.fault or over.exception():
        raise fault
    states = scheduler.states()
    watch.observe(states)
    if not set(states.values()) <= set(ENDED):
        return "stopped"
    if FINISHED not in states.values():
        raise RunError(f"all trials failed; the first: {scheduler.why}")
    best = population.best()
    score = _last_score(config, best, watch, lambda: stop.is_set() or head.lost) if best else None
    ended = SearchEnded(best.trial if best else None, score)
    append_records(storage, [ended])
    watch.record(ended)
    return "finished"


def _last_score(
    config: RunSpec, best: TrialReport, watch: "SearchObserver", stop: Callable[[], bool]
) -> dict[str, Any] | None:
    """Score the best checkpoint by `evaluate.samples`.

    Returns:
        The score as checkpoints keep it; None if it failed, if `stop` became true, or without `tune.samples`.
    """
    import ray

    assert config.tune is not None
    assert best.checkpoint is not None
    if config.tune.samples in (None, config.evaluate.samples):
        return None
    task = begin_score(f"{config.run.uri}/trials/{best.trial}", config.evaluate, config.cluster, best.checkpoint)
    while not ray.wait([task], timeout=LISTEN_SECONDS)[0]:
        if stop():
            ray.cancel(task, force=True)
            return None
    try:
        score: dict[str, Any] = ray.get(task)[0]
    except Exception as error:  # Any failure of the task.
        why = (str(error).strip().splitlines() or [type(error).__name__])[-1]
        watch.write_line(f"the best checkpoint has no score of evaluate.samples: {why}")
        return None
    return score


def tuner_of(config: RunSpec, scheduler: "Scheduler", boxes: dict[str, Any]) -> Any:
    """Return the Tuner of the unfinished trials.

    Args:
        config: the resolved search.
        scheduler: decides which trials run.
        boxes: the mailbox of each trial.
    """
    os.environ.update(QUIET)
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # The scheduler reports failures of trials.
    import ray
    from ray import tune

    from ganrun.tuning.scheduler import ENDED
    from ganrun.tuning.score_log import ScoreLog
    from ganrun.tuning.searcher import SearchEnd, TrialQueue

    # A trial's process only waits. Ray Train reserves resources for its workers.
    here = tune.PlacementGroupFactory([{f"node:{ray.util.get_node_ip_address()}": 0.001}])
    bound = tune.with_parameters(trainable.train_trial, search=config, boxes=boxes)
    trials = sum(state not in ENDED for state in scheduler.states().values())
    assert config.tune is not None
    return tune.Tuner(
        tune.with_resources(bound, here),
        tune_config=tune.TuneConfig(
            metric=config.tune.metric,
            mode=config.tune.mode,
            scheduler=scheduler,
            search_alg=TrialQueue(scheduler),
            num_samples=trials,
            max_concurrent_trials=trials,
        ),
        run_config=tune.RunConfig(
            name=uuid.uuid4().hex[:12],
            stop=SearchEnd(scheduler),
            callbacks=[ScoreLog()],
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=config.cluster.max_failures),
            **for_ray(f"{config.run.uri}/.ray"),
        ),
    )
