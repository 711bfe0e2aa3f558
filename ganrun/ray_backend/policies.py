"""Policies for the number of workers and their restarts: subclasses of those of Ray Train.

Before a restart on other nodes or in another number, the workers are drained: they save a checkpoint and exit, so that
no round is repeated. Ray's own preemption watcher needs a report of every rank and is not used.
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
"""Time after which a drain command without effect is repeated."""
WAIT_SECONDS, REACH_SECONDS, REACH_THREADS = 1.0, 2.0, 64
"""Interval of checks for free resources; timeout of a probe of a node; number of simultaneous probes."""
RESIZE_SECONDS = 30.0
"""Interval at which Ray checks for resources for more workers."""
Nodes = Mapping[str, Mapping[str, float]]
"""Resources of each node: {node id: {resource: amount}}."""


class Trainer(DataParallelTrainer):  # type: ignore[misc]
    """Ray's trainer with the policies below.

    A TorchTrainer differs only in its backend, but imports torch in the driver and in Ray's controller, which takes
    seconds.

    Args:
        mailbox: mailbox of the run.
    """

    def __init__(self, *arguments: Any, mailbox: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._mailbox = mailbox

    def _initialize_and_run_controller(self, **arguments: Any) -> Any:
        elastic = isinstance(self.scaling_config.num_workers, tuple)
        arguments["scaling_policy"] = (ElasticPolicy if elastic else FixedPolicy)(self.scaling_config, self._mailbox)
        arguments["failure_policy"] = FailurePolicy(self.run_config.failure_config)
        return super()._initialize_and_run_controller(**arguments)


class CleanWorkerGroup(WorkerGroup):  # type: ignore[misc]
    """Ray's worker group, which releases all workers if its start fails.

    Ray itself cleans up only until the workers exist. If one died later, in the rendezvous or when it got its function,
    the others would keep their resources, and the next group would wait forever.
    """

    def _start(self) -> None:
        try:
            super()._start()
        except Exception as error:
            if self.has_started():
                self.abort()
            if isinstance(error, RayActorError):  # The only error of a start that Ray retries.
                raise WorkerGroupStartupFailedError(f"a worker died during the start: {error}") from error
            raise


class _DrainPolicy(ScalingPolicy):  # type: ignore[misc]
    """Base of the scaling policies: drains workers before a preemption or a resize, and reports reasons of restarts.

    Args:
        scaling_config: Ray's scaling config.
        mailbox: mailbox of the run.
    """

    def __init__(self, scaling_config: Any, mailbox: Any) -> None:
        super().__init__(scaling_config)
        self._mailbox = mailbox
        self._group: dict[int, tuple[str, str]] = {}
        """Node id and address of each running worker, by rank."""
        self._decided = self._workers = 0
        """Number of workers to start; number of workers of the newest group."""
        self._asked: tuple[str, float] | None = None
        """Reason and time.monotonic() of the newest drain command; None if none is pending."""
        self._waiting = False
        """True once the driver was told that the run waits for resources."""

    def after_controller_start(self, train_run_context: Any) -> None:
        """Install CleanWorkerGroup. Called in the controller's process, before any worker starts."""
        super().after_controller_start(train_run_context)
        TrainController.worker_group_cls = CleanWorkerGroup

    def make_decision_for_running_worker_group(self, worker_group_state: Any, worker_group_status: Any) -> Any:
        """Drain the workers if a node drains or more workers fit. Called by Ray every 2 s.

        Always returns NoopDecision: Ray would kill the workers of a resize, whereas drained workers exit by themselves.
        """
        workers = enumerate(worker_group_state.workers)
        self._group = {rank: (each.metadata.node_id, each.metadata.node_ip) for rank, each in workers}
        decision = super().make_decision_for_running_worker_group(worker_group_state, worker_group_status)
        draining = draining_nodes()
        if going := {address for node, address in self._group.values() if node in draining}:
            self._ask(PREEMPTION, f"{', '.join(sorted(going))} is being drained")
        elif isinstance(decision, ResizeDecision) and decision.num_workers > len(self._group):
            self._ask(RESIZE, f"there is room for {decision.num_workers} workers")
        return NoopDecision()

    def make_decision_for_non_running_worker_group(self) -> Any:
        """Decide the number of workers to start. Ray repeats the call after a NoopDecision."""
        decision = super().make_decision_for_non_running_worker_group()
        if isinstance(decision, NoopDecision):
            self._wait()
            time.sleep(WAIT_SECONDS)  # Ray repeats the call at once.
        else:
            self._decided = decision.num_workers
        return decision

    def after_controller_state_update(self, previous_state: Any, current_state: Any) -> None:
        """Track the group of workers and report restarts. Called by Ray at each change of state."""
        super().after_controller_state_update(previous_state, current_state)
        if current_state is previous_state:
            return  # No change: the controller waits.
        if isinstance(current_state, RestartingState):
            self._tell(current_state.training_failed_error)
        elif not isinstance(previous_state, RunningState):
            self._group = {}  # A new group, or none yet.
        if isinstance(_failed_start(current_state), WorkerGroupStartupFailedError):
            self._mailbox.restart.remote(Restart(FAILURE, self._workers, "a worker died while the workers started"))
        if isinstance(current_state, RunningState):
            self._workers, self._waiting = self._decided, False

    def _ask(self, reason: str, why: str) -> None:
        """Send a drain command; repeat it after ASK_SECONDS."""
        now = time.monotonic()
        if self._asked is None or now - self._asked[1] > ASK_SECONDS:
            self._asked = (reason, now)
            self._mailbox.command.remote(DrainWorkers(reason, why))

    def _tell(self, error: Exception) -> None:
        """Report the reason of a restart to the driver and to the next workers."""
        reason, text = restart_cause(error, {rank: address for rank, (_, address) in self._group.items()})
        if reason is None:  # The workers were drained.
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
    """Scaling policy with a fixed number of workers."""

    def after_controller_state_update(self, previous_state: Any, current_state: Any) -> None:
        """Tell the driver also if a start waits for resources."""
        super().after_controller_state_update(previous_state, current_state)
        if isinstance(_failed_start(current_state), WorkerGroupStartupTimeoutError):
            self._wait()


