"""Where a run's time went."""

import json

from ganrun.run_folder.time_breakdown import format_shares, time_breakdown, trials_time_breakdown
from ganrun.storage import Folder
from tests.run_folder.making import event


def at(time, kind, **fields):
    return event(kind, time=time, **fields)


def tick(time, images, **parts):
    return {"time": time, "images": images} | {f"seconds/{name}": seconds for name, seconds in parts.items()}


def test_it_is_that_of_all_parts_while_the_workers_were_up():
    events = [at(100, "attempt"), at(110, "start"), at(150, "stop", spent={"round": 3, "checkpoint": 2})]
    curve = [tick(132, 100, round=10, score=2), tick(142, 200, round=9, data=1)]
    first = {"round": 22, "score": 2, "data": 1, "checkpoint": 2, "other": 13}
    assert time_breakdown(curve, events) == first
    # Down for 1,000 s, and 10 s of starting.
    events += [at(1130, "died"), at(1140, "attempt"), at(1150, "start")]
    curve += [tick(1170, 300, round=18, score=2)]
    spent = time_breakdown(curve, events)
    assert spent == first | {"round": 40, "score": 4}
    assert format_shares(spent) == "round 66.7%, other 21.7%, score 6.7%, checkpoint 3.3%, data 1.7%"


def test_what_was_given_up_is_no_time_of_rounds():
    events = [at(0, "attempt"), at(0, "start"), at(31, "attempt"), at(33, "exploit"), at(43, "finish")]
    assert time_breakdown([tick(10, 100, round=10), tick(43, 200, round=10)], events) == {"round": 20, "other": 23}


def test_before_a_tick_there_is_none():
    assert time_breakdown([], [at(0, "start")]) == {}


def test_a_search_has_that_of_all_its_trials(tmp_path):
    storage = Folder(str(tmp_path / "search"))
    for trial, seconds in (("00", 20), ("01", 40)):
        events = [at(0, "start"), at(seconds, "stop")]
        lines = {"events/0001.jsonl": [each.to_line() for each in events]}
        lines["metrics/0001-000000000000.jsonl"] = [tick(10, 100, round=10)]
        for name, found in lines.items():
            storage.write(f"trials/{trial}/{name}", "".join(json.dumps(line) + "\n" for line in found).encode())
    assert trials_time_breakdown(storage) == {"round": 20, "other": 40}
