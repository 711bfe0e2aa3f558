"""How many workers Ray Train starts and when it starts them anew: its own policies, and what ganrun adds to them.

Workers that are to be started elsewhere, or as another number, are told to save and leave first, so that nothing is
computed twice. Ray's own preemption watcher needs a report of every rank and is not used.
"""

import contextlib
import socket
import time
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import ray
from ray.exceptions import RayActorError
from ray.train import ControllerError, WorkerGroupError

from ganrun.ray_backend.internals import (
    DataParallelTrainer,
    DefaultFailurePolicy,
    ElasticScalingPolicy,
    FailureDecision,
    FixedScalingPolicy,
    NoopDecision,
    ReschedulingState,
    ResizeDecision,
    RestartingState,
    RunningState,
    ScalingPolicy,
    TrainController,
    WorkerGroup,
    WorkerGroupStartupFailedError,
    WorkerGroupStartupTimeoutError,
    WorkerHealthCheckFailedError,
    WorkerHealthCheckTimeoutError,
    available_resources_per_node,
    get_draining_nodes,
)
from ganrun.telemetry.messages import FAILURE, PREEMPTION, RESIZE, DrainWorkers, Note, Restart
from ganrun.worker.transitions import DrainedError

ASK_SECONDS = 60.0
"""A command to drain that nobody followed is given again."""
WAIT_SECONDS, REACH_SECONDS, REACH_THREADS = 1.0, 2.0, 64
"""Between looks for room; how long a node may take to answer; so many are asked at a time."""
RESIZE_SECONDS = 30.0
"""So often Ray looks whether there is room for more workers."""
Nodes = Mapping[str, Mapping[str, float]]
"""Resources of each node, by name."""


