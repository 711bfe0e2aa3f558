"""The sidecar over real HTTP: what it takes, what it refuses, for how long it knows it."""

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading

import pytest
from prometheus_client.parser import text_string_to_metric_families

from ganrun.telemetry import push
from ganrun.telemetry.http_server import BoundedHandler, BoundedServer, RefusedError
from ganrun.telemetry.protocol import Address
from ganrun.telemetry.series import SERIES
from ganrun.telemetry.sidecar import runs as limits
from ganrun.telemetry.sidecar.health import words
from ganrun.telemetry.sidecar.runs import Runs, parse
from ganrun.telemetry.sidecar.server import Server
from tests.waiting import WAIT, until

PUSH, PART_BYTES = "/push/v1", 2**20


class Clock:
    now = 1_000.0

    def __call__(self):
        return self.now


def report(run="a", series=(), **fields):
    return {"run": run, "trial": "", "interval": 5, "place": f"runs/{run}", "series": list(series), **fields}


def body(*arguments, **fields):
    return json.dumps(report(*arguments, **fields)).encode()


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """Who asks waits for the answer of a busy machine, too."""
    for seconds in ("WAIT_SECONDS", "REQUEST_SECONDS"):
        monkeypatch.setattr(push, seconds, WAIT)


@pytest.fixture
def sidecar():
    """A server of this process, its runs and their clock."""
    clock = Clock()
    server = Server(Address("127.0.0.1", 0), Runs(clock), "")
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    server.clock = clock
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def ask(server, method, path, data=None, kind="application/json"):
    return push.request(Address("127.0.0.1", server.port), method, path, data, kind)


def metrics(server):
    """{(name, labels): value} of /metrics."""
    text = ask(server, "GET", "/metrics")[1].decode()
    families = text_string_to_metric_families(text)
    return {(each.name, tuple(sorted(each.labels.items()))): each.value for one in families for each in one.samples}


def labelled(run, **labels):
    return tuple(sorted({"run": run, "trial": "", **labels}.items()))


def test_every_series_of_the_table_reaches_prometheus(sidecar):
    series = [
        [each.name, dict.fromkeys(each.labels, "x"), number] for number, each in enumerate(SERIES) if each.name != "up"
    ]
    assert ask(sidecar, "POST", PUSH, body(series=series)) == (200, b'{"want": []}')
    expected = {(f"ganrun_{name}", labelled("a", **labels)): value for name, labels, value in series}
    expected |= {("ganrun_up", labelled("a")): 1, ("ganrun_up", ()): 1}
    assert metrics(sidecar) == expected
    assert all(each.name.endswith("_total") == (each.kind == "counter") for each in SERIES)


def test_several_runs_and_trials_stand_beside_each_other(sidecar):
    for run, trial in (("a", ""), ("b", "0"), ("b", "1")):
        data = json.dumps(report(run, [["images", {}, 5]]) | {"trial": trial}).encode()
        assert ask(sidecar, "POST", PUSH, data)[0] == 200
    found = {labels for name, labels in metrics(sidecar) if name == "ganrun_images"}
    assert found == {(("run", run), ("trial", trial)) for run, trial in (("a", ""), ("b", "0"), ("b", "1"))}


def test_a_search_and_its_trials_stand_together_in_the_order_of_their_names(sidecar):
    pushed = [
        ("a", "", None),
        ("b", "01", "failed"),
        ("c", "", "finished"),
        ("b", "00", None),
        ("d", "", None),
        ("b", "", None),
    ]
    for run, trial, ending in pushed:
        sidecar.clock.now += 1
        ask(sidecar, "POST", PUSH, json.dumps(report(run, ending=ending) | {"trial": trial}).encode())
    runs = json.loads(ask(sidecar, "GET", "/runs")[1])["runs"]
    names = [run["run"] + run["trial"] for run in runs]
    assert names == ["b", "b00", "b01", "d", "a", "c"]  # The newest first, and after all that are not over.


