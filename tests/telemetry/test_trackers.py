"""Trackers show what the workers said; one that hangs, fails or is missing costs a line. Files and servers are real."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request

import pytest
import wandb
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from wandb.proto import wandb_internal_pb2

from ganrun.data.index import open_data
from ganrun.storage import open_storage
from ganrun.telemetry import tracking
from ganrun.telemetry.messages import (
    Finished,
    Note,
    Progress,
    SamplesDrawn,
    ScoreTaken,
    Stopped,
    Tick,
    WorkersStarted,
)
from ganrun.telemetry.records import CheckpointWritten, Exploited, RolledBack
from ganrun.telemetry.series import SCORES, read_tick_key
from ganrun.telemetry.trackers import TRACKERS, TrackedRun, flatten, read_ids
from ganrun.telemetry.tracking import Scalars, TrackerThread, Tracking
from tests.conftest import free_port
from tests.telemetry.test_push import SCORES as VALUES
from tests.telemetry.test_push import TICK
from tests.waiting import WAIT, until

CONFIG = {"run": {"name": "faces"}, "train": {"total_images": 120}, "data": {"shards": ["a", "b"]}}
PNG = open_data("package:fashion-mnist-10k").places[0].read("preview.png")
FIRST = (
    WorkersStarted(0, workers=2),
    SamplesDrawn(0, PNG, diversity=0.5),
    Note("a line for the terminal"),
    Progress(12),
    Tick(60, TICK),
    ScoreTaken(60, "FID-20", 7.0, VALUES, "e", samples=20, best=True),
    CheckpointWritten(images=60, checkpoint="c", bytes=5, blocked_seconds=0.1, upload_seconds=0.2),
    Tick(90, TICK),
    Stopped(90),
)
ROLLED_BACK = RolledBack(images=60, attempt=2, rollback_count=1, checkpoint="c", damaged=[], message="")
SECOND = (WorkersStarted(90, workers=1), ROLLED_BACK, Tick(120, TICK), SamplesDrawn(120, PNG, 0.25), Finished(120))
EXPLOITED = Exploited(
    images=60, attempt=2, rollback_count=0, checkpoint="c", damaged=[], donor="runs/pbt/trials/03", number=1,
    values={"optimizer.generator.learning_rate": 2e-4},
)  # fmt: skip


def run_at(folder, **more):
    return TrackedRun("faces", open_storage(str(folder)), CONFIG, **more)


def track(name, run, events, ending="stopped"):
    """Play events to a tracker; what it wrote to the terminal."""
    said = []
    trackers = Tracking((name,), {"": run}, said.append)
    for event in events:
        trackers.handle(event)
    trackers.close(ending)
    return said


# Values.


def test_values_have_the_keys_of_the_table():
    scalars = Scalars({"nonfinite": 3.0, "rollbacks": 1.0})
    found = {}
    for event in (*FIRST, *SECOND):
        found |= scalars.of(event)
    assert found["nonfinite"] == 3 + 3 * TICK["nonfinite"]
    assert found["rollbacks"] == 2
    assert found["loss/generator"] == 1.5
    assert not [key for key in found if key.startswith("rank_")]
    ours = {key for key in found if key not in VALUES and key not in SCORES}
    of_events = {"workers", "sample_diversity", "checkpoint_bytes", "checkpoint_seconds", "checkpoint_blocked_seconds"}
    assert {key for key in ours if read_tick_key(key)[1] == ("", key)} == of_events | {"rollbacks", "own/thing"}


def test_a_config_is_flat():
    assert flatten(CONFIG) == {"run.name": "faces", "train.total_images": 120, "data.shards": ["a", "b"]}


# TensorBoard.


def read_back(folder):
    found = EventAccumulator(str(folder / "tensorboard"))
    found.Reload()
    return found


def test_tensorboard_reads_back_what_the_workers_said(tmp_path):
    assert track("tensorboard", run_at(tmp_path), FIRST) == []
    found = read_back(tmp_path)
    assert [(each.step, each.value) for each in found.Scalars("loss/generator")] == [(60, 1.5), (90, 1.5)]
    assert [(each.step, each.value) for each in found.Scalars("nonfinite")] == [(60, 2), (90, 4)]
    assert [(each.step, each.value) for each in found.Scalars("frechet_distance")] == [(60, 7)]
    (picture,) = found.Images("samples")
    assert (picture.step, picture.encoded_image_string) == (0, PNG)
    (config,) = found.Tensors("config")
    assert b"total_images: 120" in config.tensor_proto.string_val[0]
    (score,) = found.Tensors("score")
    assert score.tensor_proto.string_val[0] == b"FID-20: 7 at 60 images, the best so far"
    assert "_hparams_/session_start_info" in found.summary_metadata


def test_a_resumed_run_goes_on_in_tensorboard_and_a_rollback_drops_what_is_shown_again(tmp_path):
    track("tensorboard", run_at(tmp_path), FIRST)
    track("tensorboard", run_at(tmp_path, totals={"nonfinite": 4.0}), SECOND)
    found = read_back(tmp_path)
    assert [(each.step, each.value) for each in found.Scalars("nonfinite")] == [(60, 2), (120, 6)]
    assert [each.step for each in found.Images("samples")] == [0, 120]


def test_tensorboard_in_object_storage_gets_a_file_a_flush(s3):
    run = TrackedRun("faces", open_storage(f"{s3}/run"), CONFIG)
    writer = TRACKERS["tensorboard"](run)
    writer.SEGMENT_SECONDS = 0.0
    for images in (60, 120):
        writer.scalars(images, 0.0, {"loss/generator": 1.0})
        writer.flush()
    writer.close("finished")
    names = [name for name in run.storage.list("tensorboard") if ".tfevents." in name]
    assert [name.rpartition(".")[2] for name in names] == ["000000", "000001"]


# Weights & Biases, offline.


def records_of(file):
    """Parse a .wandb file: records in LevelDB's log format, in blocks of 32 KiB after a header of 7 bytes."""
    data, at, whole = file.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if left := (at // 2**15 + 1) * 2**15 - at if 2**15 - at % 2**15 < 7 else 0:
            at += left
            continue
        size, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        if at + 7 + size > len(data):
            return  # It is being written.
        whole, at = whole + data[at + 7 : at + 7 + size], at + 7 + size
        if kind in (1, 4):  # Whole, or the last part.
            yield wandb_internal_pb2.Record.FromString(whole)
            whole = b""


def history_of(folder):
    """Return the logged values of all offline runs in a folder, and the records that are none."""
    found = [record for file in sorted(folder.glob("wandb/offline-run-*/*.wandb")) for record in records_of(file)]
    lines = [
        {item.key or "/".join(item.nested_key): item.value_json for item in record.history.item}
        for record in found
        if record.WhichOneof("record_type") == "history"
    ]
    return lines, found


def test_wandb_offline_keeps_what_the_workers_said_and_a_resumed_run_has_its_id(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setattr(tracking, "CLOSE_SECONDS", WAIT)
    run = run_at(tmp_path, search="pbt")
    assert track("wandb", run, FIRST) == []
    second = int(time.time())
    until(lambda: int(time.time()) > second)  # W&B names the folder of a start by its second.
    assert track("wandb", run, (*SECOND[:2], EXPLOITED, *SECOND[2:])) == []
    # W&B's own process writes, and may end after the run has.
    until(lambda: sum(record.WhichOneof("record_type") == "exit" for record in history_of(tmp_path)[1]) == 2)
    lines, records = history_of(tmp_path)
    losses = [(line["images"], line["loss/generator"]) for line in lines if "loss/generator" in line]
    assert losses == [("60", "1.5"), ("90", "1.5"), ("120", "1.5")]
    started = [record.run for record in records if record.WhichOneof("record_type") == "run"]
    assert {each.run_id for each in started} == {read_ids(run.storage)["wandb"]}
    assert {(each.run_group, each.display_name, each.project) for each in started} == {("pbt", "faces", "ganrun")}
    assert len(list(tmp_path.glob("wandb/offline-run-*/files/media/images/samples*.png"))) == 2
    summaries = " ".join(str(record.summary) for record in records if record.WhichOneof("record_type") == "summary")
    for text in ("FID-20: 7 at 60 images", "a copy of trial 03, with optimizer.generator.learning_rate: 0.0002"):
        assert text in summaries


# MLflow, a real server.


@contextlib.contextmanager
def mlflow_server(folder, port):
    log = open(folder / "server.log", "wb")  # noqa: SIM115
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder}/db", "--artifacts-destination", f"{folder}/artifacts"]
    server = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)

    def answers():
        with contextlib.suppress(OSError):
            return urllib.request.urlopen(f"http://127.0.0.1:{port}/health").status == 200

    try:
        until(answers)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


