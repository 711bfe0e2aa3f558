"""The keys of what each --json says, and the names and labels of /metrics, are those recorded, and their types."""

import json
import re
import subprocess
import sys
import urllib.request
from importlib import import_module

import pytest
import torch
from prometheus_client.parser import text_string_to_metric_families

from ganrun import bench
from ganrun.telemetry.messages import Note, Restart, SamplesDrawn, ScoreTaken, Tick, WorkersStarted
from ganrun.telemetry.records import CheckpointFailed, CheckpointWritten
from ganrun.telemetry.run_report import to_json
from ganrun.telemetry.state import RunHistory, RunState
from ganrun.worker.worker import run_worker
from tests.benchmarks.__main__ import MEASURES
from tests.conftest import config_of, small_run, write_yaml
from tests.families import values_of
from tests.format1 import copy_to, write_extractor
from tests.ranks import StopAt
from tests.recorded import expect_json, said, shape

QUICK = {
    "step": {"REPEATS": 2, "SECONDS": 0.02, "TICK_SECONDS": 0.02},
    "ablation": {"REPEATS": 2, "SECONDS": 0.02},
    "data": {"REPEATS": 1, "PEER_WORKERS": (0,), "PEER_SAMPLES": 200},
    "checkpoint": {"REPEATS": 1},
    "scale": {"MANY_SHARDS": 64, "MANY_SAMPLES": 64},
    "telemetry": {"REPEATS": 2, "SECONDS": 0.3},
    "fid": {"REPEATS": 1, "SIZE": 16, "SAMPLES": 100, "IMAGES": 2},
}
"""Benchmarks to run, with minimal settings. `ddp`, `job` and `startup` need many processes and take too long."""

DIFFERING = ("bf16", "bottleneck_gpus", "over_lightning")
"""In keys of bench: what not every processor computes in, what may be none, what is not always installed."""
TICK = {
    "loss/generator": 1.5,
    "loss/discriminator/penalty": 0.5,
    "own/thing": 3.0,
    "logit/real": 2.0,
    "images_per_second": 100.0,
    "rank_round_seconds/1": 0.2,
    "nonfinite": 2,
    "shard_bytes": 1_000,
    "shard_errors/timeout": 1,
    "gpu_seconds": 2.5,
    "gpu_memory_bytes/0": 5.0,
    "collapse_suspected/gradient_vanished": 0.0,
}
SCORES = {"frechet_distance": 7.0, "kid": 0.5, "recall": None, "density": 0.75, "class_frechet_distance/cat": 9.0}
MADE_UP = (
    WorkersStarted(0, workers=2),
    SamplesDrawn(0, b"first", diversity=0.5),
    Tick(60, TICK),
    ScoreTaken(60, "FID-20", 7.0, SCORES, "e", samples=20, best=True),
    CheckpointWritten(time=9.0, images=60, checkpoint="c", bytes=5, blocked_seconds=0.1, upload_seconds=0.2),
    CheckpointFailed(time=9.5, images=60, message="disk full"),
    Restart("resize", workers=2, why=""),
    WorkersStarted(60, workers=3, reason="resize", before=2),
    Tick(120, TICK),
    SamplesDrawn(120, b"latest", diversity=0.25),
)
"""Events that workers with GPUs might send."""


# Commands.


@pytest.mark.parametrize(
    "arguments",
    [("list", "."), ("show", "run"), ("show", "search"), ("show", "search/trials/01")],
    ids=("list", "show_run", "show_search", "show_trial"),
)
def test_runs(arguments, tmp_path, monkeypatch, request):
    copy_to(tmp_path / "format1", monkeypatch)
    found = shape(json.loads(said("runs", *arguments, "--json")))
    expect_json(f"keys/runs_{request.node.callspec.id}.json", found)


def test_doctor(tmp_path):
    expect_json("keys/doctor.json", shape(json.loads(said("doctor", tmp_path / "runs", "--json"))))


def test_evaluate_of_images(tmp_path, monkeypatch):
    copy_to(tmp_path / "format1", monkeypatch)
    expect_json("keys/evaluate_images.json", shape(json.loads(said("evaluate", "run", "--json"))))


def test_evaluate_of_points(tmp_path):
    values = values_of("gaussians", small_run(tmp_path / "runs", tmp_path / "points"))
    values["train"] |= {"total_images": 24}
    said("prepare", "gaussians:8", tmp_path / "points", "--samples", 60)
    run_worker(config_of(values), 0, 1, torch.device("cpu"), StopAt())
    expect_json("keys/evaluate_points.json", shape(json.loads(said("evaluate", tmp_path / "runs/small", "--json"))))


