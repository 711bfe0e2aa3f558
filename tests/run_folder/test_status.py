"""A run's state and its curve, read from real run folders."""

import json
import shutil
from dataclasses import replace
from datetime import datetime

import pytest

from ganrun.errors import RunError, UserError
from ganrun.run_folder.curve import read_curve, read_events
from ganrun.run_folder.report import describe_run, format_bytes, format_duration, table
from ganrun.run_folder.status import RunStatus, ScorePoint, live_holder, read_status
from ganrun.storage import Folder
from tests.run_folder.making import CRASHED, SAVED, TICK, TOTAL, event, make_runs, write_lease


@pytest.fixture(scope="module")
def made(data_folder):
    return make_runs(data_folder)


@pytest.fixture
def runs(made, tmp_path):
    return shutil.copytree(made, tmp_path / "runs")


def add_events(run, *events):
    with (run / "events/0001.jsonl").open("a") as file:
        file.write("".join(json.dumps(each.to_line()) + "\n" for each in events))


def read(path) -> RunStatus:
    return read_status(Folder(path))


def test_the_states(runs):
    write_lease(runs / "crashed", 50)
    states = {path.name: read(path).state for path in runs.iterdir() if path.name not in ("new", ".statistics")}
    assert states == {"finished": "finished", "resumed": "finished", "crashed": "running"}
    write_lease(runs / "crashed", -1)
    assert read(runs / "crashed").state == "failed"


def test_a_run_is_stopped_after_a_stop_and_after_its_total_was_raised(runs):
    with (runs / "crashed/events/0001.jsonl").open("a") as events:
        events.write(json.dumps({"time": 1.0, "kind": "stop", "images": SAVED}) + "\n")
    config = runs / "finished/config.yaml"
    config.write_text(config.read_text().replace(f"total_images: {TOTAL}", "total_images: 999"))
    assert [read(runs / name).state for name in ("crashed", "finished")] == ["stopped", "stopped"]


def test_a_run_that_never_started_is_one_where_its_config_says_it_is(made, runs):
    assert read(made / "new").state == "never started"
    with pytest.raises(UserError, match=r"is no run: it has no events, and its config\.yaml is of a run at"):
        read(runs / "new")


def test_a_finished_run(made):
    run = read(made / "finished")
    assert (run.name, run.images, run.total_images, run.lease, run.faults) == ("finished", TOTAL, TOTAL, None, ())
    assert run.latest.checkpoint == f"{TOTAL:012d}-0001"
    assert run.latest.time == (made / f"finished/checkpoints/{TOTAL:012d}-0001/manifest.json").stat().st_mtime
    curve = [json.loads(line) for line in (made / f"finished/metrics/0001-{0:012d}.jsonl").read_text().splitlines()]
    scores = [ScorePoint(line["images"], line["frechet_distance"]) for line in curve if "frechet_distance" in line]
    assert run.last_score == scores[-1]
    assert run.best_score == min(scores, key=lambda score: score.value)
    assert run.images_per_second == curve[-2]["images_per_second"]
    assert run.picture == f"{made}/finished/samples/{TOTAL:012d}.png"
    assert run.bytes == sum(path.stat().st_size for path in (made / "finished").rglob("*") if path.is_file())


def test_only_a_live_run_counts_images_beyond_its_checkpoint(runs):
    assert read(runs / "crashed").images == SAVED
    write_lease(runs / "crashed", 50)
    assert read(runs / "crashed").images == SAVED + TICK


def test_starts_after_failures_are_told_from_those_after_stops(runs):
    attempts = read(runs / "resumed").attempts
    assert (attempts.starts, attempts.resumed, attempts.restarted, attempts.workers) == (2, 0, 1, 1)
    with (runs / "resumed/events/0001.jsonl").open("a") as events:
        events.write(json.dumps({"time": 1.0, "kind": "stop", "images": SAVED}) + "\n")
    attempts = read(runs / "resumed").attempts
    assert (attempts.resumed, attempts.restarted) == (1, 0)


def test_starts_that_were_planned_are_no_failures(runs):
    with (runs / "crashed/events/0002.jsonl").open("w") as events:
        for each in (
            event("attempt"),
            event("start", workers=3, reason="resize"),
            event("resize", message="2 workers became 3"),
        ):
            events.write(json.dumps(each.to_line()) + "\n")
    run = read(runs / "crashed")
    assert (run.attempts.starts, run.attempts.restarted, run.attempts.moved, run.attempts.workers) == (2, 0, 1, 3)
    text = describe_run(run, 2.0)
    assert "2: 0 after a stop, 0 after a failure, 1 to move or resize" in text
    assert "2 workers became 3" in text