@pytest.mark.drill
def test_an_mlflow_server_shows_what_the_workers_said(tmp_path, monkeypatch):
    import mlflow

    monkeypatch.setattr(tracking, "CLOSE_SECONDS", WAIT)
    search = open_storage(str(tmp_path / "pbt"))
    run = run_at(tmp_path / "pbt/trials/00", search="pbt", search_storage=search)
    with mlflow_server(tmp_path, free_port()) as url:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", url)
        assert track("mlflow", run, FIRST) == []
        client, number = mlflow.MlflowClient(), read_ids(run.storage)["mlflow"]
        assert client.get_run(number).info.status == "KILLED"
        assert track("mlflow", run, (*SECOND[:2], EXPLOITED, *SECOND[2:])) == []
        found = client.get_run(number)
        history = [(each.step, each.value) for each in client.get_metric_history(number, "loss/generator")]
        pictures = [each.path for each in client.list_artifacts(number, "images")]
        (experiment,) = [each for each in client.search_experiments() if each.name == "ganrun"]
        runs = client.search_runs([experiment.experiment_id])
    assert read_ids(run.storage)["mlflow"] == number
    assert history == [(60, 1.5), (90, 1.5), (120, 1.5)]
    assert found.info.status == "FINISHED"
    assert found.data.params["train.total_images"] == "120"
    assert found.data.tags["score"] == "FID-20: 7 at 60 images, the best so far"
    assert found.data.tags["lineage"].startswith("at 60 images a copy of trial 03")
    assert found.data.tags["mlflow.parentRunId"] == read_ids(search)["mlflow"]
    assert len(runs) == 2
    assert sorted(re.findall(r"samples.step.(\d+).timestamp\S*\.png", " ".join(pictures))) == ["0", "120"]