class Trainer(DataParallelTrainer):  # type: ignore[misc]
    """Ray's, with the policies below. (A TorchTrainer is this with another backend, and imports torch here and in Ray's
    controller, which takes seconds.)"""

    def __init__(self, *arguments: Any, mailbox: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._mailbox = mailbox

    def _initialize_and_run_controller(self, **arguments: Any) -> Any:
        elastic = isinstance(self.scaling_config.num_workers, tuple)
        arguments["scaling_policy"] = (ElasticPolicy if elastic else FixedPolicy)(self.scaling_config, self._mailbox)
        arguments["failure_policy"] = FailurePolicy(self.run_config.failure_config)
        return super()._initialize_and_run_controller(**arguments)


class CleanWorkerGroup(WorkerGroup):  # type: ignore[misc]
    """Ray's, but that nothing stays of one whose start failed.

    Ray releases what it had started only until the workers are there. When one dies after that, as they meet or are
    given their work, the others would live on with their resources, known to nobody, and the next group would wait for
    room for ever.
    """

    def _start(self) -> None:
        try:
            super()._start()
        except Exception as error:
            if self.has_started():
                self.abort()
            if isinstance(error, RayActorError):  # Ray Train starts again over this one alone.
                raise WorkerGroupStartupFailedError(f"a worker died in the start: {error}") from error
            raise


class _DrainPolicy(ScalingPolicy):  # type: ignore[misc]
    """Has workers leave a node that is to be taken away, and tells the driver why they are started anew.

    Args:
        scaling_config: Ray's.
        mailbox: of the run.
    """

    def __init__(self, scaling_config: Any, mailbox: Any) -> None:
        super().__init__(scaling_config)
        self._mailbox = mailbox
        self._group: dict[int, tuple[str, str]] = {}
        """Of the running workers by rank: node and its address."""
        self._decided = self._workers = 0
        """How many are to be started; how many run, or did."""
        self._asked: tuple[str, float] | None = None
        """Why they were asked to leave, and when."""
        self._waiting = False

    def after_controller_start(self, train_run_context: Any) -> None:
        """Comes in the controller's process, before it starts anyone."""
        super().after_controller_start(train_run_context)
        TrainController.worker_group_cls = CleanWorkerGroup

    def make_decision_for_running_worker_group(self, worker_group_state: Any, worker_group_status: Any) -> Any:
        """Ray asks every 2 s. Nobody is killed over a decision: those who leave end by themselves."""
        workers = enumerate(worker_group_state.workers)
        self._group = {rank: (each.metadata.node_id, each.metadata.node_ip) for rank, each in workers}
        decision = super().make_decision_for_running_worker_group(worker_group_state, worker_group_status)
        draining = draining_nodes()
        if going := {address for node, address in self._group.values() if node in draining}:
            self._ask(PREEMPTION, f"{', '.join(sorted(going))} is to be taken away")
        elif isinstance(decision, ResizeDecision) and decision.num_workers > len(self._group):
            self._ask(RESIZE, f"there is room for {decision.num_workers} workers")
        return NoopDecision()

    def make_decision_for_non_running_worker_group(self) -> Any:
        """Ray asks until there is a number to start."""
        decision = super().make_decision_for_non_running_worker_group()
        if isinstance(decision, NoopDecision):
            self._wait()
            time.sleep(WAIT_SECONDS)  # Ray asks again at once.
        else:
            self._decided = decision.num_workers
        return decision

    def after_controller_state_update(self, previous_state: Any, current_state: Any) -> None:
        """Ray tells of each step."""
        super().after_controller_state_update(previous_state, current_state)
        if current_state is previous_state:
            return  # It waits.
        if isinstance(current_state, RestartingState):
            self._tell(current_state.training_failed_error)
        elif not isinstance(previous_state, RunningState):
            self._group = {}  # Another one, or none yet.
        if isinstance(current_state, RunningState):
            self._workers, self._waiting = self._decided, False

    def _ask(self, reason: str, why: str) -> None:
        """Commands the workers to save and leave; again if nobody has for long."""
        now = time.monotonic()
        if self._asked is None or now - self._asked[1] > ASK_SECONDS:
            self._asked = (reason, now)
            self._mailbox.command.remote(DrainWorkers(reason, why))

    def _tell(self, error: Exception) -> None:
        """Why the workers are started anew, for the driver and for the next ones."""
        reason, text = restart_cause(error, {rank: address for rank, (_, address) in self._group.items()})
        if reason is None:  # They left.
            reason = self._asked[0] if self._asked else RESIZE
        self._asked = None
        self._mailbox.restart.remote(Restart(reason, self._workers, text))

    def _wait(self) -> None:
        if not self._waiting:
            self._waiting = True
            fewest = self.scaling_config.num_workers
            fewest = fewest[0] if isinstance(fewest, tuple) else fewest
            text = f"waiting for room for {fewest} worker{'s' * (fewest > 1)} in the cluster"
            self._mailbox.exchange.remote([Note(text)], False)


class FixedPolicy(_DrainPolicy, FixedScalingPolicy):  # type: ignore[misc]
    """As many workers as the config says."""

    def after_controller_state_update(self, previous_state: Any, current_state: Any) -> None:
        """A start that did not find its room waits for it."""
        super().after_controller_state_update(previous_state, current_state)
        if isinstance(current_state, ReschedulingState):
            error = getattr(current_state.training_failed_error, "controller_failure", None)
            if isinstance(error, WorkerGroupStartupTimeoutError):
                self._wait()


class ElasticPolicy(_DrainPolicy, ElasticScalingPolicy):  # type: ignore[misc]
    """As many workers as there is room for.

    Ray's own count is of what it has set aside for a run: of nodes as they were up to 20 s ago, also those that are to
    be taken away, whatever others use of them, and less what a run that was killed had up to three minutes ago.
    """

    def _get_reserved_resources(self) -> Nodes:
        return {}  # Asking for nodes is left to Ray, counting them is not.

    def _count_possible_workers(self, reserved_resources: Nodes) -> int:
        nodes = {node["NodeID"]: node for node in ray.nodes() if node["Alive"]}
        held = Counter(node for node, _ in self._group.values())
        there = nodes.keys() - draining_nodes() - unreachable([nodes[node] for node in held if node in nodes])
        idle = available_resources_per_node()
        needed = self.scaling_config.resources_per_worker
        most: int = self.scaling_config.max_workers
        return min(count_room({node: idle.get(node, {}) for node in there}, held, needed), most)


class FailurePolicy(DefaultFailurePolicy):  # type: ignore[misc]
    """Ray's, but that workers leave is no failure, and that a group cannot be started, again and again, is one."""

    _failed_starts = 0

    def make_decision(self, training_failed_error: Any) -> Any:
        """Whether to start the workers again."""
        if isinstance(training_failed_error, WorkerGroupError):
            self._failed_starts = 0
            if any(isinstance(error, DrainedError) for error in training_failed_error.worker_failures.values()):
                return FailureDecision.RETRY
        failure = getattr(training_failed_error, "controller_failure", None)
        if isinstance(training_failed_error, ControllerError) and isinstance(failure, WorkerGroupStartupFailedError):
            self._failed_starts += 1
            limit = self.failure_config.max_failures
            return FailureDecision.RAISE if 0 <= limit < self._failed_starts else FailureDecision.RETRY
        return super().make_decision(training_failed_error)


def draining_nodes() -> set[str]:
    """Nodes that are to be taken away: no worker is started there any more."""
    return set(get_draining_nodes())


def unreachable(nodes: list[dict[str, Any]]) -> set[str]:
    """Those that Ray still counts as alive, as it does for some seconds, but whose raylet takes no connection."""

    def answers(node: dict[str, Any]) -> bool:
        with contextlib.suppress(OSError):
            address = node["NodeManagerAddress"], node["NodeManagerPort"]
            socket.create_connection(address, timeout=REACH_SECONDS).close()
            return True
        return False

    with ThreadPoolExecutor(REACH_THREADS) as threads:
        return {node["NodeID"] for node, there in zip(nodes, threads.map(answers, nodes), strict=True) if not there}


def count_room(idle: Nodes, held: Mapping[str, int], needed: Mapping[str, float]) -> int:
    """How many workers there is room for.

    Args:
        idle: what nobody uses, of each node.
        held: how many workers of this run are on each, also those that are about to leave.
        needed: what a worker takes.
    """
    amounts = {name: amount for name, amount in needed.items() if amount > 0}
    return sum(
        min(int(there.get(name, 0.0) / amount + 1e-6) for name, amount in amounts.items()) + held.get(node, 0)
        for node, there in idle.items()
    )


def restart_cause(error: Exception, addresses: Mapping[int, str]) -> tuple[str | None, str]:
    """Why a group of workers ended, as the reason of a restart (None: it left) and for people.

    Args:
        error: Ray's.
        addresses: of the workers' nodes, by rank.
    """
    failures = dict(getattr(error, "worker_failures", {}))
    if any(isinstance(each, DrainedError) for each in failures.values()):
        return None, ""
    deaths = {
        rank: each.health_check_failure
        for rank, each in failures.items()
        if isinstance(each, WorkerHealthCheckFailedError)
    }

    def named(ranks: list[int]) -> str:
        return ", ".join(f"worker {rank}" + f" on {addresses.get(rank)}" * (rank in addresses) for rank in ranks)

    if lost := [rank for rank, death in deaths.items() if isinstance(death, RayActorError)]:
        preempted = any(getattr(deaths[rank], "preempted", False) for rank in lost)
        return PREEMPTION if preempted else FAILURE, f"{named(lost)} died"
    if hung := [rank for rank, each in failures.items() if isinstance(each, WorkerHealthCheckTimeoutError)]:
        return FAILURE, f"{named(hung)} does not answer"
    rank, first = next(iter(failures.items()), (None, error))
    words = (str(first).strip().splitlines() or [type(first).__name__])[-1][:200]
    return FAILURE, words if rank is None else f"{named([rank])} failed: {words}"
