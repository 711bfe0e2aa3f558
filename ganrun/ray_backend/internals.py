"""Private names of Ray that ganrun needs. No other module names one.

`from ganrun.ray_backend.internals import WorkerGroup` returns Ray's object. The look-up is lazy, since Ray reads its
environment when it is imported, and `LOCAL_VARIABLES` must be set before.
`tests/ray_backend/test_internals.py` checks each name against the installed Ray, `make canary` against the newest.
"""

import inspect
import os
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from ganrun.errors import RunError

SEEN = "2.58 - 2.60"
"""Releases of Ray that have all names below. 2.57 has no ElasticScalingPolicy._get_reserved_resources."""
TRAINER = "ray.train.v2.api.data_parallel_trainer"
EXCEPTIONS = "ray.train.v2._internal.exceptions"
CONTROLLER = "ray.train.v2._internal.execution.controller.controller"
STATE = "ray.train.v2._internal.execution.controller.state"
FAILURE = "ray.train.v2._internal.execution.failure_handling"
SCALING = "ray.train.v2._internal.execution.scaling_policy"
GROUP = "ray.train.v2._internal.execution.worker_group"
CLUSTER = "ray._private.state"
VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)

SPEED = "seconds at each start, and rounds that are interrupted"
POLICIES = "elastic workers, and the causes of restarts"
CLEAN = "the run itself when a worker dies during the rendezvous: the others keep their resources forever"
LEAVE = "the images since the last checkpoint when a node is drained or workers are added"
ROOM = "the right number of elastic workers: they start late, or wait for resources that do not exist"
WAIT = "the message of a run that waits for room"
CAUSE = "causes of restarts in events, metrics and on the terminal"
COUNT = "the count of cluster.max_failures: a drain would count as a failure, and failed starts would not"
LISTEN = "safety: Ray would listen at every address of the machine"
ANSWER = "the message at once where RAY_ADDRESS=auto finds a cluster that is gone: Ray would retry for minutes"
PATIENCE = "minutes, each time that a worker hangs or that elastic workers wait for resources"


class Internal(NamedTuple):
    """A private name of Ray."""

    module: str
    attribute: str
    """Name, with the parameters that ganrun passes, overrides or reads as fields; without () if it is not called."""
    loss: str
    """Capability that ganrun loses without it."""
    reason: str
    seen: str = SEEN

    @property
    def path(self) -> str:
        """Module and attribute, without parameters."""
        return f"{self.module}.{self.attribute.partition('(')[0]}"

    @property
    def name(self) -> str:
        """Last part of the path, by which other modules import it."""
        return self.path.rpartition(".")[2]

    @property
    def parameters(self) -> list[str] | None:
        """Names in the parentheses, or None."""
        _, called, names = self.attribute.rstrip(")").partition("(")
        return [name for name in names.split(", ") if name] if called else None


class Variable(NamedTuple):
    """Environment variable of Ray that its manual does not document, or not for this use."""

    name: str
    value: str
    file: str
    """File of the package `ray` that reads it. Ray's C++ settings are there without the prefix `RAY_`."""
    loss: str
    reason: str
    seen: str = SEEN


