"""Where a run's time went."""

import json

import pytest

from ganrun.records.spent import Spent, spent
from ganrun.storage import Folder


@pytest.fixture
def storage(tmp_path):
    return Folder(str(tmp_path / "run"))


def write(storage, name, *lines):
    storage.write(name, "".join(json.dumps(line) + "\n" for line in lines).encode())


def event(time, kind):
    return {"time": time, "kind": kind}


def tick(time, images, rate):
    return {"time": time, "images": images, "images_per_second": rate}


def score(time, images, seconds):
    return {"time": time, "images": images, "frechet_distance": 1.0, "score_seconds": seconds}


def test_it_is_that_of_rounds_and_scores_while_the_workers_were_up(storage):
    write(storage, "events/0001.jsonl", event(100, "attempt"), event(110, "start"), event(150, "stop"))
    write(storage, "metrics/0001-000000000000.jsonl", score(112, 0, 2), tick(132, 100, 10), tick(142, 200, 10))
    assert spent(storage) == Spent(40, 20, 2)
    # Down for 1,000 s, and 10 s of starting.
    write(storage, "events/0002.jsonl", event(1140, "attempt"), event(1150, "start"))
    write(storage, "metrics/0002-000000000200.jsonl", tick(1160, 300, 20), score(1170, 300, 7))
    assert spent(storage) == Spent(60, 25, 9)
    assert spent(storage).words() == "41.7 % rounds, 15.0 % scores, 43.3 % other"


def test_what_was_given_up_is_no_time_of_rounds(storage):
    write(storage, "events/0001.jsonl", event(0, "attempt"), event(0, "start"))
    write(storage, "metrics/0001-000000000000.jsonl", tick(10, 100, 10), tick(20, 200, 10), tick(30, 300, 10))
    write(storage, "events/0002.jsonl", event(31, "attempt"), event(33, "exploit"), event(43, "finish"))
    write(storage, "metrics/0002-000000000100.jsonl", tick(43, 200, 10))
    assert spent(storage) == Spent(43, 20, 0)


def test_a_search_has_that_of_all_its_trials_and_a_run_without_a_tick_none(storage):
    assert spent(storage) is None
    for trial, seconds in (("00", 20), ("01", 40)):
        write(storage, f"trials/{trial}/events/0001.jsonl", event(0, "start"), event(seconds, "stop"))
        write(storage, f"trials/{trial}/metrics/0001-000000000000.jsonl", tick(10, 100, 10))
    assert spent(storage) == Spent(60, 20, 0)