def test_failures_are_noted_with_the_checkpoints_that_a_start_found_corrupt(runs):
    events = runs / "crashed/events/0001.jsonl"
    start = next(line for line in map(json.loads, events.read_text().splitlines()) if line["kind"] == "start")
    failed = {"time": start["time"] + 1, "kind": "checkpoint_failed", "images": 48, "message": "disk full"}
    rollback = event("rollback", time=start["time"] + 2, rollback_count=1, message="rolled back to 0 images").to_line()
    rollback["generation"] = rollback.pop("rollback_count")  # As format 1 called it.
    lines = [start | {"damaged": ["a.safetensors is corrupt"]}, failed, rollback]
    events.write_text("\n".join(map(json.dumps, lines)))
    run = read(runs / "crashed")
    assert [note["kind"] for note in run.notes] == ["checkpoint_damaged", "checkpoint_failed", "rollback"]
    text = describe_run(run, start["time"])
    assert "a.safetensors is corrupt" in text
    assert "disk full" in text
    assert "rolled back to 0 images" in text


def test_events_that_repeat_are_one_note_with_a_count(runs):
    failed = [event("checkpoint_failed", time=5.0 + at, message=f"{at:012d}-0001: disk full") for at in range(9)]
    dropped = [event("checkpoint_dropped", time=1_000.0 * at, images=60 * at) for at in range(1, 41)]
    other = event("checkpoint_failed", time=2_000.0, message="000000000060-0001: no right to write it")
    add_events(runs / "crashed", *failed, *dropped, other)
    text = describe_run(read(runs / "crashed"), 0)
    notes = [line.split(maxsplit=3)[3] for line in text.splitlines() if line.startswith("  note")]
    clock = [datetime.fromtimestamp(time).strftime("%Y-%m-%d %H:%M:%S") for time in (5.0, 1_000.0)]
    assert notes == [
        f"{8:012d}-0001: disk full (9 times since {clock[0]})",
        "000000000060-0001: no right to write it",
        f"checkpoint dropped (images: 2400) (40 times since {clock[1]})",
    ]
    counts = [(note["kind"], note["time"], note["count"]) for note in read(runs / "crashed").notes]
    assert counts[0] == ("checkpoint_failed", 13.0, 9)
    assert counts[2] == ("checkpoint_dropped", 40_000.0, 40)


def test_an_event_that_lacks_a_field_is_said_and_passed_over(runs):
    with (runs / "crashed/events/0001.jsonl").open("a") as events:
        events.write('{"time": 1.0, "kind": "checkpoint_failed"}\n{"time": 1.0, "kind": "of a newer ganrun"}\n')
    run = read(runs / "crashed")
    assert [fault.partition("jsonl: ")[2] for fault in run.faults] == [
        "a line of kind 'checkpoint_failed' lacks fields; it is skipped"
    ]
    assert run.notes == ()


def test_only_a_gan_has_the_loss_of_one(runs):
    run = read(runs / "finished")
    assert "  game        gan with non_saturating loss\n" in describe_run(run, 0)
    run.config["objective"]["game"] = "vae"
    assert "  game        vae\n" in describe_run(run, 0)


def test_a_lease_is_alive_until_it_expires(runs):
    write_lease(runs / "crashed", 50)
    holder = live_holder(Folder(runs / "crashed"))
    assert holder is not None
    assert holder.holder == "process 7 on far"
    write_lease(runs / "crashed", -1)
    assert live_holder(Folder(runs / "crashed")) is None


def test_a_run_of_another_version_is_still_read(runs):
    config = runs / "finished/config.yaml"
    config.write_text(config.read_text().replace("latent_size:", "size_of_noise:"))
    assert read(runs / "finished").state == "finished"


@pytest.mark.parametrize("text", ["train: {total_images: 3}", "[1, 2]", "", "run: 3", "run: {name: a, storage: b}"])
def test_what_is_no_run_is_refused(tmp_path, text):
    with pytest.raises(UserError, match=r"is no run: there is no config\.yaml"):
        read(tmp_path)
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(UserError, match=r"is no run: its config\.yaml is not that of one"):
        read(tmp_path)


@pytest.mark.parametrize("name", ["config.yaml", "latest.json"])
def test_a_corrupt_run_is_said_to_be_so(runs, name):
    (runs / "finished" / name).write_text('{"cut')
    with pytest.raises(RunError, match=f"{name}.* is corrupt"):
        read(runs / "finished")


