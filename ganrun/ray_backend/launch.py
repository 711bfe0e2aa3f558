"""Launch of a run's workers under Ray Train, and the driver's loop over their events.

Ray Train starts the processes, joins them in a process group and restarts them when one dies. Checkpoints, metrics and
scores are ganrun's own: nothing goes through `ray.train.report`.
"""

import contextlib
import threading
import traceback
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from dataclasses import replace
from typing import Any

from ganrun.config.run_spec import RunSpec
from ganrun.errors import PROGRAM_FAULTS, RunError, UserError
from ganrun.ray_backend.cluster import ray_cluster
from ganrun.ray_backend.evaluation_tasks import EvaluationTasks
from ganrun.ray_backend.head_watch import HeadWatch
from ganrun.ray_backend.internals import ELASTIC_VARIABLES, TRAIN_VARIABLES, set_variables
from ganrun.storage import for_ray
from ganrun.telemetry.messages import (
    ENDINGS,
    FAILURE,
    Command,
    DrainWorkers,
    Event,
    Exploit,
    Failed,
    Finished,
    Note,
    Restart,
    Stopped,
)
from ganrun.worker.channel import Answer, Channel

LISTEN_SECONDS = 0.25


class Mailbox:
    """Actor between driver and workers. Workers put events; the driver puts commands and the stop flag."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Drop all content before workers are started."""
        self._events: list[Event] = []
        self._commands: list[Command] = []
        self._stop = False
        self._restart: Restart | None = None

    def exchange(self, events: list[Event], listens: bool) -> Answer:
        """Take events of a worker. Return the stop flag and, if it listens, the commands. Called by workers."""
        self._events += events
        if not listens:
            return self._stop, []
        commands, self._commands = self._commands, []
        return self._stop, commands

    def send(self, stop: bool, commands: list[Command]) -> None:
        """Queue commands and set the stop flag, which stays set. Called by the driver."""
        self._stop = self._stop or stop
        self._commands += commands

    def collect(self, stop: bool, commands: list[Command]) -> list[Event]:
        """Send as `send` does, and return the events since the last call. Called by the driver."""
        self.send(stop, commands)
        events, self._events = self._events, []
        return events

    def command(self, command: Command) -> None:
        """Queue a command. Called by Ray's controller."""
        self._commands.append(command)

    def restart(self, restart: Restart) -> None:
        """Record a restart of the workers and drop orders to drain the old ones. Called by Ray's controller."""
        failures = (self._restart.failures if self._restart else 0) + (restart.reason == FAILURE)
        self._restart = restart = replace(restart, failures=failures)
        self._commands = [each for each in self._commands if not isinstance(each, DrainWorkers)]
        self._events.append(restart)

    def restarted(self) -> Restart | None:
        """Return the restart that started the present workers; None for the first start. Called by workers."""
        return self._restart


def run(config: RunSpec, handle: Callable[[Event], None], stop: threading.Event) -> str:
    """Train until the run is finished or stopped. Return `finished` or `stopped`.

    Args:
        config: config of the run.
        handle: called in this thread with each event of the workers.
        stop: set to make the workers save and exit.

    Raises:
        UserError, RunError: a worker reported that the run failed, Ray gave up restarting workers, or the head node
            is lost.
    """
    cluster = config.cluster
    with ray_cluster(config.run.uri, config.most_cpus, stop) as ray:
        fewest = cluster.fewest_workers
        needed = {"CPU": fewest * cluster.cpus_per_worker, "GPU": float(fewest * cluster.gpus_per_worker)}
        for resource, amount in needed.items():
            if (there := ray.cluster_resources().get(resource, 0)) < amount:
                text = f"waiting for nodes: the run needs {amount:g} {resource}s, the cluster has {there:g}"
                handle(Note(text))
        with contextlib.closing(HeadWatch(ray.get_runtime_context().gcs_address)) as head:
            return _run(config, handle, stop, head)


def _run(config: RunSpec, handle: Callable[[Event], None], stop: threading.Event, head: HeadWatch) -> str:
    import ray

    box = mailbox()
    # A task, not a thread: it ends with our connection to Ray, even in the middle of a call.
    fitted = ray.remote(fit).options(max_retries=0, **_on_this_node()).remote(config, box).future()
    for events in follow(config, box, fitted, lambda: stop.is_set() or head.lost):
        for event in events:
            handle(event)
        if head.gone:
            raise head.fault("the last checkpoint is kept")
    match event:
        case Finished():
            return "finished"
        case Stopped() if not head.lost:
            return "stopped"
        case Failed(text, wrong_input):
            raise UserError(text) if wrong_input else RunError(text)
    raise head.fault("a checkpoint is saved")


def mailbox() -> Any:
    """Start a mailbox actor on this node, which lives as long as this process. Ray must be initialised."""
    import ray

    return ray.remote(Mailbox).options(max_restarts=-1, max_task_retries=-1, **_on_this_node()).remote()


