"""Pushing costs the run nothing, whatever the other side does; and what is pushed is what the workers said."""

import contextlib
import json
import os
import signal
import socket
import threading
import time

import pytest

from ganrun.errors import UserError
from ganrun.telemetry import protocol, push
from ganrun.telemetry.messages import Progress, Restart, SamplesDrawn, ScoreTaken, Tick, WorkersStarted
from ganrun.telemetry.protocol import Address
from ganrun.telemetry.push import Pusher
from ganrun.telemetry.records import CheckpointFailed, CheckpointWritten
from ganrun.telemetry.run_report import to_json
from ganrun.telemetry.series import GPU_MEMORY_BYTES
from ganrun.telemetry.sidecar.runs import Runs
from ganrun.telemetry.state import RunHistory, RunState
from tests.conftest import config_of
from tests.waiting import WAIT, until

TICK = {
    "loss/generator": 1.5,
    "loss/discriminator/penalty": 0.5,
    "own/thing": 3.0,
    "logit/real": 2.0,
    "learning_rate/generator": 1e-4,
    "images_per_second": 100.0,
    "rank_round_seconds/0": 0.1,
    "rank_round_seconds/1": 0.2,
    "nonfinite": 2,
    "shard_bytes": 1_000,
    "shard_errors/timeout": 1,
    "gpu_seconds": 2.5,
    "collapse_suspected/gradient_vanished": 0.0,
}


NO_SCORE = {"frechet_distance": None}
SCORES = {"frechet_distance": 7.0, "kid": 0.5, "recall": None, "density": 0.75, "class_frechet_distance/cat": 9.0}


def heard(values, history=None):
    """A state that has heard of two ticks."""
    config = config_of(values)
    state = RunState(config.run, config.train, config.telemetry, history or RunHistory())
    for event in (
        WorkersStarted(0, workers=2),
        SamplesDrawn(0, b"first", diversity=0.5),
        Progress(12),
        Tick(60, TICK),
        ScoreTaken(60, "FID-20", 7.0, SCORES, "e", samples=20, best=True),
        CheckpointWritten(time=9.0, images=60, checkpoint="c", bytes=5, blocked_seconds=0.1, upload_seconds=0.2),
        CheckpointFailed(time=9.5, images=60, message="disk full"),
        Tick(120, TICK),
        SamplesDrawn(120, b"latest", diversity=0.25),
    ):
        state.handle(event)
    return state


def series(state):
    return {(name, *labels.values()): value for name, labels, value in state.report().series}


def test_what_the_workers_say_becomes_series(values):
    found = series(heard(values))
    expected = {
        ("loss", "generator", "total"): 1.5,
        ("loss", "discriminator", "penalty"): 0.5,
        ("loss", "", "own/thing"): 3.0,
        ("logit", "real"): 2.0,
        ("rank_round_seconds", "1"): 0.2,
        ("images",): 120,
        ("images_total",): 120,
        ("target_images",): 240,
        ("nonfinite_total",): 4,
        ("shard_bytes_total",): 2_000,
        ("shard_errors_total", "timeout"): 2,
        ("gpu_seconds_total",): 5.0,
        ("frechet_distance", "e", "20"): 7.0,
        ("kid",): 0.5,
        ("evaluation", "density", ""): 0.75,
        ("checkpoint_failures_total",): 1,
        ("checkpoint_last_success_timestamp_seconds",): 9.0,
        ("sample_diversity",): 0.25,
        ("restarts_total", "failure"): 0,
        ("rollbacks_total",): 0,
        ("workers",): 2,
    }
    assert {key: found[key] for key in expected} == expected
    assert not {key for key in found if key[0] == "recall" or "cat" in "".join(key)}  # No number; one of many classes.


def test_a_run_on_1024_gpus_is_taken(values):
    state, ranks = heard(values), range(1024)
    several = {
        f"{name}/{rank}": 1 / (rank + 3) for name in ("rank_round_seconds", "gpu_memory_bytes") for rank in ranks
    }
    state.handle(Tick(180, TICK | several))
    pushed = to_json(state.report())
    assert len(pushed) <= 256 * 2**10
    runs = Runs()
    runs.push(pushed)
    (run,) = runs.known()
    assert run.value(GPU_MEMORY_BYTES, "1023") == 1 / 1026