def test_a_silent_run_is_down_and_an_ended_one_goes_after_its_time(sidecar):
    ask(sidecar, "POST", PUSH, body("a", [["images", {}, 5]]))
    ask(sidecar, "POST", PUSH, body("b", [["images", {}, 7]], ending="finished"))
    up = [metrics(sidecar)["ganrun_up", labelled(run)] for run in "ab"]
    assert up == [1, 0]
    sidecar.clock.now += 21
    assert metrics(sidecar)["ganrun_up", labelled("a")] == 0
    assert json.loads(ask(sidecar, "GET", "/runs")[1])["runs"][0]["state"] == "silent"
    sidecar.clock.now += 300
    assert metrics(sidecar)["ganrun_images", labelled("b")] == 7  # At least 5 minutes after its end.
    sidecar.clock.now += 578
    assert ("ganrun_images", labelled("b")) in metrics(sidecar)
    sidecar.clock.now += 2  # 15 minutes are over.
    assert metrics(sidecar) == {("ganrun_up", ()): 1}
    assert len(json.loads(ask(sidecar, "GET", "/runs")[1])["runs"]) == 2  # The page remembers a night's run.
    sidecar.clock.now += 7 * 86_400 - 902
    assert len(json.loads(ask(sidecar, "GET", "/runs")[1])["runs"]) == 2
    sidecar.clock.now += 2  # So are 7 days.
    assert json.loads(ask(sidecar, "GET", "/runs")[1])["runs"] == []


def test_what_a_newer_run_adds_is_passed_over_and_another_version_is_refused_clearly(sidecar):
    newer = body(series=[["images", {"new": "x"}, 5], ["brand_new", {}, 1], ["kid", {}, 1, "more"]], news=1)
    assert ask(sidecar, "POST", PUSH, newer)[0] == 200
    assert {name for name, _ in metrics(sidecar)} == {"ganrun_images", "ganrun_kid", "ganrun_up"}
    status, answer = ask(sidecar, "POST", "/push/v2", newer)
    assert status == 404
    assert "this sidecar takes /push/v1 and not /push/v2" in json.loads(answer)["error"]


def kind_of(part):
    return "application/json" if part == "curve" else "image/png"


def test_parts_are_asked_for_when_they_are_new(sidecar):
    push_it = lambda parts: json.loads(ask(sidecar, "POST", PUSH, body(parts=parts))[1])["want"]  # noqa: E731
    put = lambda part, digest, data: ask(  # noqa: E731
        sidecar, "PUT", f"{PUSH}/part?run=a&trial=&part={part}&digest={digest}", data, kind_of(part)
    )[0]
    assert push_it({"curve": "1", "first": "2"}) == ["curve", "first"]
    assert put("curve", "1", b'[{"images": 5, "time": 7, "loss/generator": 1.5}]') == 204
    assert push_it({"curve": "1", "first": "2"}) == ["first"]
    assert put("first", "2", b"PNG") == 204
    assert push_it({"curve": "1", "first": "2"}) == []
    assert push_it({"curve": "3", "first": "2"}) == ["curve"]
    assert ask(sidecar, "GET", "/part?run=a&trial=&part=first")[1] == b"PNG"
    assert put("latest", "9", b"nobody asked") == 404
    for wrong in (b"{", b"[1]", b'[{"images": 1, "time": NaN}]', b'[{"images": 1}]', b'[{"time": "x", "images": 1}]'):
        assert put("curve", "3", wrong) == 400


@pytest.mark.parametrize(
    ("data", "status", "why"),
    [
        (b"", 400, "not the state of a run"),
        (b"[]", 400, "not the state of a run"),
        (b"[" * 100_000, 400, "not the state of a run"),
        (b'{"run": "a"}', 400, "not the state of a run"),
        (body("../a"), 400, "letters, digits"),
        (body("a" * 101), 400, "letters, digits"),
        (body(series=[["rank_round_seconds", {"rank": str(r)}, 1] for r in range(4_001)]), 413, "at most"),
        (b" " * 256 * 2**10, 400, "not the state of a run"),
        (b" " * (256 * 2**10 + 1), 413, "at most"),
    ],
)
def test_what_is_no_state_is_refused(sidecar, data, status, why):
    found, answer = ask(sidecar, "POST", PUSH, data)
    assert (found, why in json.loads(answer)["error"]) == (status, True)
    assert metrics(sidecar) == {("ganrun_up", ()): 1}


def test_as_many_samples_as_1900_gpus_have_are_taken():
    assert (
        len(parse(body(series=[["rank_round_seconds", {"rank": str(rank)}, 1] for rank in range(4_000)])).samples)
        == 4_000
    )


def test_label_values_and_samples_that_are_not_in_order_are_left_out():
    series = [["logit", {"side": "x" * 101}, 1], ["logit", {"side": 5}, 1], ["logit", {}, 1], ["images", {}, "5"]]
    assert parse(body(series=[*series, [5, {}, 1], ["up", {}, 1]])).samples == []


def test_a_page_of_another_site_cannot_push(sidecar):
    assert ask(sidecar, "POST", PUSH, body(), kind="text/plain")[0] == 415


