"""Lines of metrics and events and sample pictures are written in their order, and no round waits for them."""

import logging
import threading

from ganrun.run_folder.run_folder import RunFolder
from ganrun.worker.line_writer import LineWriter
from tests.waiting import WAIT, until
from tests.worker.writing import content, quiet_lines


def test_lines_of_a_file_are_written_together_and_in_order(storage, lines):
    for number in range(50):
        lines.add("metrics/a.jsonl", {"number": number})
        lines.add("events/b.jsonl", {"number": -number})
    assert storage.calls == []
    lines.flush()
    assert sorted(storage.calls) == [("append", "events/b.jsonl"), ("append", "metrics/a.jsonl")]
    assert content(storage, "metrics/a.jsonl") == [{"number": number} for number in range(50)]
    assert content(storage, "events/b.jsonl") == [{"number": -number} for number in range(50)]


def test_a_flush_writes_nothing_twice(storage, lines):
    lines.add("a.jsonl", {"number": 1})
    for _ in range(3):
        lines.flush()
    lines.add("a.jsonl", {"number": 2})
    lines.flush()
    assert content(storage, "a.jsonl") == [{"number": 1}, {"number": 2}]


def test_an_urgent_line_takes_those_before_it_along(storage, lines):
    lines.add("a.jsonl", {"number": 1})
    lines.add("a.jsonl", {"number": 2}, soon=True)
    until(lambda: len(content(storage, "a.jsonl")) == 2)


def test_a_line_waits_for_a_moment_where_files_can_grow(storage):
    lines = LineWriter(RunFolder(storage))
    lines.add("a.jsonl", {"number": 1})
    until(lambda: content(storage, "a.jsonl"))
    lines.close()


def test_close_writes_the_last(storage):
    lines = quiet_lines(storage)
    lines.add("a.jsonl", {"number": 1})
    lines.picture("samples/1.png", b"png")
    lines.close()
    assert content(storage, "a.jsonl") == [{"number": 1}]
    assert storage.read("samples/1.png") == b"png"
    assert not lines._thread.is_alive()


def test_adding_never_waits_for_the_storage(storage, lines):
    storage.free.clear()
    lines.add("a.jsonl", {"number": 0}, soon=True)
    assert storage.began.acquire(timeout=WAIT)
    for number in range(1, 30):
        lines.add("a.jsonl", {"number": number}, soon=True)
        lines.picture(f"samples/{number}.png", b"png")
    storage.free.set()
    until(lambda: content(storage, "a.jsonl") == [{"number": number} for number in range(30)])


def test_lines_stay_in_order_whoever_flushes(storage, lines):
    """The thread of the lines and that of the checkpoints both write."""
    stop = threading.Event()

    def flush():
        while not stop.is_set():
            lines.flush()

    others = [threading.Thread(target=flush) for _ in range(3)]
    for each in others:
        each.start()
    for number in range(300):
        lines.add("a.jsonl", {"number": number}, soon=number % 7 == 0)
    stop.set()
    for each in others:
        each.join(WAIT)
    lines.flush()
    assert content(storage, "a.jsonl") == [{"number": number} for number in range(300)]


def test_a_line_that_cannot_be_written_is_said_and_comes_later(storage, lines, caplog):
    storage.faults = {"a.jsonl": 1}
    with caplog.at_level(logging.WARNING):
        lines.add("a.jsonl", {"number": 1})
        lines.add("b.jsonl", {"number": 1})
        lines.flush()
    assert [record.getMessage() for record in caplog.records] == ["a.jsonl could not be written: Input/output error"]
    lines.flush()
    assert content(storage, "b.jsonl") == [{"number": 1}]
    lines.add("a.jsonl", {"number": 2}, soon=True)
    until(lambda: content(storage, "a.jsonl") == [{"number": 1}, {"number": 2}])


def test_a_storage_that_is_away_is_asked_once_at_a_time(storage, lines):
    """Each time costs all of run.patience_seconds; a run that ends must not wait for every picture in turn."""
    for number in range(5):
        lines.add(f"{number}.jsonl", {})
        lines.picture(f"{number}.png", b"png")
    storage.faults = {".": 2}
    for _ in range(2):
        before = sum(storage.faults.values())
        lines.flush()
        assert sum(storage.faults.values()) == before - 1
    lines.flush()
    assert storage.list() == sorted(f"{number}.{kind}" for number in range(5) for kind in ("jsonl", "png"))


def test_of_many_pictures_the_newest_eight_wait(storage, lines):
    for number in range(24):
        lines.picture(f"{number:02d}.png", bytes([number]))
    lines.flush()
    assert storage.list() == [f"{number:02d}.png" for number in range(16, 24)]


def test_a_picture_that_cannot_be_written_comes_later(storage, lines):
    storage.faults = {"1.png": 1}
    lines.picture("1.png", b"png")
    lines.flush()
    assert storage.list() == []
    lines.flush()
    assert storage.read("1.png") == b"png"


def test_of_two_pictures_of_one_name_the_newer_is_written(storage, lines):
    lines.picture("1.png", b"older")
    storage.free.clear()
    storage.faults = {"1.png": 1}
    flush = threading.Thread(target=lines.flush)
    flush.start()
    assert storage.began.acquire(timeout=WAIT)
    lines.picture("1.png", b"newer")
    storage.free.set()
    flush.join(WAIT)
    lines.flush()
    assert storage.read("1.png") == b"newer"


def test_a_picture_that_cannot_be_written_is_older_than_eight_others(storage, lines):
    storage.faults = {"00.png": 1}
    lines.picture("00.png", b"png")
    lines.flush()
    for number in range(1, 9):
        lines.picture(f"{number:02d}.png", b"png")
    lines.flush()
    assert storage.list() == [f"{number:02d}.png" for number in range(1, 9)]
