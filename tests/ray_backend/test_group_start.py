"""How many workers there is room for, why they are started anew, and what counts as a failure."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from ray.exceptions import ActorDiedError
from ray.train import ControllerError, FailureConfig, WorkerGroupError

from ganrun.ray_backend.internals import (
    FailureDecision,
    WorkerGroupStartupFailedError,
    WorkerGroupStartupTimeoutError,
    WorkerHealthCheckFailedError,
    WorkerHealthCheckTimeoutError,
)
from ganrun.ray_backend.policies import FailurePolicy, count_room, restart_cause, unreachable
from ganrun.worker.transitions import DrainedError
from tests.commands import LOCAL_RAY
from tests.waiting import WAIT

ROOT = Path(__file__).parents[2]
IDLE = {"a": {"CPU": 4.0, "GPU": 2.0}, "b": {"CPU": 1.0, "GPU": 2.0}, "c": {"CPU": 8.0}, "d": {}}
ADDRESSES = {0: "10.0.0.1", 1: "10.0.0.2"}


@pytest.mark.parametrize(
    ("needed", "workers"),
    [
        ({"CPU": 1.0}, 13),
        ({"CPU": 3.0}, 3),
        ({"CPU": 1.0, "GPU": 1.0}, 3),
        ({"CPU": 2.0, "GPU": 1.0}, 2),
        ({"CPU": 0.1}, 130),  # 1.0 // 0.1 is 9.
        ({"CPU": 9.0}, 0),
    ],
)
def test_there_is_room_for_whole_workers_on_each_node(needed, workers):
    assert count_room(IDLE, {}, needed) == workers


def test_what_the_run_itself_has_is_room_too_but_not_on_nodes_that_do_not_count():
    assert count_room(IDLE, {"a": 1, "d": 2}, {"CPU": 3.0}) == 3 + 3
    assert count_room({"b": {}}, {"a": 1, "b": 2}, {"CPU": 3.0, "GPU": 0.0}) == 2


def test_a_node_that_takes_no_connection_is_not_there():
    with socket.create_server(("127.0.0.1", 0)) as raylet, socket.create_server(("127.0.0.1", 0)) as closed:
        ports = {"here": raylet.getsockname()[1], "gone": closed.getsockname()[1]}
        closed.close()
        nodes = [{"NodeID": n, "NodeManagerAddress": "127.0.0.1", "NodeManagerPort": port} for n, port in ports.items()]
        assert unreachable(nodes) == {"gone"}


def died(preempted=False):
    error = ActorDiedError()
    error._preempted = preempted  # Ray's own way to make one takes its inner message.
    return WorkerHealthCheckFailedError("a worker health check failed", error)


@pytest.mark.parametrize(
    ("failures", "reason", "why"),
    [
        ({0: RuntimeError("gloo: closed by peer"), 1: died()}, "failure", "worker 1 on 10.0.0.2 died"),
        ({0: died(), 1: died(preempted=True)}, "preemption", "worker 0 on 10.0.0.1, worker 1 on 10.0.0.2 died"),
        ({1: WorkerHealthCheckTimeoutError("60 s")}, "failure", "worker 1 on 10.0.0.2 does not answer"),
        (
            {0: RuntimeError("first\ngloo: closed by peer\n")},
            "failure",
            "worker 0 on 10.0.0.1 failed: gloo: closed by peer",
        ),
        ({7: RuntimeError()}, "failure", "worker 7 failed: RuntimeError"),
        ({0: DrainedError(), 1: RuntimeError("gloo: closed by peer")}, None, ""),
    ],
)
def test_why_workers_ended_is_told_by_whoever_did_not_fail_of_another(failures, reason, why):
    assert restart_cause(WorkerGroupError("it failed", failures), ADDRESSES) == (reason, why)


def decisions(max_failures, *errors):
    policy = FailurePolicy(FailureConfig(max_failures=max_failures))
    return [policy.make_decision(error) == FailureDecision.RETRY for error in errors]


def test_leaving_is_no_failure_and_dying_is_one():
    left, dead = WorkerGroupError("", {0: DrainedError()}), WorkerGroupError("", {0: died()})
    assert decisions(1, left, left, dead, left, dead) == [True, True, True, True, False]


def test_room_is_waited_for_as_long_as_it_takes_but_starts_that_fail_are_not_repeated_for_ever():
    late, broken = (
        ControllerError(each) for each in (WorkerGroupStartupTimeoutError(2), WorkerGroupStartupFailedError())
    )
    dead = WorkerGroupError("", {0: died()})
    assert decisions(1, *[late] * 9) == [True] * 9
    assert decisions(1, broken, late, broken) == [True, True, False]
    assert decisions(2, broken, broken, dead, broken, broken, broken) == [True, True, True, True, True, False]


STARTED = """
import os, pathlib, ray, ray.train
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.backend import Backend, BackendConfig
from ganrun.ray_backend.policies import Trainer
from ganrun.ray_backend.launch import Mailbox

FOLDER = pathlib.Path.cwd()

class Meeting(Backend):
    def on_start(self, worker_group, backend_config):
        with (FOLDER / "starts").open("a") as starts:
            starts.write("+")
        if (FOLDER / "starts").stat().st_size == 1:
            worker_group.execute_single(1, os._exit, 1)

class Config(BackendConfig):
    backend_cls = Meeting

def train(config):
    started = pathlib.Path(config["folder"], "trained")
    if ray.train.get_context().get_world_rank() == 1 and not started.exists():
        started.touch()
        os._exit(1)

os.environ["RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"] = "20"
ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=10**8)
box = ray.remote(Mailbox).options(num_cpus=0).remote()
scaling = ScalingConfig(num_workers=2, resources_per_worker={"CPU": 1})
run = RunConfig(storage_path=os.getcwd(), failure_config=FailureConfig(max_failures=2))
about = {"backend_config": Config(), "scaling_config": scaling, "run_config": run}
Trainer(train, mailbox=box, train_loop_config={"folder": os.getcwd()}, **about).fit()
restarts = ray.get(box.collect.remote(False, []))
print([(restart.reason, restart.failures, restart.workers, restart.why.split(" on ")[0]) for restart in restarts])
"""


def test_nothing_stays_of_a_group_one_of_whose_workers_died_as_they_met(tmp_path):
    """The second group loses one before it begins an attempt. Both failures are counted and told."""
    environment = os.environ | LOCAL_RAY | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", STARTED], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=WAIT
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "starts").read_text() == "+++"
    told = [("failure", 1, 0, "a worker died while the workers started"), ("failure", 2, 2, "worker 1")]
    assert str(told) in done.stdout.splitlines()  # Ray may write lines after it.