def test_numbers_of_runs_and_bytes_are_bounded_and_those_that_are_over_make_room(monkeypatch):
    clock = Clock()
    runs = Runs(clock)
    for number in range(100):
        runs.push(body(f"r{number}"))
    with pytest.raises(RefusedError, match="100 runs at once"):
        runs.push(body("more"))
    clock.now += 1
    runs.push(body("r7", ending="finished"))
    runs.push(body("more"))
    assert {"more"} == {run.name for run in runs.known()} - {f"r{number}" for number in range(100)}
    assert "r7" not in {run.name for run in runs.known()}

    monkeypatch.setattr(limits, "ALL_PARTS_BYTES", 2 * PART_BYTES)
    for run in ("r1", "r2"):
        assert runs.push(body(run, parts={"latest": "1"})) == ["latest"]
        runs.put_part(run, "", "latest", "1", bytes(PART_BYTES))
    assert runs.push(body("r3", parts={"latest": "1"})) == []
    runs.push(body("r1", parts={"latest": "1"}, ending="failed"))
    assert runs.push(body("r3", parts={"latest": "1"})) == ["latest"]
    assert runs.part("r1", "", "latest") is None


def test_two_runs_of_one_name_do_not_mix(sidecar):
    assert ask(sidecar, "POST", PUSH, body("a"))[0] == 200
    status, answer = ask(sidecar, "POST", PUSH, body("a").replace(b"runs/a", b"elsewhere/a"))
    assert status == 409
    assert "choose another run.name" in json.loads(answer)["error"]
    sidecar.clock.now += 60
    assert ask(sidecar, "POST", PUSH, body("a").replace(b"runs/a", b"elsewhere/a"))[0] == 200


def test_pushes_need_the_token_where_there_is_one(sidecar, monkeypatch):
    sidecar.token = "secret"
    assert ask(sidecar, "POST", PUSH, body())[0] == 401
    assert ask(sidecar, "DELETE", "/")[0] == 401
    monkeypatch.setenv("GANRUN_SIDECAR_TOKEN", "secret")
    assert ask(sidecar, "POST", PUSH, body())[0] == 200
    monkeypatch.delenv("GANRUN_SIDECAR_TOKEN")
    assert b"secret" not in ask(sidecar, "GET", "/metrics")[1] + ask(sidecar, "GET", "/runs")[1]


def test_who_trickles_is_cut_off_and_others_are_served(sidecar, monkeypatch):
    monkeypatch.setattr(BoundedServer, "connection_seconds", WAIT)
    monkeypatch.setattr(BoundedHandler, "timeout", WAIT)
    with Plugs(sidecar.port, 5) as plugs:
        for plug in plugs:
            plug.sendall(b"POST /push/v1 HTTP/1.1\r\nContent-Length: 1000\r\n\r\n{")
        assert ask(sidecar, "GET", "/healthz")[0] == 200
        assert len(sidecar._open) >= 5
        monkeypatch.setattr(BoundedServer, "connection_seconds", 0.3)
        until(lambda: trickle(plugs) or not sidecar._open)


def trickle(plugs):
    for plug in plugs:
        with contextlib.suppress(OSError):
            plug.sendall(b" ")


def test_so_many_connections_and_no_more(sidecar, monkeypatch):
    monkeypatch.setattr(BoundedServer, "connection_seconds", WAIT)
    monkeypatch.setattr(BoundedHandler, "timeout", WAIT)
    with Plugs(sidecar.port, 32) as plugs:
        until(lambda: len(sidecar._open) == 32)
        with pytest.raises((OSError, http.client.HTTPException)):
            ask(sidecar, "GET", "/healthz")
        for plug in plugs:
            plug.close()
    until(lambda: not sidecar._open)
    assert ask(sidecar, "GET", "/healthz")[0] == 200


class Plugs:
    def __init__(self, port, count):
        self.plugs = [socket.create_connection(("127.0.0.1", port)) for _ in range(count)]

    def __enter__(self):
        return self.plugs

    def __exit__(self, *_):
        for plug in self.plugs:
            plug.close()