# A tracker that hangs, fails or is missing.


@pytest.mark.parametrize(
    ("name", "module", "package"),
    [("tensorboard", "tensorboard", "tensorboard"), ("wandb", "wandb", "wandb"), ("mlflow", "mlflow", "mlflow")],
)
def test_a_tracker_without_its_package_costs_a_line(tmp_path, monkeypatch, name, module, package):
    for each in [module, *(each for each in sys.modules if each.startswith(f"{module}."))]:
        monkeypatch.setitem(sys.modules, each, None)
    (line,) = track(name, run_at(tmp_path), FIRST)
    assert line.startswith(f"tracker {name}: {package}")
    assert line.endswith(f" is missing: pip install 'ganrun[{package}]'; the run goes on")


def test_wandb_without_a_key_costs_a_line(tmp_path, monkeypatch):
    wandb.teardown()  # It has read its variables in another test.
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    (line,) = track("wandb", run_at(tmp_path), FIRST)
    assert line.startswith("tracker wandb: no API key; call `wandb login`, or set WANDB_API_KEY or WANDB_MODE=offline")


class Held:
    """A tracker that answers when it is let, and then fails as often as it is told."""

    def __init__(self, fails=0):
        self.let, self.fails, self.calls = threading.Event(), fails, []

    def __getattr__(self, name):
        def call(*arguments):
            assert self.let.wait(WAIT)
            if self.fails:
                self.fails -= 1
                raise OSError("no route\nto host")
            self.calls.append((name, *arguments))

        return call


@pytest.fixture
def held(monkeypatch):
    made = Held()
    monkeypatch.setitem(TRACKERS, "held", lambda run: made)
    monkeypatch.setattr(tracking, "CLOSE_SECONDS", 0.05)
    return made


def test_one_that_hangs_neither_slows_the_run_nor_keeps_its_end(held, tmp_path):
    said = []
    thread = TrackerThread("held", {"": run_at(tmp_path)}, said.append)
    thread.offer("", FIRST[0])
    until(lambda: not thread._events)
    for images in range(tracking.QUEUED + 7):
        thread.offer("", Tick(images, TICK))
        thread.offer("", SamplesDrawn(images, PNG, 0.5))
    assert (len(thread._events), len(thread._pictures)) == (tracking.QUEUED, 1)
    thread.end("finished")
    thread.join(0.05)
    assert said == ["tracker held: does not answer; the run ends without it"]
    held.let.set()
    thread.join(WAIT)
    assert said[1:] == ["tracker held: slower than the run, so that 7 messages are lost"]
    ticks = [call[1] for call in held.calls if call[0] == "scalars" and "loss/generator" in call[3]]
    assert ticks == list(range(7, tracking.QUEUED + 7))


def test_one_that_fails_is_told_once_and_tried_again(held, tmp_path, monkeypatch):
    monkeypatch.setattr(tracking, "RETRY_SECONDS", 0.01)
    held.fails, said = 3, []
    held.let.set()
    thread = TrackerThread("held", {"": run_at(tmp_path)}, said.append)
    for event in FIRST[:5]:
        thread.offer("", event)
    until(lambda: not held.fails)
    thread.offer("", Tick(90, TICK))
    thread.end("stopped")
    thread.join(WAIT)
    assert said == ["tracker held: no route to host; the run goes on, and it is tried again"]
    assert [call[0] for call in held.calls][-3:] == ["scalars", "flush", "close"]


@contextlib.contextmanager
def silence():
    """A server that accepts and never answers; its address."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


HANGING = """
import sys, time
from ganrun.telemetry import tracking
from tests.telemetry.test_trackers import FIRST, run_at, track
tracking.CLOSE_SECONDS = 3.0
print(track({name!r}, run_at({folder!r}), FIRST))
"""


@pytest.mark.drill
@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_command_ends_although_the_server_of_its_tracker_hangs(name, tmp_path):
    with silence() as url:
        variables = {"WANDB_BASE_URL": url, "WANDB_API_KEY": "0" * 40, "MLFLOW_TRACKING_URI": url}
        begun = time.monotonic()
        code = HANGING.format(name=name, folder=str(tmp_path))
        done = subprocess.run(
            [sys.executable, "-c", code], env=os.environ | variables, capture_output=True, text=True, timeout=WAIT
        )
    print(done.stdout, done.stderr, time.monotonic() - begun)
    assert f"tracker {name}: " in done.stdout