INTERNALS = (
    Internal(
        TRAINER,
        "DataParallelTrainer(train_loop_per_worker, train_loop_config, backend_config, scaling_config, run_config)",
        SPEED,
        "trainer without torch; TorchTrainer imports it in the driver and in Ray's controller",
    ),
    Internal(
        TRAINER,
        "DataParallelTrainer._initialize_and_run_controller(controller_init_kwargs)",
        POLICIES,
        "overridden to pass our policies, for which Ray has no argument",
    ),
    Internal(CONTROLLER, "TrainController(scaling_policy, failure_policy)", POLICIES, "takes the policies by name"),
    Internal(CONTROLLER, "TrainController.worker_group_cls", CLEAN, "set to CleanWorkerGroup"),
    Internal(GROUP, "WorkerGroup", CLEAN, "base of CleanWorkerGroup"),
    Internal(GROUP, "WorkerGroup._start()", CLEAN, "overridden; Ray cleans up only until the workers exist"),
    Internal(GROUP, "WorkerGroup.has_started()", CLEAN, "True if a failed start left workers"),
    Internal(GROUP, "WorkerGroup.abort()", CLEAN, "releases the workers of a failed start"),
    Internal(f"{GROUP}.state", "WorkerGroupState(workers)", LEAVE, "the workers by rank, for the scaling policy"),
    Internal(f"{GROUP}.worker", "Worker(metadata)", LEAVE, "the process of a worker"),
    Internal(f"{GROUP}.worker", "ActorMetadata(node_id, node_ip)", LEAVE, "the node of a worker"),
    Internal(SCALING, "ScalingPolicy(scaling_config)", POLICIES, "base of our policies"),
    Internal(SCALING, "FixedScalingPolicy(scaling_config)", POLICIES, "base of FixedPolicy"),
    Internal(SCALING, "ElasticScalingPolicy(scaling_config)", POLICIES, "base of ElasticPolicy"),
    Internal(
        SCALING,
        "ScalingPolicy.make_decision_for_running_worker_group(worker_group_state, worker_group_status)",
        LEAVE,
        "overridden; called every 2 s, asks workers to save and exit where Ray would kill them",
    ),
    Internal(
        SCALING,
        "ScalingPolicy.make_decision_for_non_running_worker_group()",
        WAIT,
        "overridden; Ray calls it again at once when there is no room",
    ),
    Internal(
        SCALING,
        "ScalingPolicy.after_controller_start(train_run_context)",
        CLEAN,
        "overridden; runs in the controller's process and sets CleanWorkerGroup there",
    ),
    Internal(
        SCALING,
        "ScalingPolicy.after_controller_state_update(previous_state, current_state)",
        CAUSE,
        "overridden to tell driver and workers the reason of a restart",
    ),
    Internal(
        SCALING,
        "ElasticScalingPolicy._get_reserved_resources()",
        ROOM,
        "overridden; Ray's answer is up to 20 s old, and None postpones the decision",
    ),
    Internal(
        SCALING,
        "ElasticScalingPolicy._count_possible_workers(reserved_resources)",
        ROOM,
        "overridden; Ray counts draining and unreachable nodes, and resources in use",
    ),
    Internal(SCALING, "NoopDecision()", POLICIES, "returned to keep the workers; received when there is no room"),
    Internal(SCALING, "ResizeDecision(num_workers)", POLICIES, "received with the number of workers to start"),
    Internal(STATE, "RunningState()", CAUSE, "marks the start of a group of workers"),
    Internal(STATE, "RestartingState(training_failed_error)", CAUSE, "the error before a restart"),
    Internal(STATE, "ReschedulingState(training_failed_error)", WAIT, "the error of a group that was not started"),
    Internal(FAILURE, "DefaultFailurePolicy(failure_config)", COUNT, "base of FailurePolicy"),
    Internal(FAILURE, "DefaultFailurePolicy.make_decision(training_failed_error)", COUNT, "overridden"),
    Internal(FAILURE, "FailureDecision", COUNT, "RETRY and RAISE, returned by FailurePolicy"),
    Internal(EXCEPTIONS, "WorkerGroupStartupFailedError", CLEAN, "the only error of a start that Ray retries"),
    Internal(EXCEPTIONS, "WorkerGroupStartupTimeoutError(num_workers)", WAIT, "a group that got no resources"),
    Internal(EXCEPTIONS, "WorkerHealthCheckFailedError(failure)", CAUSE, "a worker that died"),
    Internal(EXCEPTIONS, "WorkerHealthCheckTimeoutError", CAUSE, "a worker that does not answer"),
    Internal(CLUSTER, "available_resources_per_node()", ROOM, "ray.available_resources() sums over nodes"),
    Internal(
        "ray._private.services",
        "canonicalize_bootstrap_address(addr)",
        ANSWER,
        "HOST:PORT of an address; of `auto` the cluster of this machine, which may be gone",
    ),
    Internal(CLUSTER, "state.get_draining_nodes()", LEAVE, "ray.nodes() does not tell which nodes are draining"),
)
LOCAL_VARIABLES = (
    Variable(
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER",
        "0",
        "_private/ray_constants.py",
        LISTEN,
        "keeps a local Ray on the loopback address; made for Windows and macOS, where it is the default",
    ),
    Variable(
        "RAY_worker_niceness",
        "0",
        "core/src/ray/raylet/raylet",
        SPEED,
        "Ray runs workers at nice 15: other programs would interrupt a round, whose threads wait for each other",
    ),
)
"""Variables of a Ray that ganrun starts."""
TRAIN_VARIABLES = (
    Variable(
        "RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S",
        "60",
        "train/v2/_internal/constants.py",
        PATIENCE,
        "a worker that does not answer is restarted after 1 min, not 10; one that waits for storage still answers",
    ),
    Variable(
        "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER",
        "0",
        "train/v2/_internal/constants.py",
        LEAVE,
        "Ray's watcher needs a report of every rank; our scaling policy watches",
    ),
)
"""Variables of Ray Train."""
ELASTIC_VARIABLES = (
    Variable(
        "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S",
        "10",
        "train/v2/_internal/constants.py",
        PATIENCE,
        "wait 10 s, not 60, for the resources of the decided number of workers: fewer will do",
    ),
)
"""Variables of Ray Train for a range of workers."""


