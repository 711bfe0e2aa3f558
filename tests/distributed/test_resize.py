"""A run over a range of workers on a Ray of three nodes, of which one dies, one comes and one is to be taken away."""

import json
import subprocess
import sys

import pytest
import torch
from ray.cluster_utils import Cluster

from tests.commands import LOCAL_RAY, Train
from tests.conftest import config_of
from tests.ranks import latest_tensors, run_folder, run_ranks

MEMORY = {"object_store_memory": 80 * 2**20}


@pytest.fixture
def nodes(monkeypatch):
    """A head with a CPU, and two nodes with one each."""
    for name, value in LOCAL_RAY.items():
        monkeypatch.setenv(name, value)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False} | MEMORY)
    try:
        yield cluster, [cluster.add_node(num_cpus=1, **MEMORY) for _ in range(2)]
    finally:
        cluster.shutdown()


def drain(address, node):
    command = [sys.executable, "-m", "ray.scripts.scripts", "drain-node", f"--address={address}", f"--node-id={node}"]
    command += ["--reason=DRAIN_NODE_REASON_PREEMPTION", "--reason-message=spot", "--deadline-remaining-seconds=600"]
    subprocess.run(command, check=True, capture_output=True)


def test_a_run_shrinks_grows_and_leaves_a_node_that_is_to_be_taken_away(values, tmp_path, nodes):
    cluster, (first, second) = nodes
    changes = {"train__total_images": 60_000, "train__tick_images": 600, "checkpoint__every_images": 1_200}
    config = config_of(values, cluster__workers=[1, 3], **changes)
    yaml = tmp_path / "small.yaml"
    yaml.write_text(config.to_yaml())
    command = Train(yaml, address=cluster.address, env={"GLOO_SOCKET_IFNAME": "lo"})
    command.wait_for("training with 3 workers")
    command.wait_for_images(1_200)
    cluster.remove_node(second, allow_graceful=False)
    command.wait_for("there are 2 workers now")
    cluster.add_node(num_cpus=1, **MEMORY)
    command.wait_for("there are 3 workers now")
    drain(cluster.address, first.node_id)
    command.wait_for("there are 2 workers now", times=2)
    code, _, error = command.wait()
    assert code == 0, error
    assert "Traceback" not in error

    lines = [
        json.loads(line)
        for file in sorted((run_folder(config) / "events").iterdir())
        for line in file.read_text().splitlines()
    ]
    resizes = [(line["before"], line["workers"], line["reason"]) for line in lines if line["kind"] == "resize"]
    assert resizes == [(3, 2, "failure"), (2, 3, "resize"), (3, 2, "preemption")]
    left = [line["images"] for line in lines if line["kind"] == "leave"]
    starts = [line["images"] for line in lines if line["kind"] == "start"]
    assert starts[2:] == left  # Nothing that was shown before they left is shown again.

    undisturbed = config_of(values, run__name="undisturbed", **changes)
    run_ranks(undisturbed, 2, tmp_path / "meeting")
    expected = latest_tensors(undisturbed)
    for name, tensor in latest_tensors(config).items():
        torch.testing.assert_close(tensor, expected[name], rtol=0, atol=1e-6)