class ElasticPolicy(_DrainPolicy, ElasticScalingPolicy):  # type: ignore[misc]
    """Scaling policy with as many workers as fit in the cluster, within the range of cluster.workers.

    Ray's own count is not used. It sees nodes as they were up to 20 s ago and includes draining nodes and resources in
    use. Resources of a killed run stay reserved for up to three minutes.
    """

    def _get_reserved_resources(self) -> Nodes:
        return {}  # Ray still requests nodes; only its count is replaced.

    def _count_possible_workers(self, reserved_resources: Nodes) -> int:
        nodes = {node["NodeID"]: node for node in ray.nodes() if node["Alive"]}
        held = Counter(node for node, _ in self._group.values())
        there = nodes.keys() - draining_nodes() - unreachable([nodes[node] for node in held if node in nodes])
        idle = available_resources_per_node()
        needed = self.scaling_config.resources_per_worker
        most: int = self.scaling_config.max_workers
        return min(count_room({node: idle.get(node, {}) for node in there}, held, needed), most)


class FailurePolicy(DefaultFailurePolicy):  # type: ignore[misc]
    """Ray's failure policy, in which a drain is no failure and a failed start is one."""

    _failed_starts = 0
    """Number of consecutive failed starts."""

    def make_decision(self, training_failed_error: Any) -> Any:
        """Return RETRY to restart the workers, RAISE to fail the run."""
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


def _failed_start(state: Any) -> Any:
    """Return Ray's error of a group of workers that was not started, from the controller's state; else None."""
    if not isinstance(state, ReschedulingState):
        return None
    return getattr(state.training_failed_error, "controller_failure", None)


def draining_nodes() -> set[str]:
    """Return the ids of draining nodes, on which no worker is started."""
    return set(get_draining_nodes())


def unreachable(nodes: list[dict[str, Any]]) -> set[str]:
    """Return the ids of nodes whose raylet accepts no connection. Ray counts such nodes as alive for some seconds."""

    def answers(node: dict[str, Any]) -> bool:
        with contextlib.suppress(OSError):
            address = node["NodeManagerAddress"], node["NodeManagerPort"]
            socket.create_connection(address, timeout=REACH_SECONDS).close()
            return True
        return False

    with ThreadPoolExecutor(REACH_THREADS) as threads:
        return {node["NodeID"] for node, there in zip(nodes, threads.map(answers, nodes), strict=True) if not there}


def count_room(idle: Nodes, held: Mapping[str, int], needed: Mapping[str, float]) -> int:
    """Return the number of workers that fit on the nodes of `idle`.

    Args:
        idle: free resources of each node.
        held: number of workers of this run on each node, draining ones included.
        needed: resources of a worker.
    """
    amounts = {name: amount for name, amount in needed.items() if amount > 0}
    return sum(
        min(int(there.get(name, 0.0) / amount + 1e-6) for name, amount in amounts.items()) + held.get(node, 0)
        for node, there in idle.items()
    )


def restart_cause(error: Exception, addresses: Mapping[int, str]) -> tuple[str | None, str]:
    """Return the reason of a restart (None after a drain) and its cause in words (empty after a drain).

    Args:
        error: Ray's error of the group of workers.
        addresses: address of each worker's node, by rank.
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
