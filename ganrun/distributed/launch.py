"""Starts a run's workers under Ray Train, listens to them, and ends them.

Ray gives processes and joins them in a process group; it starts them again when one dies. Checkpoints,
metrics and scores are ours alone, so nothing goes through `ray.train.report`.
"""

import contextlib
import logging
import math
import os
import signal
import socket
import threading
import traceback
import uuid
from collections.abc import Callable, Iterator
from typing import Any

from ganrun.distributed.change import Exploit
from ganrun.distributed.line import Answer, Line, Message
from ganrun.distributed.scores import Scores, scoring_cpus
from ganrun.errors import RunError, UserError
from ganrun.sections import Config
from ganrun.storage import for_ray, open_storage

ENDINGS = ("finished", "stopped")
LISTEN_SECONDS = 0.25
LOOPBACK = next((name for _, name in socket.if_nameindex() if name.startswith("lo")), "lo")
PROGRAM_FAULTS = (ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, NameError, TypeError)
"""What Python raises of faulty code, ours or in run.imports, but not when a machine, a worker or a link dies: to
start the workers again would only repeat it. (A ValueError or RuntimeError may be either.)"""


class Mailbox:
    """The actor between the driver and the workers: messages one way, the wish to stop and orders the other."""

    def __init__(self) -> None:
        self._messages: list[Message] = []
        self._orders: list[Message] = []
        self._stop = False

    def exchange(self, messages: list[Message], listens: bool) -> Answer:
        """A worker's side: takes its messages, says whether it should stop, and gives orders to the one who listens."""
        self._messages += messages
        if not listens:
            return self._stop, []
        orders, self._orders = self._orders, []
        return self._stop, orders

    def collect(self, stop: bool, orders: list[Message]) -> list[Message]:
        """The driver's side: takes the wish to stop and orders, and hands the messages over."""
        self._stop = self._stop or stop
        self._orders += orders
        messages, self._messages = self._messages, []
        return messages


def run(config: Config, hear: Callable[[Message], None], stop: threading.Event) -> str:
    """Trains until the run is finished or stopped; which of the two.

    Args:
        config: resolved.
        hear: is called in this thread with each message of the workers.
        stop: set to have the workers save and leave.

    Raises:
        UserError, RunError: what a worker said the run failed of, or Ray gave up starting workers again.
    """
    with connected(config) as ray:
        mailbox, fit = begin(config)
        needed = {"CPU": cpus_of(config), "GPU": config.cluster.workers * config.cluster.gpus_per_worker}
        for resource, amount in needed.items():
            if (there := ray.cluster_resources().get(resource, 0)) < amount:
                text = f"waiting for nodes: the run needs {amount:g} {resource}s, the cluster has {there:g}"
                hear({"kind": "note", "text": text})
        scores = Scores(config)
        while True:
            over, _ = ray.wait([fit], timeout=LISTEN_SECONDS)
            for message in ray.get(mailbox.collect.remote(stop.is_set(), scores.poll())):
                hear(message)
                scores.hear(message)
                if message["kind"] == "failed":
                    raise (UserError if message["wrong_input"] else RunError)(message["text"])
                if message["kind"] in ENDINGS:
                    return str(message["kind"])
            if over:
                raise ended(config, ray.get(fit))


