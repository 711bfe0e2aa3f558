"""`ganrun bench step` on a GPU: the same code path here, with recorded operations in place of CUDA graphs."""

import pytest
import torch

from ganrun.benchmarks import gpu_step, step
from ganrun.benchmarks.comparison import rate
from ganrun.benchmarks.lean_step import LeanStep, as_graph
from ganrun.benchmarks.rounds import a_batch, device_of, rounds
from ganrun.benchmarks.tutorial_step import TutorialStep
from ganrun.errors import UserError
from ganrun.training import cuda_graph
from tests.conftest import config_of
from tests.gpu import GPU
from tests.test_bench import SHAPE
from tests.training.test_cuda_graph import RecordedSegment

CPU = torch.device("cpu")


@pytest.fixture
def config(values, monkeypatch):
    monkeypatch.setattr(cuda_graph, "WARM_UP", 2)
    monkeypatch.setattr("ganrun.benchmarks.lean_step.WARM_UP", 2)
    values["train"]["precision"] = "float32"
    return config_of(values, data__slots=1)


def parameters_of(made):
    return [each.detach().clone() for network in (made.generator, made.discriminator) for each in network.parameters()]


def lean(config, replays):
    """Run a lean step as a graph; return the weights after the recording and so many replays."""
    torch.manual_seed(0)
    made = LeanStep(config, a_batch(config, 12))
    replay = as_graph(made, RecordedSegment())
    for _ in range(replays):
        replay()
    return parameters_of(made)


def test_a_replayed_lean_step_is_the_eager_one(config):
    torch.manual_seed(0)
    made = LeanStep(config, a_batch(config, 12))
    for _ in range(6):  # Two to warm up, the recorded one, three replays.
        made()
    for mine, other in zip(lean(config, 3), parameters_of(made), strict=True):
        assert torch.equal(mine, other)


def test_a_lean_step_trains_both_networks_and_reads_nothing_back(config):
    made = LeanStep(config, a_batch(config, 12))
    before = parameters_of(made)
    made()
    with RecordedSegment() as recorded:
        made()
    assert recorded.reads == []
    assert all(parameter.requires_grad for parameter in made.discriminator.parameters())
    assert not any(torch.equal(old, new) for old, new in zip(before, parameters_of(made), strict=True))


def test_an_example_in_bf16_is_the_example_but_for_rounding(config):
    found = []
    for bf16 in (False, True):
        torch.manual_seed(0)
        made = TutorialStep.of(config)
        play = made.in_bf16(a_batch(config, 12)) if bf16 else made.steps(a_batch(config, 12))
        play()
        found.append(parameters_of(made))
    differ = [float((mine - other).abs().max()) for mine, other in zip(*found, strict=True)]
    assert 0 < max(differ) < 5e-4  # Adam's first step is 2e-4 either way.


def test_rounds_of_a_benchmark_are_captured_as_a_worker_does(config):
    lines = []
    torch.manual_seed(0)  # Of the images.
    state, play = rounds(config, None, None, CPU, lines.append, RecordedSegment)
    torch.manual_seed(0)
    plain, eager = rounds(config)
    for _ in range(5):
        play()
        eager()
    assert lines[0].startswith("train.capture: ")
    for name, network in state.game.networks.items():
        for mine, other in zip(network.parameters(), plain.game.networks[name].parameters(), strict=True):
            torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-6)


def test_all_sides_are_measured_beside_each_other(config):
    loop = lambda spec, storage, rate, device: lambda: 0.5 * rate  # noqa: E731
    found = gpu_step.measure(config, CPU, 0.02, 2, loop, RecordedSegment)
    assert found.keys() > SHAPE
    assert set(found["sides"]) == {
        gpu_step.OURS,
        gpu_step.OURS_32,
        gpu_step.EXAMPLE,
        gpu_step.EXAMPLE_16,
        gpu_step.LEAN,
        gpu_step.LOOP,
    }
    assert found["peer"] in (gpu_step.EXAMPLE, gpu_step.EXAMPLE_16)
    assert found["ratio"] <= found["example_float32_ratio"] * (1 + 1e-9) or found["peer"] == gpu_step.EXAMPLE_16
    assert found["limit_share"] > 0
    assert len(found["capture"]) == 2
    said = step.describe(found)
    assert "of the lean graph" in said
    assert "the whole loop (stream, ticks, pictures, checkpoints): " in said
    none = gpu_step.describe(found | {"loop_over_step": None})
    assert "pictures, checkpoints): not measured: no data" in none


def test_launches_are_kernels_graphs_and_copies():
    calls = {
        "aten::add": 9,
        "cudaLaunchKernel": 3,
        "cudaLaunchKernelExC": 1,
        "cuLaunchKernel": 2,
        "cudaGraphLaunch": 1,
        "cudaMemcpyAsync": 4,
        "cudaMemsetAsync": 1,
        "cudaStreamSynchronize": 5,
        "cudaEventRecord": 7,
    }
    assert gpu_step.launches_in(calls.items()) == 12


def test_a_rate_counts_what_was_only_begun():
    done = []
    found = rate(lambda: None, 1.0, 0.01, lambda: done.append(1))
    assert len(done) == 2  # Before the first step, and after the last one.
    assert found > 0


def test_a_gpu_that_is_not_there_is_one_line(values, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    config = config_of(values, cluster__gpus_per_worker=1)
    with pytest.raises(UserError, match=r"cluster\.gpus_per_worker: 1, but this machine has no GPU; set it to 0"):
        device_of(config.cluster)
    assert device_of(config_of(values).cluster) == CPU


@GPU
def test_a_gpu_is_measured(config):
    found = gpu_step.measure(config, torch.device("cuda", 0), 0.1, 2, None)
    assert found["launches"][gpu_step.OURS] < found["launches"][gpu_step.EXAMPLE]
    assert found["launches"][gpu_step.LEAN] < 10
    assert all(line.startswith("train.capture: rounds are captured") for line in found["capture"])