def test_counters_are_sums_over_the_whole_life(values):
    history = RunHistory(
        {"images": 500, "nonfinite": 1, "restarts/failure": 2, "shard_errors/timeout": 5}, restart="failure"
    )
    state = heard(values, history)
    state.handle(WorkersStarted(60, workers=1))
    state.handle(Restart("resize", workers=1, why=""))
    assert series(state)["workers",] == 0
    state.handle(WorkersStarted(60, workers=3, reason="resize", before=1))
    state.handle(Progress(72))
    found = series(state)
    assert found["workers",] == 3
    assert found["restarts_total", "resize"] == 1
    assert found["images_total",] == 500 + 120 + 12
    assert found["images",] == 72
    assert found["nonfinite_total",] == 5
    assert found["restarts_total", "failure"] == 2 + 2  # The command was killed; then its workers died.
    assert found["shard_errors_total", "timeout"] == 7
    assert ("rank_round_seconds", "1") not in found
    assert [point["images"] for point in json.loads(state.part("curve"))] == [60, 60]


def test_starts_that_died_before_they_were_told_count_too(values):
    state = heard(values, RunHistory(restart="resume"))
    assert series(state)["restarts_total", "resume"] == 1
    state.handle(WorkersStarted(60, workers=2, reason="failure", failures=1))
    state.handle(WorkersStarted(60, workers=2, reason="failure", failures=4))
    state.handle(WorkersStarted(60, workers=3, reason="resize", failures=5))
    found = series(state)
    assert [found["restarts_total", reason] for reason in ("resume", "failure", "resize")] == [1, 5, 1]


def test_notes_that_differ_only_in_numbers_are_one(values):
    state = heard(values)
    for images in range(60, 600, 60):
        state.note(f"checkpoint {images:012d}-0001 could not be written: disk full")
        state.note(f"worker {images} on 10.0.0.7 died" if images == 60 else "another note")
    notes = state.report().notes
    assert [(note.text, note.count) for note in notes] == [
        ("worker 60 on 10.0.0.7 died", 1),
        (f"checkpoint {540:012d}-0001 could not be written: disk full", 9),
        ("another note", 8),
    ]
    assert notes[1].first_time <= notes[0].time <= notes[1].time
    for text in "abcdefghijklmnopqrstuvwxyz":
        state.note(text)
    assert [note.text for note in state.report().notes] == list("ghijklmnopqrstuvwxyz")  # The newest 20.


def test_a_curve_stays_short_and_even_and_keeps_its_scores(values):
    state = heard(values)
    for number in range(3, 4_000):
        state.handle(Tick(60 * number, {"loss/generator": 1 / number}))
    curve = json.loads(state.part("curve"))
    assert 200 <= len(curve) <= 400
    assert [point["frechet_distance"] for point in curve if "frechet_distance" in point] == [7.0]
    assert curve[-1]["images"] == 60 * 3_999


def test_what_is_not_finite_is_left_out(values):
    state = heard(values)
    state.handle(ScoreTaken(60, "n", None, NO_SCORE, "e", samples=20))
    assert ("frechet_distance", "e", "20") not in series(state)
    json.dumps(json.loads(to_json(state.report())), allow_nan=False)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("", Address("127.0.0.1", 9108)),
        ("off", None),
        ("http://head:9108", Address("head", 9108)),
        ("http://[::1]:9/", Address("::1", 9)),
    ],
)
def test_where_the_state_goes(monkeypatch, value, expected):
    monkeypatch.setenv("GANRUN_SIDECAR", value)
    assert protocol.address() == expected


@pytest.mark.parametrize("value", ["head:9108", "https://head:9108", "http://head", "http://head:x", "http://h:1/path"])
def test_what_is_no_address_is_refused(monkeypatch, value):
    monkeypatch.setenv("GANRUN_SIDECAR", value)
    with pytest.raises(UserError, match=r"GANRUN_SIDECAR: .* is not http://HOST:PORT"):
        protocol.address()


class Bad:
    """A server that misbehaves with each connection as it is told."""

    def __init__(self, behave):
        self.behave, self.plugs, self.met = behave, [], threading.Event()
        self.server = socket.create_server(("127.0.0.1", 0))
        self.address = Address(port=self.server.getsockname()[1])
        self.over = threading.Event()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while not self.over.is_set():
            try:
                plug, _ = self.server.accept()
            except OSError:
                return
            self.plugs.append(plug)
            self.met.set()
            threading.Thread(target=self._meet, args=(plug,), daemon=True).start()

    def _meet(self, plug):
        with contextlib.suppress(OSError):
            self.behave(plug, self.over)

    def close(self):
        self.over.set()
        for plug in [self.server, *self.plugs]:
            plug.close()


def hang(plug, over):
    over.wait()


def trickle(plug, over):
    plug.sendall(b"HTTP/1.1 200 OK\r\n")
    while not over.wait(0.02):
        plug.sendall(b"X: y\r\n")