def _on_this_node() -> dict[str, Any]:
    """Return Ray options that pin an actor or task to this node: another may be lost, with the events in it."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return {"num_cpus": 0, "scheduling_strategy": here}


def follow(config: RunSpec, box: Any, fitted: Future[str | None], stop: Callable[[], bool]) -> Iterator[list[Event]]:
    """Yield the events of the workers in batches, every LISTEN_SECONDS. The last event is one of ENDINGS.

    Args:
        config: config of the run.
        box: mailbox of the run.
        fitted: future of `fit`.
        stop: returns True if the workers are to save and exit.
    """
    import ray

    scores = EvaluationTasks(config.run, config.evaluate, config.cluster, search=config.tune is not None)
    while True:
        over = bool(wait([fitted], timeout=LISTEN_SECONDS).done)
        events: list[Event] = ray.get(box.collect.remote(stop(), scores.poll()))
        for number, event in enumerate(events, 1):
            scores.handle(event)
            if isinstance(event, ENDINGS):
                yield events[:number]
                return
        if over:
            yield [*events, _ray_gave_up(config.run.storage, fitted.result())]
            return
        yield events


def fit(config: RunSpec, box: Any, command: Exploit | None = None) -> str | None:
    """Run the workers and restart them when one dies. Return the error over which Ray gave up; None if it did not.

    Args:
        config: config of the run.
        box: mailbox of the run.
        command: see `worker.run_worker`.
    """
    from ray.train import FailureConfig, RunConfig, ScalingConfig

    from ganrun.ray_backend.policies import RESIZE_SECONDS, Trainer
    from ganrun.ray_backend.rendezvous import RendezvousConfig

    cluster = config.cluster
    elastic = cluster.fewest_workers < cluster.most_workers
    set_variables(*TRAIN_VARIABLES, *(ELASTIC_VARIABLES if elastic else ()))
    gpus: dict[str, float] = {"GPU": cluster.gpus_per_worker} if cluster.gpus_per_worker else {}
    trainer = Trainer(
        _train_worker,
        mailbox=box,
        train_loop_config={"config": config, "mailbox": box, "command": command},
        # gloo besides nccl: collectives of host values must not wait for GPUs.
        # The timeout of collectives exceeds the retry budget of the storage, during which a rank may be late.
        backend_config=RendezvousConfig(
            backend="cpu:gloo,cuda:nccl" if gpus else "gloo",
            timeout_s=config.run.patience_seconds + 120,
            uri=config.run.uri,
        ),
        scaling_config=ScalingConfig(
            num_workers=cluster.workers,
            elastic_resize_monitor_interval_s=RESIZE_SECONDS,
            use_gpu=bool(gpus),
            resources_per_worker={"CPU": cluster.cpus_per_worker} | gpus,
            placement_strategy=cluster.placement.upper(),
        ),
        run_config=RunConfig(
            name=uuid.uuid4().hex[:12],
            failure_config=FailureConfig(max_failures=cluster.max_failures),
            worker_runtime_env={"env_vars": cluster.env} if cluster.env else None,
            **for_ray(f"{config.run.uri}/.ray"),
        ),
    )
    try:
        trainer.fit()
    except Exception as error:
        return (str(error).strip().splitlines() or [type(error).__name__])[-1]  # Above it: Ray's own traceback.
    return None


def _ray_gave_up(storage: str, why: str | None) -> Event:
    """Return the ending of a run whose workers Ray gave up over `why`; None if it named no error."""
    if why and "NoCredentialsError" in why:
        text = (
            f"run.storage: the processes of the Ray cluster have no credentials for {storage}; start the "
            "cluster, or submit the job, with the AWS variables in its environment"
        )
        return Failed(text, wrong_input=True)
    return Failed(f"Ray ended the run: {why or 'its workers exited without an error'}", wrong_input=False)


def _train_worker(job: dict[str, Any]) -> None:
    """Run a worker of the run. Ray Train calls it in each worker process."""
    import ray
    from ray.train import get_context
    from ray.train.torch import get_device

    from ganrun.worker.worker import run_worker

    context, mailbox = get_context(), job["mailbox"]
    rank = context.get_world_rank()

    def exchange(events: list[Event]) -> Answer:
        return ray.get(mailbox.exchange.remote(events, rank == 0))  # type: ignore[no-any-return]

    channel = Channel(exchange, listen=rank == 0)
    try:
        restart = ray.get(mailbox.restarted.remote()) if rank == 0 else None
        run_worker(job["config"], rank, context.get_world_size(), get_device(), channel, job["command"], restart)
    except (UserError, RunError) as error:
        # A restart would fail again: the driver ends the run.
        channel.send(Failed(str(error), isinstance(error, UserError)))
    except PROGRAM_FAULTS:
        channel.send(Failed(f"a bug in the program:\n{traceback.format_exc()}", wrong_input=False))
    finally:
        channel.close()