def set_variables(*variables: Variable) -> None:
    """Set environment variables that are not set yet."""
    for variable in variables:
        set_default(variable.name, variable.value)


def set_default(name: str, value: str) -> None:
    """Set an environment variable that is unset or empty."""
    os.environ[name] = os.environ.get(name) or value


def internal_fault(internal: Internal) -> str:
    """Return a message if a name in the installed Ray differs from what ganrun needs; empty if it does not."""
    try:
        found = _find(internal)
    except (ImportError, AttributeError):
        return _fault(internal, internal.path, "is gone")
    if internal.parameters is None:
        return ""
    there = [each for each in inspect.signature(found).parameters.values() if each.name != "self"]
    if missing := set(internal.parameters) - {each.name for each in there}:
        return _fault(internal, internal.path, f"takes no {', '.join(sorted(missing))}")
    required = [each.name for each in there if each.default is each.empty and each.kind not in VARIADIC]
    if not inspect.isclass(found) and (further := set(required) - set(internal.parameters)):
        return _fault(internal, internal.path, f"takes {', '.join(sorted(further))}")
    return ""


def variable_fault(variable: Variable) -> str:
    """Return a message if the installed Ray does not read a variable; empty if it does."""
    import ray

    file = Path(ray.__file__).parent / variable.file
    if file.is_file() and variable.name.removeprefix("RAY_").encode() in file.read_bytes():
        return ""
    return _fault(variable, variable.name, "is not read any more")


def _find(internal: Internal) -> Any:
    found: Any = import_module(internal.module)
    for attribute in internal.path.removeprefix(f"{internal.module}.").split("."):
        found = getattr(found, attribute)
    return found


def _fault(each: Internal | Variable, path: str, how: str) -> str:
    import ray

    return (
        f"ray_backend/internals.py: {path} {how} in ray {ray.__version__} (seen in {each.seen}). "
        f"Needed: {each.reason}. Lost without it: {each.loss}. Install a Ray that pyproject.toml allows"
    )


def __getattr__(name: str) -> Any:
    """Return Ray's object of that name.

    Raises:
        RunError: the installed Ray does not have it.
    """
    for internal in INTERNALS:
        if internal.name == name:
            try:
                return _find(internal)
            except (ImportError, AttributeError) as error:
                raise RunError(_fault(internal, internal.path, "is gone")) from error
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