@pytest.mark.parametrize(
    ("series", "fields", "level", "said"),
    [
        ([], {}, "good", "Waiting for Ray"),
        ([["workers", {}, 2]], {}, "good", "Running."),
        ([["trials", {"state": "running"}, 2], ["trials", {"state": "failed"}, 0]], {}, "good", "trials: 2 running."),
        ([], {"ending": "finished"}, "good", "Finished"),
        ([], {"ending": "failed", "notes": [{"time": 1, "text": "disk full"}]}, "bad", "failed: disk full"),
        ([["data_wait_ratio", {}, 0.5]], {}, "warning", "50% of the time goes into waiting for data"),
        ([["nonfinite_total", {}, 3]], {}, "warning", "not finite: 3"),
        ([["rollbacks_total", {}, 2]], {}, "warning", "Rolled back to a checkpoint 2 times"),
        ([["restarts_total", {"reason": "failure"}, 1]], {}, "warning", "after a failure once"),
        ([["checkpoint_failures_total", {}, 1]], {"unsaved": True}, "bad", "could not be written once"),
        ([["checkpoint_failures_total", {}, 1]], {}, "warning", "could not be written once"),
        (
            [["collapse_suspected", {"symptom": "gradient_vanished"}, 1]],
            {},
            "bad",
            "gradient vanished: the gradients of a player",
        ),
        ([["checkpoint_last_success_timestamp_seconds", {}, 5]], {}, "warning", "a crash would lose that much"),
        ([["rank_round_seconds", {"rank": str(r)}, 1 + 2 * (r == 2)] for r in range(3)], {}, "warning", "Rank 2 takes"),
    ],
)
def test_health_is_told_in_words_the_worst_first(series, fields, level, said):
    run = parse(body(series=series, **fields))
    first = words(run, run.heard + 1)[0]
    assert (first.level, said in first.text) == (level, True), first


def test_of_equal_ranks_none_is_slow():
    run = parse(body(series=[["rank_round_seconds", {"rank": str(rank)}, 1.2] for rank in range(4)]))
    assert not [word for word in words(run, run.heard) if "Rank" in word.text]


# The process.


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


def begin(port, *arguments, **environment):
    command = [sys.executable, "-m", "ganrun.sidecar", "--listen", f"127.0.0.1:{port}", *arguments]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | environment)


def test_one_process_is_there_however_many_begin_and_stop_ends_it():
    port = free_port()
    processes = [begin(port) for _ in range(3)]
    until(lambda: push.health(Address(port=port)))
    first = push.health(Address(port=port))
    said = {process.pid: process.communicate(timeout=WAIT)[1] for process in processes if process.pid != first["pid"]}
    assert [text.strip() for text in said.values()] == [f"a sidecar is at http://127.0.0.1:{port} already"] * 2
    stop = begin(port, "--stop")
    assert "ended" in stop.communicate(timeout=WAIT)[1]
    (last,) = [process for process in processes if process.pid == first["pid"]]
    assert last.wait(timeout=WAIT) == 0
    assert "no sidecar is at" in begin(port, "--stop").communicate(timeout=WAIT)[1]


@pytest.mark.parametrize(
    ("listen", "why"),
    [("0.0.0.0:1", "set GANRUN_SIDECAR_TOKEN"), ("9108", "is not ADDR:PORT"), ("127.0.0.1:x", "is not ADDR:PORT")],
)
def test_a_wrong_address_is_refused(listen, why):
    command = [sys.executable, "-m", "ganrun.sidecar", "--listen", listen]
    done = subprocess.run(command, capture_output=True, text=True, timeout=WAIT)
    assert (done.returncode, why in done.stderr) == (2, True), done.stderr


def test_a_port_that_something_else_has_is_named():
    with socket.create_server(("127.0.0.1", 0)) as other:
        process = begin(other.getsockname()[1])
        said = process.communicate(timeout=WAIT)[1]
    assert process.returncode == 1
    assert re.search(r"--listen: 127\.0\.0\.1:\d+: Address already in use; choose another port", said)


def runs_at(address):
    return json.loads(push.request(address, "GET", "/runs")[1])["runs"]


def test_killed_and_begun_again_it_has_its_state_back_within_one_push(values):
    from ganrun.telemetry.push import Pusher
    from tests.telemetry.test_push import heard

    port = free_port()
    address, state = Address(port=port), heard(values)
    pusher = None
    for kill in (signal.SIGKILL, signal.SIGTERM):
        process = begin(port)
        try:
            until(lambda: push.health(address))
            pusher = pusher or Pusher(state, address, False, 0.2, lambda text: None)
            until(lambda: [run for run in runs_at(address) if len(run["parts"]) == 3])
            (run,) = runs_at(address)
            assert run["parts"].keys() == {"curve", "first", "latest"}
            assert run["images"] == 120
        finally:
            process.send_signal(kill)
            process.wait()
    pusher.close()