def answer(text):
    def behave(plug, over):
        plug.recv(2**16)
        plug.sendall(text)
        plug.close()

    return behave


def other(plug, over):
    if plug.recv(2**16).startswith(b"GET"):
        plug.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
    plug.close()


BEHAVIOURS = {
    "hangs": hang,
    "trickles": trickle,
    "answers 500": answer(b"HTTP/1.1 500 no\r\nContent-Length: 2\r\n\r\nno"),
    "answers no HTTP": answer(b"\0" * 100),
    "is something else": other,
    "wants nonsense": answer(b'HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{"want": ["secret"]}'),
    "is no sidecar": answer(b"HTTP/1.1 404 no\r\nContent-Length: 2\r\n\r\nno"),
}


@pytest.mark.parametrize("name", ["hangs", "trickles"])
def test_who_hears_the_workers_does_not_wait_for_a_push(values, monkeypatch, name):
    """While one exchange is under way, and goes on for ever, any number of messages is heard."""
    for seconds in ("WAIT_SECONDS", "REQUEST_SECONDS"):
        monkeypatch.setattr(push, seconds, 3_600.0)
    monkeypatch.setattr(push, "CLOSE_SECONDS", 0.1)
    bad, state = Bad(BEHAVIOURS[name]), heard(values)
    pusher = Pusher(state, bad.address, False, 0.01, lambda text: None)
    try:
        assert bad.met.wait(WAIT)
        for number in range(1_000):
            state.handle(Progress(120 + number))
        pusher.close()
        assert pusher._thread.is_alive()
        assert len(bad.plugs) == 1
    finally:
        bad.close()


@pytest.mark.parametrize("name", BEHAVIOURS)
def test_pushing_outlasts_a_bad_sidecar_and_says_little(values, monkeypatch, name):
    for seconds in ("WAIT_SECONDS", "REQUEST_SECONDS", "CLOSE_SECONDS"):
        monkeypatch.setattr(push, seconds, 0.5)
    bad, said = Bad(BEHAVIOURS[name]), []
    pusher = Pusher(heard(values), bad.address, False, 0.01, said.append)
    try:
        # One that is no sidecar is let alone; of another, each exchange ends and the next one is tried.
        wanted, told = 1 if name == "is no sidecar" else 3, name not in ("hangs", "answers no HTTP")
        until(lambda: len(bad.plugs) >= wanted and len(said) == told)
        pusher.close()
        pusher._thread.join(WAIT)
        assert not pusher._thread.is_alive()
    finally:
        bad.close()
    assert len(said) == told


def test_a_sidecar_that_never_was_there_is_asked_again_and_again(values):
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = Address(port=free.getsockname()[1])
    said = []
    pusher = Pusher(heard(values), address, False, 0.01, said.append)
    server = None
    try:
        time.sleep(0.1)
        from ganrun.telemetry.sidecar.runs import Runs
        from ganrun.telemetry.sidecar.server import Server

        server = Server(address, Runs(), "")
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        until(lambda: said)
        assert said == [f"watch    {address.url}"]
        # Told to end, it tells the driver, who then pushes no more.
        server.end()
        pusher._thread.join(WAIT)
        assert not pusher._thread.is_alive()
    finally:
        pusher.close()
        if server:
            server.shutdown()
            server.server_close()


def test_a_sidecar_is_started_beside_the_driver_again_if_it_dies_and_outlives_it(values, monkeypatch):
    monkeypatch.setattr(push, "START_AGAIN_SECONDS", 0.0)
    for seconds in ("WAIT_SECONDS", "REQUEST_SECONDS", "CLOSE_SECONDS"):
        monkeypatch.setattr(push, seconds, WAIT)
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = Address(port=free.getsockname()[1])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    said, pushers = [], []
    try:
        pushers = [Pusher(heard(values), address, True, 0.05, said.append) for _ in range(2)]
        until(lambda: len(said) == 2)
        assert said == [f"watch    {address.url} (it stays when the run is over; `ganrun sidecar --stop` ends it)"] * 2
        first = push.health(address)["pid"]
        os.kill(first, signal.SIGKILL)
        until(lambda: (found := push.health(address)) and found["pid"] != first)
        for pusher in pushers:
            pusher.state.end("finished")
            pusher.close()
        found = push.health(address)
        assert found["pid"] != os.getpid()
        with open(f"/proc/{found['pid']}/environ") as environment:
            assert "secret" not in environment.read()
        (run,) = json.loads(push.request(address, "GET", "/runs")[1])["runs"]
        assert run["state"] == "finished"
    finally:
        for pusher in pushers:
            pusher.close()
        if push.health(address):
            push.request(address, "DELETE", "/")