def begin(config: Config, order: Exploit | None = None) -> tuple[Any, Any]:
    """Has the workers of a run started: the mailbox to talk to them, and a task that is over when they are gone.

    Args:
        config: of the run. Ray is connected to.
        order: see `worker.work`.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    mailbox = ray.remote(Mailbox).options(num_cpus=0, max_restarts=-1, max_task_retries=-1).remote()
    # A task and not a thread: whatever it is at, it ends with our connection to Ray.
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    fit = ray.remote(_fit).options(num_cpus=0, max_retries=0, scheduling_strategy=here)
    return mailbox, fit.remote(config, mailbox, order)


def _fit(config: Config, mailbox: Any, order: Exploit | None) -> str | None:
    """Runs the workers, and starts them again when one dies; what Ray gave up over, if it did."""
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

    from ganrun.distributed.meeting import LOST_SECONDS, MeetingConfig

    for name, seconds in LOST_SECONDS.items():
        os.environ.setdefault(name, seconds)
    cluster = config.cluster
    gpus: dict[str, float] = {"GPU": cluster.gpus_per_worker} if cluster.gpus_per_worker else {}
    # A TorchTrainer is this with a backend of its own, and imports torch here and in Ray's controller.
    trainer = DataParallelTrainer(
        _train_worker,
        train_loop_config={"config": config, "mailbox": mailbox, "order": order},
        # gloo beside nccl: that ranks agree on something must not wait for their GPUs.
        # A collective waits as long as the storage of one of its workers may be away, and a little more.
        backend_config=MeetingConfig(
            backend="cpu:gloo,cuda:nccl" if gpus else "gloo", timeout_s=config.run.patience_seconds + 120
        ),
        scaling_config=ScalingConfig(
            num_workers=cluster.workers,
            use_gpu=bool(gpus),
            resources_per_worker={"CPU": cluster.cpus_per_worker} | gpus,
        ),
        run_config=RunConfig(
            name=uuid.uuid4().hex[:12],
            failure_config=FailureConfig(max_failures=cluster.max_failures),
            **for_ray(f"{config.run.storage}/{config.run.name}/.ray"),
        ),
    )
    try:
        trainer.fit()
    except Exception as error:
        return (str(error).strip().splitlines() or [type(error).__name__])[-1]  # Above it is Ray's own traceback.
    return None


def ended(config: Config, why: str | None) -> UserError | RunError:
    """What to tell the user when Ray gave the workers up, for this reason."""
    if why and "NoCredentialsError" in why:
        return UserError(
            f"run.storage: the processes of the Ray cluster have no credentials for {config.run.storage}; start the "
            "cluster, or submit the job, with the AWS variables in its environment"
        )
    return RunError(f"Ray ended the run: {why or 'its workers left without a word'}")


def _train_worker(job: dict[str, Any]) -> None:
    """What Ray Train runs in each worker."""
    import ray
    from ray.train import get_context
    from ray.train.torch import get_device

    from ganrun.distributed.worker import work

    context, mailbox = get_context(), job["mailbox"]
    rank = context.get_world_rank()

    def exchange(messages: list[Message]) -> Answer:
        return ray.get(mailbox.exchange.remote(messages, rank == 0))  # type: ignore[no-any-return]

    line = Line(exchange, listen=rank == 0)
    try:
        work(job["config"], rank, context.get_world_size(), get_device(), line, job["order"])
    except (UserError, RunError) as error:
        # To start again would fail again: the driver ends the run.
        line.say("failed", text=str(error), wrong_input=isinstance(error, UserError))
    except PROGRAM_FAULTS:
        line.say("failed", text=f"a fault in the program:\n{traceback.format_exc()}", wrong_input=False)
    finally:
        line.close()


def cpus_of(config: Config) -> float:
    """CPUs that a run's workers take."""
    return config.cluster.workers * config.cluster.cpus_per_worker


def _check_answers(address: str) -> None:
    """Ray itself would try for minutes before it says that nobody is there."""
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
def connected(config: Config, trials: int = 1) -> Iterator[Any]:
    """A Ray of our own on this machine, with CPUs for so many trials, or the cluster that RAY_ADDRESS names; left at
    the end."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if "RAY_ADDRESS" in os.environ:
        _check_answers(os.environ["RAY_ADDRESS"])
    else:
        os.environ.setdefault("RAY_AUTH_MODE", "disabled")
        # Ray's own way, made for other systems, to have everything listen on the loopback address alone.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        for library in ("GLOO", "NCCL"):
            os.environ.setdefault(f"{library}_SOCKET_IFNAME", LOOPBACK)
        options |= {
            "address": "local",
            "num_cpus": max(os.cpu_count() or 1, math.ceil(trials * (cpus_of(config) + scoring_cpus(config)))),
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
                open_storage(f"{config.run.storage}/{config.run.name}").delete(".ray")