# The curve.


def losses(path):
    curve, faults = read_curve(Folder(path))
    assert not faults
    return [(line["images"], line.get("loss/generator"), line.get("frechet_distance")) for line in curve]


def test_the_curve_of_a_run_that_crashed_is_that_of_one_that_did_not(made):
    first = (made / f"resumed/metrics/0001-{0:012d}.jsonl").read_text()
    assert f'{{"images": {SAVED + TICK},' in first
    assert SAVED + TICK < CRASHED
    assert losses(made / "resumed") == losses(made / "finished")
    assert len(losses(made / "finished")) == TOTAL // TICK + 2


def test_a_run_that_began_anew_has_the_curve_of_its_last_beginning(runs):
    metrics = runs / "finished/metrics"
    (metrics / f"0002-{0:012d}.jsonl").write_text('{"images": 0, "time": 9.0, "frechet_distance": 1.0}\n')
    assert losses(runs / "finished") == [(0, None, 1.0)]


def test_a_line_that_was_cut_off_is_passed_over_and_said(runs):
    metrics = runs / f"crashed/metrics/0001-{0:012d}.jsonl"
    whole = metrics.read_bytes()
    metrics.write_bytes(whole[:-10])
    curve, faults = read_curve(Folder(runs / "crashed"))
    count = whole.count(b"\n")
    assert len(curve) == count - 1
    assert [fault.partition(" is corrupt")[0] for fault in faults] == [f"{metrics}: line {count}"]
    (runs / "crashed/events/0001.jsonl").write_bytes(b'\0\0\0\n[]\n{"time": 1.0}\n')
    assert [len(found) for found in read_events(Folder(runs / "crashed"))] == [0, 3]
    assert len(read(runs / "crashed").faults) == 4


def test_what_is_not_finite_is_null(runs):
    (runs / f"finished/metrics/0002-{TOTAL:012d}.jsonl").write_text(
        '{"images": 130, "time": 9.0, "frechet_distance": NaN}\n'
    )
    assert losses(runs / "finished")[-1] == (130, None, None)
    assert read(runs / "finished").last_score.images == TOTAL


# The words.


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (90_000, "88 KiB"),
        (1023 * 1024, "1.0 MiB"),
        (5 << 40, "5.0 TiB"),
    ],
)
def test_sizes(count, text):
    assert format_bytes(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(-3, "0 s"), (90, "90 s"), (600, "10 min"), (9000, "2 h"), (200_000, "2 days")]
)
def test_spans(seconds, text):
    assert format_duration(seconds) == text


def test_the_table_lines_up(made):
    finished, crashed = read(made / "finished"), read(made / "crashed")
    heading, first, second = table([finished, crashed], finished.latest.time + 600).splitlines()
    assert len(heading) == len(first) == len(second)
    assert heading.split()[:2] == ["NAME", "STATE"]
    assert first.startswith("finished  finished  120 of 120  100 %")
    assert "10 min ago" in first
    assert second.startswith("crashed   failed     48 of 120   40 %")


def test_the_paragraph_tells_how_to_go_on(made, runs):
    crashed = describe_run(read(made / "crashed"), 0)
    assert "none" not in crashed.lower()
    assert f"resume      ganrun train {made}/crashed/config.yaml\n" in crashed + "\n"
    moved = describe_run(read(runs / "crashed"), 0)
    assert f"{runs}/crashed/config.yaml run.storage={runs} run.name=crashed" in moved
    assert f"train.total_images={2 * TOTAL}" in describe_run(read(made / "finished"), 0)


def test_the_paragraph_of_a_live_run(runs):
    write_lease(runs / "crashed", 50)
    run = read(runs / "crashed")
    text = describe_run(run, run.attempts.time + 300)
    assert text.startswith(f"crashed: running, 72 of {TOTAL} images (60 %)")
    assert "on 1 worker since" in text
    assert "(5 min)" in text
    assert "held by process 7 on far until" in text
    assert "resume" not in text


def test_a_run_says_where_its_time_went(runs):
    run = read(runs / "finished")
    assert run.spent.keys() == {"round", "data", "score", "checkpoint", "samples", "telemetry", "other"}
    curve, _ = read_curve(Folder(runs / "finished"))
    assert run.spent["round"] > sum(
        line.get("seconds/round", 0) for line in curve
    )  # With what came after the last tick.
    text = describe_run(replace(run, spent={"score": 1.0, "round": 3.0}), 0)
    assert "  time        round 75.0%, score 25.0%" in text
