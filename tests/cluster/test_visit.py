"""The visit to a GPU machine: its parts here, the whole of it on a CPU in a drill."""

import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file

from tests.deploy.stack import ROOT


@pytest.fixture
def visit(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "cluster"))
    import visit

    return visit


def test_checkpoints_are_compared_without_their_metrics(visit, tmp_path):
    mine = visit.Visit(tmp_path / "out", small=True)
    for name, value in (("first", 2.0), ("second", 2.5)):
        folder = tmp_path / "out/runs" / name / "checkpoints/000000000012-0001"
        folder.mkdir(parents=True)
        save_file({"weight": torch.tensor([1.0, value])}, folder / "generator.safetensors")
        save_file({"sums": torch.full((2,), value)}, folder / "recorder.safetensors")
        latest = {"checkpoint": folder.name, "images": 12}
        (tmp_path / "out/runs" / name / "latest.json").write_text(json.dumps(latest))
    first, second = mine.weights("first"), mine.weights("second")
    assert list(first) == ["generator/weight"]
    assert visit.difference(first, first) == 0
    assert visit.difference(first, second) == pytest.approx(0.2)
    assert (mine.images("first"), mine.images("none")) == (12, 0)
    with pytest.raises(ValueError, match="checkpoints differ in"):
        visit.difference(first, {})


def test_only_training_workers_are_found_below_a_process(visit):
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'input()', 'ray::RayTrainWorker'])"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE) as parent:
        while not (found := list(visit.workers_below(parent.pid))):
            assert parent.poll() is None
        assert len(found) == 1
        assert found[0] != parent.pid
        parent.communicate(b"\n")


def test_what_fails_is_reported_and_all_else_is_done(visit, tmp_path, monkeypatch, capsys):
    def fails(visit):
        raise RuntimeError("no worker")

    monkeypatch.setattr(visit, "job", fails)
    fails.__name__ = "job"
    monkeypatch.setattr(visit, "network", lambda visit: visit.report("R3GAN", images_per_second=1.0))
    monkeypatch.setattr(sys, "argv", ["visit.py", str(tmp_path / "out"), "--small"])
    assert visit.main() == 1
    lines = [json.loads(line) for line in (tmp_path / "out/visit.jsonl").read_text().splitlines()]
    assert [line["what"] for line in lines] == ["machine", "job", "R3GAN"]
    assert lines[1] == {"what": "job", "ok": False, "error": "RuntimeError: no worker"}


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without a GPU")
def test_without_a_gpu_it_says_what_to_do(visit, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["visit.py", str(tmp_path / "out")])
    with pytest.raises(SystemExit):
        visit.main()
    assert "this machine has no GPU; --small tries the script on the CPU" in capsys.readouterr().err


@pytest.mark.drill
def test_the_whole_visit_runs_on_a_cpu(tmp_path):
    command = [sys.executable, ROOT / "cluster/visit.py", tmp_path / "out", "--small"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1_800)
    assert done.returncode == 0, done.stdout + done.stderr
    found = {line["what"]: line for line in map(json.loads, done.stdout.splitlines())}
    assert found["weights"]["disturbed"] == found["weights"]["two_runs"] == 0
    assert found["disturbed"]["attempts"] == 3
    first, disturbed = (found[f"score of {name}"] for name in ("first", "disturbed"))
    assert first["frechet_distance"] == disturbed["frechet_distance"]
    assert found["R3GAN, capture off"]["images_per_second"] > 0
