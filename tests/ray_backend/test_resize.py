"""A run over a range of workers on a Ray of two nodes, of which one is to be taken away."""

import contextlib
import json
import subprocess
import sys

import pytest
import torch
from ray.cluster_utils import Cluster

from tests.commands import LOCAL_RAY, Train
from tests.conftest import RAY_STARTS, config_of
from tests.holding import hold_at, hold_of
from tests.ranks import latest_tensors, run_folder, run_ranks

NODE = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "node_ip_address": "127.0.0.1"}


@pytest.fixture
def nodes(monkeypatch):
    """A head with a CPU, and a node with one."""
    for name, value in LOCAL_RAY.items():
        monkeypatch.setenv(name, value)
    cluster = started(lambda: Cluster(initialize_head=True, head_node_args={"include_dashboard": False} | NODE))
    try:
        yield cluster.address, started(lambda: cluster.add_node(**NODE)).node_id
    finally:
        for node in list(cluster.worker_nodes):
            cluster.remove_node(node, allow_graceful=False)
        cluster.shutdown()


def started(start):
    """Ray's own wait for a node is too short for a busy machine."""
    for _ in range(RAY_STARTS - 1):
        with contextlib.suppress(Exception):
            return start()
    return start()


@pytest.mark.drill
def test_workers_leave_a_node_that_is_to_be_taken_away_and_nothing_is_computed_twice(values, tmp_path, nodes):
    address, node = nodes
    changes = {"train__total_images": 6_000, "train__tick_images": 300, "checkpoint__every_images": 3_000}
    config = config_of(values, cluster__workers=[1, 3], run__imports=["tests.holding"], **changes)
    yaml = tmp_path / "small.yaml"
    yaml.write_text(config.to_yaml())
    hold_at(config, 600)
    command = Train(yaml, address=address, env={"GLOO_SOCKET_IFNAME": "lo"})
    command.wait_for("training with 2 workers")
    command.wait_for_images(300)
    drain = [sys.executable, "-m", "ray.scripts.scripts", "drain-node", f"--address={address}", f"--node-id={node}"]
    drain += ["--reason=DRAIN_NODE_REASON_PREEMPTION", "--reason-message=spot", "--deadline-remaining-seconds=600"]
    subprocess.run(drain, check=True, capture_output=True)
    command.wait_for("the workers save at")
    hold_of(config).unlink()
    code, _, error = command.wait()
    assert code == 0, error
    assert "127.0.0.1 is being drained: the workers save at" in error
    assert "there is 1 worker now; resuming from" in error
    assert "Traceback" not in error

    lines = [
        json.loads(line)
        for file in sorted((run_folder(config) / "events").iterdir())
        for line in file.read_text().splitlines()
    ]
    (resize,) = [line for line in lines if line["kind"] == "resize"]
    (leave,) = [line for line in lines if line["kind"] == "leave"]
    assert (resize["before"], resize["workers"], resize["reason"]) == (2, 1, "preemption")
    assert leave["images"] == resize["images"] > 300
    assert leave["images"] % 3_000

    undisturbed = config_of(values, run__name="undisturbed", **changes)
    run_ranks(undisturbed, 2, tmp_path / "meeting")
    expected = latest_tensors(undisturbed)
    for name, tensor in latest_tensors(config).items():
        torch.testing.assert_close(tensor, expected[name], rtol=0, atol=1e-6)
