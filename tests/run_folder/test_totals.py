"""What a run's folder tells of its life so far."""

import json

from ganrun.run_folder.totals import read_history
from ganrun.storage import Folder
from tests.run_folder.making import event


def write_events(folder, attempt, *events):
    write(folder, f"events/{attempt:04d}.jsonl", *(each.to_line() for each in (event("attempt"), *events)))


def write(folder, name, *lines):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"time": 1.0, **line}) + "\n" for line in lines))


def test_a_new_run_has_none(tmp_path):
    assert read_history(Folder(tmp_path)).restart is None
    assert read_history(Folder(tmp_path)).totals == {}


def test_totals_are_sums_over_all_attempts_also_of_what_was_lost(tmp_path):
    tick = {"nonfinite": 1, "shard_bytes": 10, "shard_errors/timeout": 2, "loss/generator": 1.0}
    write(tmp_path, "metrics/0001-000000000000.jsonl", {"images": 60, **tick}, {"images": 120, **tick})
    write(
        tmp_path, "metrics/0002-000000000060.jsonl", {"images": 120, **tick}, {"images": 120, "frechet_distance": 5.0}
    )
    write(tmp_path, "metrics/0003-000000000120.jsonl")
    write_events(tmp_path, 1, event("start"), event("checkpoint_failed"))
    write_events(tmp_path, 2, event("rollback"), event("stop"))
    write_events(tmp_path, 3, event("start"))
    write_events(tmp_path, 4, event("start"))
    write_events(tmp_path, 5, event("start", reason="preemption"), event("resize"))
    (tmp_path / "samples").mkdir()
    (tmp_path / "samples/000000000000.png").write_bytes(b"PNG")
    found = read_history(Folder(tmp_path))
    assert found.totals == {
        "images": 120 + 60,
        "nonfinite": 3,
        "shard_bytes": 30,
        "shard_errors/timeout": 6,
        "checkpoint_failures": 1,
        "rollbacks": 1,
        "restarts/resume": 1,
        "restarts/failure": 1,
        "restarts/preemption": 1,
    }
    assert found.restart == "failure"
    assert [point["images"] for point in found.curve] == [60, 120, 120]
    assert found.curve[-1]["frechet_distance"] == 5.0
    assert found.picture == b"PNG"


def test_the_start_of_this_command_is_left_to_it(tmp_path):
    write(tmp_path, "metrics/0001-000000000000.jsonl")
    write_events(tmp_path, 1, event("start"), event("died"))
    found = read_history(Folder(tmp_path))
    assert (found.totals, found.restart) == ({}, "failure")
    write_events(tmp_path, 1, event("start"), event("died"), event("died"))
    found = read_history(Folder(tmp_path))
    assert (found.totals, found.restart) == ({"restarts/failure": 1}, "failure")
    write_events(tmp_path, 1, event("start"), event("stop"), event("died"))
    found = read_history(Folder(tmp_path))
    assert (found.totals, found.restart) == ({"restarts/failure": 1}, "resume")


def test_of_a_long_curve_so_many_points_come(tmp_path):
    write(tmp_path, "metrics/0001-000000000000.jsonl", *({"images": 60 * n, "loss/generator": 1.0} for n in range(999)))
    curve = read_history(Folder(tmp_path)).curve
    assert 200 <= len(curve) <= 400
    assert curve[-1]["images"] == 60 * 998