@pytest.mark.parametrize("what", QUICK)
def test_bench(what, data_folder, tmp_path, monkeypatch, capsys):
    values = small_run(tmp_path / "runs", data_folder)
    values["train"]["precision"] = "float32"
    package = "tests.benchmarks" if what in MEASURES else "ganrun.benchmarks"
    module = import_module(f"{package}.{what}")
    for name, value in QUICK[what].items():
        monkeypatch.setattr(module, name, value)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)  # Keys on a GPU: test_bench_gpu.py.
    if what == "step":
        monkeypatch.setattr(bench, "_job_over_step", lambda config: 0.5)
    measures = MEASURES if what in MEASURES else bench.MEASURES
    assert bench.main([what, str(write_yaml(tmp_path / "small.yaml", values)), "--json"], measures, package) == 0
    expect_json(f"keys/bench_{what}.json", shape(without(json.loads(capsys.readouterr().out))))


def without(value):
    """All but the keys that differ between machines."""
    if not isinstance(value, dict):
        return value
    return {key: without(each) for key, each in value.items() if not any(name in key for name in DIFFERING)}


# What a run says, and what a sidecar makes of it.


@pytest.fixture(scope="module")
def states(tmp_path_factory, data_folder):
    """State of a real run, and of a made-up run with everything that needs GPUs."""
    root = tmp_path_factory.mktemp("pushed")
    write_extractor(root / "means.pt")
    values = values_of("tricks", small_run(root / "runs", data_folder))
    values["evaluate"] = {"every_images": 120, "samples": 12, "extractor": str(root / "means.pt"), "metrics": ["kid"]}
    config, channel = config_of(values, train__total_images=120, run__name="real"), StopAt()
    run_worker(config, 0, 1, torch.device("cpu"), channel)
    made_up = config_of(small_run(root / "runs", data_folder), run__name="made-up")
    return {"messages": channel.events, "real": heard(config, channel.events), "made_up": heard(made_up, MADE_UP)}


def heard(config, events):
    state = RunState(config.run, config.train, config.telemetry, RunHistory())
    for event in events:
        state.handle(event)
    return state


@pytest.fixture(scope="module")
def sidecar(states):
    """Address of a sidecar that has received both states."""
    command = [sys.executable, "-m", "ganrun", "sidecar", "--listen", "127.0.0.1:0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        address = re.match(r"(http://\S+) ", process.stderr.readline())[1]
        try:
            for name in ("real", "made_up"):
                push(address, states[name])
            yield address
        finally:
            process.terminate()


def push(address, state):
    report = state.report()
    wanted = json.loads(ask(f"{address}/push/v1", "POST", to_json(report)))["want"]
    assert wanted == ["curve", "first", "latest"]
    where = f"{address}/push/v1/part?run={report.run}&trial=&part=curve&digest={report.parts['curve']}"
    ask(where, "PUT", state.part("curve"))


def ask(address, method="GET", data=None):
    request = urllib.request.Request(address, data, {"Content-Type": "application/json"}, method=method)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.read()


def test_messages_of_a_worker(states):
    kinds = {}
    for event in states["messages"]:
        if isinstance(event, Note):
            continue
        values = {key: value for key, value in event.to_line().items() if not isinstance(value, bytes)}
        kinds.setdefault(event.kind, []).append(values)
    expect_json("keys/messages.json", {kind: shape(kinds[kind]) for kind in sorted(kinds)})


def test_what_is_pushed(states):
    reports = {name: json.loads(to_json(states[name].report())) for name in ("real", "made_up")}
    found = {name: shape(report | {"series": []}) for name, report in reports.items()}
    series = {name: sorted({json.dumps(each[:2]) for each in report["series"]}) for name, report in reports.items()}
    expect_json("keys/pushed.json", {"fields": found, "series": series})


def test_metrics(sidecar):
    families = text_string_to_metric_families(ask(f"{sidecar}/metrics").decode())
    found = {
        family.name: {
            "type": family.type,
            "samples": sorted({sample.name for sample in family.samples}),
            "labels": sorted({tuple(sorted(sample.labels)) for sample in family.samples}),
        }
        for family in families
    }
    expect_json("keys/metrics.json", found)


def test_runs_and_health_of_the_sidecar(sidecar):
    expect_json("keys/sidecar_runs.json", shape(json.loads(ask(f"{sidecar}/runs"))))
    expect_json("keys/sidecar_healthz.json", shape(json.loads(ask(f"{sidecar}/healthz"))))
    curve = json.loads(ask(f"{sidecar}/part?run=real&trial=&part=curve"))
    expect_json("keys/sidecar_curve.json", shape(curve))
