"""Storage: whole objects, compare-and-set, lists."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from ganrun.errors import UserError
from ganrun.storage import Folder, check_rights, open_storage


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path / "place")


@pytest.fixture(params=["folder", "s3"])
def place(request, tmp_path):
    """Storage under test: a folder, and a prefix in a real bucket. Both must behave alike."""
    return Folder(tmp_path / "place") if request.param == "folder" else open_storage(request.getfixturevalue("s3"))


def race(count, job):
    """Run a job in `count` threads that start together; return their results."""
    barrier = Barrier(count)

    def run(number):
        barrier.wait()
        return job(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))


def test_what_was_written_is_read(place):
    place.write("a/b/c.bin", b"\0one")
    assert place.read("a/b/c.bin") == b"\0one"
    place.write("a/b/c.bin", b"two")
    assert place.read("a/b/c.bin") == b"two"


def test_nothing_there_is_said_so(place):
    with pytest.raises(FileNotFoundError):
        place.read("a")
    assert place.read_version("a") is None
    assert place.list("a") == []


@pytest.mark.parametrize("step", ["fsync", "chmod", "replace"])
def test_a_write_that_fails_leaves_the_old_bytes_and_no_part(folder, monkeypatch, step):
    folder.write("a/x", b"old")

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(OSError, match="disk full"):
        folder.write("a/x", b"new")
    monkeypatch.undo()
    assert folder.read("a/x") == b"old"
    assert os.listdir(folder.path / "a") == ["x"]


def test_a_crash_in_a_write_leaves_the_old_bytes(folder):
    folder.write("x", b"old")
    code = (
        "import os, sys; from ganrun.storage import Folder; os.replace = lambda *_: os._exit(9); "
        "Folder(sys.argv[1]).write('x', b'new')"
    )
    assert subprocess.run([sys.executable, "-c", code, folder.uri], check=False).returncode == 9
    assert folder.read("x") == b"old"
    assert folder.list() == ["x"]


def test_readers_see_the_old_bytes_or_the_new_ones(place):
    whole = [bytes([number]) * 100_000 for number in range(4)]
    place.write("x", whole[0])

    def work(number):
        if number == 0:
            for _ in range(10):
                for data in whole:
                    place.write("x", data)
            return []
        return [place.read("x") in whole for _ in range(200)]

    assert all(seen for result in race(4, work) for seen in result)


def test_append_adds_lines(place):
    place.append("log/a.jsonl", b"1\n")
    place.append("log/a.jsonl", b"2\n")
    assert place.read("log/a.jsonl") == b"1\n2\n"


def test_create_does_not_overwrite(place):
    assert place.create("x", b"first")
    assert not place.create("x", b"second")
    assert place.read("x") == b"first"


def test_replace_needs_the_version_that_is_there(place):
    assert not place.replace("x", b"new", "any")
    place.write("x", b"old")
    version = place.read_version("x")[1]
    assert place.replace("x", b"new", version)
    assert not place.replace("x", b"newer", version)
    assert place.read("x") == b"new"


def test_of_8_threads_that_create_one_wins(place):
    for turn in range(2):
        won = race(8, lambda number, turn=turn: place.create(f"x{turn}", b"%d" % number))
        assert sum(won) == 1
        assert place.read(f"x{turn}") == b"%d" % won.index(True)


def test_of_8_threads_that_replace_one_wins(place):
    place.write("x", b"begin")
    for _ in range(2):
        version = place.read_version("x")[1]
        won = race(8, lambda number, version=version: place.replace("x", os.urandom(8) + b"%d" % number, version))
        assert sum(won) == 1
        assert place.read("x")[8:] == b"%d" % won.index(True)


def test_no_step_is_lost_between_processes(place):
    """Each adds 1 by compare-and-set, again until it wins."""
    place.write("count", b"0")
    code = """
import sys
from ganrun.storage import open_storage
place = open_storage(sys.argv[1])
for _ in range(25):
    while True:
        data, version = place.read_version("count")
        if place.replace("count", b"%d" % (int(data) + 1), version):
            break
"""
    running = [subprocess.Popen([sys.executable, "-c", code, place.uri]) for _ in range(4)]
    assert [process.wait() for process in running] == [0] * 4
    assert place.read("count") == b"100"


def test_a_list_is_sorted_one_level_deep_and_without_hidden_names(place):
    for name in ("b", "a/x", "a/y/z", ".hidden", "c.json"):
        place.write(name, b"")
    place.create("d", b"")  # leaves its lock, which is hidden too
    assert place.list() == ["a", "b", "c.json", "d"]
    assert place.list("a") == ["x", "y"]
    assert place.list("b") == []


def test_delete_takes_a_file_or_all_below_a_folder(place):
    for name in ("a/x", "a/y/z", "b"):
        place.write(name, b"")
    place.delete("a")
    place.delete("b")
    place.delete("never there")
    assert place.list() == []


def test_a_uri_names_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert open_storage("runs").uri == str(tmp_path / "runs")
    assert open_storage(f"file://{tmp_path}/runs").uri == str(tmp_path / "runs")


def test_an_unknown_scheme_is_refused(tmp_path):
    with pytest.raises(UserError, match="ftp://"):
        open_storage("ftp://host/runs")


def test_a_writable_place_is_left_as_it_was(place):
    check_rights(place, "run.storage")
    assert place.list() == []
    assert not place.objects()


def test_a_folder_that_was_not_there_is_not_there_after(tmp_path):
    (tmp_path / "kept").mkdir()
    check_rights(Folder(tmp_path / "a" / "b"), "run.storage")
    check_rights(Folder(tmp_path / "kept"), "run.storage")
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_a_place_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match=r"run\.storage: cannot write to .*file/run"):
        check_rights(Folder(tmp_path / "file" / "run"), "run.storage")
