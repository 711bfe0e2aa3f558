"""The run folder: pointers and attempts."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from ganrun.errors import RunError
from ganrun.run_folder.run_folder import Pointer, RunFolder
from ganrun.storage import Folder


@pytest.fixture
def folder(tmp_path):
    return RunFolder(Folder(tmp_path / "run"))


def nothing():
    pass


# Pointers and attempts.


def test_there_is_no_pointer_before_the_first_checkpoint(folder):
    assert folder.pointer("latest") is None


def test_a_pointer_reads_as_it_was_written(folder):
    pointer = Pointer("000000000100-0001", 100, 1, 3.5)
    folder.move_pointer("latest", pointer)
    assert folder.pointer("latest") == pointer
    assert folder.pointer("best") is None
    assert json.loads(folder.storage.read("latest.json")) == {
        "checkpoint": "000000000100-0001",
        "images": 100,
        "attempt": 1,
        "score": 3.5,
    }


def test_attempts_are_numbered_from_1(folder):
    assert [folder.begin_attempt() for _ in range(3)] == [1, 2, 3]


def test_an_attempt_after_a_rollback_keeps_its_generation_and_follows_none_but_its_own(folder):
    assert folder.rollback_count() == 0
    first = folder.begin_attempt()
    assert folder.begin_attempt(1, after=first) == 2
    assert folder.rollback_count() == 1
    with pytest.raises(RunError, match="attempt 1 was overtaken by attempt 2"):
        folder.begin_attempt(1, after=first)
    folder.storage.append("events/0002.jsonl", b'{"kind": "rollback"}\n')
    assert folder.rollback_count() == 1


def test_attempts_are_unique_under_a_race(folder):
    with ThreadPoolExecutor(8) as pool:
        attempts = list(pool.map(lambda _: RunFolder(folder.storage).begin_attempt(), range(24)))
    assert sorted(attempts) == list(range(1, 25))


@pytest.mark.parametrize("name", ["latest", "best"])
@pytest.mark.parametrize("pointed", [True, False])
def test_an_old_attempt_cannot_move_a_pointer_once_a_newer_one_began(folder, name, pointed):
    old = folder.begin_attempt()
    before = Pointer("a", 100, old) if pointed else None
    if before:
        folder.move_pointer(name, before)
    new = folder.begin_attempt()
    with pytest.raises(RunError, match=f"attempt {old} was overtaken by attempt {new}"):
        folder.move_pointer(name, Pointer("b", 200, old))
    after = folder.pointer(name)
    assert (after and after.checkpoint) == (before and before.checkpoint)
    folder.move_pointer(name, Pointer("c", 150, new))
    assert folder.pointer(name).checkpoint == "c"


def test_a_new_attempt_makes_latest_its_own_and_leaves_where_it_points(folder):
    folder.move_pointer("latest", Pointer("a", 100, folder.begin_attempt(), 2.5))
    folder.begin_attempt()
    assert folder.pointer("latest") == Pointer("a", 100, 2, 2.5)


def test_an_attempt_that_begins_while_a_pointer_moves_wins(tmp_path):
    """The newer attempt begins between the old one's read and its write."""

    class Meddled(Folder):
        meddle = True

        def replace(self, name, data, version):
            if self.meddle:
                self.meddle = False
                RunFolder(self).begin_attempt()
            return super().replace(name, data, version)

    folder = RunFolder(Meddled(tmp_path / "run"))
    folder.move_pointer("latest", Pointer("a", 100, folder.begin_attempt()))
    with pytest.raises(RunError, match="overtaken by attempt 2"):
        folder.move_pointer("latest", Pointer("b", 200, 1))
    assert folder.pointer("latest").checkpoint == "a"


@pytest.mark.parametrize("content", [b"", b'{"checkpoint": "a"', b"[]", b'{"images": 3}'])
def test_a_corrupt_pointer_ends_the_run_instead_of_beginning_it_anew(folder, content):
    folder.storage.write("latest.json", content)
    with pytest.raises(RunError, match=r"latest\.json is corrupt"):
        folder.pointer("latest")
    with pytest.raises(RunError, match=r"latest\.json is corrupt"):
        folder.begin_attempt()
