"""The smoke test for GPU machines, on this machine."""

import os
import subprocess
import sys

import pytest
import torch

from tests.deploy.stack import ROOT
from tests.training.test_cuda_graph import Broken, RecordedSegment

NO_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without a GPU")


@pytest.fixture
def smoke(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "cluster"))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    import smoke

    monkeypatch.setattr(smoke.smoke_parts, "SECONDS", 0.1)
    return smoke


def test_two_ranks_are_compared_with_one_and_layouts_with_each_other(smoke):
    rows = [*smoke.ranks("cpu"), *smoke.layouts(smoke.CPU)]
    assert [row.verdict for row in rows] == ["same", "same"]
    assert "5 rounds in float64" in rows[0].found


def test_a_round_of_each_kind_of_config_is_captured(smoke, monkeypatch):
    """With recorded operations in place of CUDA graphs: a few of the kinds here, all of them in a drill."""
    monkeypatch.setattr(smoke.cuda_graph, "WARM_UP", 1)
    some = ("dirac", "heights_gan", "quickstart")
    monkeypatch.setattr(smoke, "purposes", lambda: some)
    rows = list(smoke.families(smoke.CPU, RecordedSegment))
    assert [row.what.strip() for row in rows] == list(some)
    assert [row.verdict for row in rows] == ["same"] * 3, rows
    monkeypatch.setattr(smoke, "purposes", lambda: ("quickstart", "quickstart"))
    (row,) = smoke.families(smoke.CPU, Broken)
    assert row.verdict == "FAILED"
    assert "train.capture: on, but the round cannot be captured: CUDA out of memory" in row.found


@pytest.mark.drill
def test_a_round_of_every_kind_of_config_is_captured(smoke, monkeypatch):
    monkeypatch.setattr(smoke.cuda_graph, "WARM_UP", 1)
    rows = list(smoke.families(smoke.CPU, RecordedSegment))
    assert [row for row in rows if row.verdict != "same"] == []
    assert len(rows) > 15


def test_what_differs_is_told(smoke):
    one, other = [torch.ones(3), torch.zeros(2)], [torch.ones(3), torch.tensor([0.0, 1e-3])]
    assert smoke.same("x", "y", one, other, 2e-3).verdict == "same"
    row = smoke.same("x", "y", one, other, 5e-4)
    assert (row.verdict, row.found) == ("DIFFERS", "y: 1.0e-03 (at most 5e-04)")
    assert smoke.same("x", "y", [torch.tensor([float("nan")])], [torch.ones(1)], 1).verdict == "DIFFERS"


@NO_GPU
def test_what_needs_a_gpu_says_so_and_a_fault_ends_no_other_check(smoke):
    checks = (smoke.against_cpu, smoke.captured, smoke.families, smoke.pinned, smoke.no_sync)
    for check in (lambda: smoke.ranks("cuda"), lambda: smoke.rates(smoke.CPU), *checks):
        assert [row.verdict for row in smoke.rows_of("x", check)] == ["skipped: no CUDA device"]
    assert [row.verdict for row in smoke.rows_of("x", lambda: smoke.nodes(None))] == ["skipped: RAY_ADDRESS is not set"]
    (row,) = smoke.rows_of("x", lambda: (1 / 0 for _ in "x"))
    assert (row.verdict, row.found) == ("FAILED", "ZeroDivisionError: division by zero")


@pytest.mark.drill
@NO_GPU
def test_the_whole_script_runs_here():
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    command = [sys.executable, ROOT / "cluster/smoke.py"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("skipped: no CUDA device") == 7
    assert done.stdout.count(" same\n") >= 5
