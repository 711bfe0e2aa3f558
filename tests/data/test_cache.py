"""Shards on this machine's disk: bounded, shared by threads and processes, and never in the way."""

import errno
import fcntl
import hashlib
import logging
import multiprocessing
import os
import tempfile
import threading
from pathlib import Path

import pytest

from ganrun.data import cache as caches
from ganrun.data.cache import ShardCache, cache_folder
from tests.waiting import WAIT

ROOM = 1000
"""Bytes that a cache of these tests may hold."""


def shard(number, size=300):
    """(name, bytes) of a shard that differs from number to number."""
    data = bytes([number]) * size
    return hashlib.sha256(data).hexdigest(), data


@pytest.fixture
def cache(tmp_path):
    return ShardCache(tmp_path / "shards", ROOM)


def kept(cache):
    """The numbers of the shards in the folder."""
    names = {shard(number)[0]: number for number in range(100)}
    return {names[path.name] for path in cache.folder.iterdir() if not path.name.startswith(".")}


def used_at(cache, number, seconds):
    os.utime(cache.folder / shard(number)[0], (seconds, seconds))


def test_what_is_put_is_got(cache):
    assert cache.get(shard(1)[0]) is None
    cache.put(*shard(1))
    assert cache.get(shard(1)[0]) == shard(1)[1]


def test_the_least_recently_used_goes_first(cache):
    for number in (1, 2, 3):
        cache.put(*shard(number))
        used_at(cache, number, 1000 + number)
    cache.get(shard(1)[0])  # Now it is the one used last.
    cache.put(*shard(4))
    assert kept(cache) == {1, 3, 4}


def test_the_folder_never_holds_more_than_its_limit_between_puts(cache):
    for number in range(20):
        cache.put(*shard(number, size=1 + 97 * number % 900))
        sizes = [path.stat().st_size for path in cache.folder.iterdir() if not path.name.startswith(".")]
        assert 0 < sum(sizes) <= ROOM


def test_as_many_bytes_as_the_limit_fit(cache):
    for number in (1, 2):
        cache.put(*shard(number, size=ROOM // 2))
    assert all(cache.get(shard(number, size=ROOM // 2)[0]) for number in (1, 2))


def test_a_shard_larger_than_the_cache_puts_nothing_out(cache):
    cache.put(*shard(1))
    cache.put(*shard(2, size=ROOM + 1))
    assert kept(cache) == {1}


def test_a_shard_that_is_put_again_takes_the_place_of_the_corrupt_one(cache):
    cache.put(*shard(1))
    (cache.folder / shard(1)[0]).write_bytes(b"corrupt")
    assert cache.get(shard(1)[0]) == b"corrupt"
    cache.put(*shard(1))
    assert cache.get(shard(1)[0]) == shard(1)[1]


def test_what_a_killed_writer_left_goes_after_an_hour_and_not_before(cache):
    cache.put(*shard(1))
    old, new = cache.folder / ".part-old", cache.folder / ".part-new"
    for path in (old, new):
        path.write_bytes(b"half")
    written = old.stat().st_mtime
    os.utime(old, (written - 3_660,) * 2)
    os.utime(new, (written - 3_540,) * 2)
    cache.put(*shard(2))
    assert not old.exists()
    assert new.exists()


def test_a_part_is_never_got(cache):
    """Whoever is killed while it writes leaves no file under the shard's own name."""
    script = multiprocessing.get_context("fork").Process(target=_die_while_writing, args=(cache.folder,))
    script.start()
    script.join(60)
    assert script.exitcode == 9
    assert [path.name[:6] for path in cache.folder.iterdir()] == [".part-"]
    assert cache.get(shard(1)[0]) is None


def _die_while_writing(folder: Path) -> None:
    os.replace = lambda *_: os._exit(9)
    ShardCache(folder, ROOM).put(*shard(1))


def test_the_folder_is_below_xdg_cache_home(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "ganrun" / "shards"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", "/home/someone")
    assert cache_folder() == Path("/home/someone/.cache/ganrun/shards")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # Its specification: consider it invalid, and ignore it.
    assert cache_folder() == Path("/home/someone/.cache/ganrun/shards")


def test_a_user_without_a_home_has_a_folder_of_temporary_files(monkeypatch):
    """As in a container with a user id that no file names."""
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(os, "getuid", lambda: 2**31 - 7)
    assert cache_folder() == Path(tempfile.gettempdir(), "ganrun/shards")


# What is wrong with the disk.


def refuse(number):
    def fail(*_, **__):
        raise OSError(number, os.strerror(number))

    return fail


def works_without(cache, caplog):
    """Whether a cache that cannot be written to does no harm, and says so once."""
    with caplog.at_level(logging.WARNING):
        for number in (1, 2, 1):
            with cache.alone(shard(number)[0]):
                cache.get(shard(number)[0])
                cache.put(*shard(number))
    said = [record.getMessage() for record in caplog.records]
    return len(said) == 1 and said[0].startswith(f"nothing is cached in {cache.folder}: ") and said[0]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EIO])
def test_a_disk_that_takes_nothing_means_no_cache(cache, monkeypatch, caplog, number):
    monkeypatch.setattr(caches.os, "replace", refuse(number))
    assert os.strerror(number) in works_without(cache, caplog)
    assert not [path for path in cache.folder.iterdir() if path.name.startswith(".part-")]


def test_a_folder_that_cannot_be_made_means_no_cache(tmp_path, caplog):
    (tmp_path / "file").write_bytes(b"")
    assert works_without(ShardCache(tmp_path / "file" / "shards", ROOM), caplog)


def test_a_folder_that_is_a_file_means_no_cache(tmp_path, caplog):
    (tmp_path / "file").write_bytes(b"")
    assert works_without(ShardCache(tmp_path / "file", ROOM), caplog)


def test_what_may_be_read_and_not_written_is_still_read(cache, monkeypatch, caplog):
    cache.put(*shard(1))
    monkeypatch.setattr(caches.os, "utime", refuse(errno.EPERM))
    monkeypatch.setattr(caches.os, "replace", refuse(errno.EROFS))
    assert works_without(cache, caplog)
    assert cache.get(shard(1)[0]) == shard(1)[1]


def test_a_cache_of_an_earlier_run_is_used(cache):
    cache.put(*shard(1))
    assert ShardCache(cache.folder, ROOM).get(shard(1)[0]) == shard(1)[1]


# Several at once.


def _want(folder, numbers, reads, together):
    """Wants each shard once, as a rank does; each time that it has to fetch is noted in `reads`."""
    cache = ShardCache(folder, 10**6)
    together.wait()
    for number in numbers:
        name, data = shard(number, size=20_000)
        with cache.alone(name):
            found = cache.get(name)
            if found is None:
                with open(reads, "a") as file:
                    file.write(f"{number}\n")
                cache.put(name, data)
            elif found != data:
                raise AssertionError("a part was got")


@pytest.mark.parametrize("kind", ["threads", "processes"])
def test_those_who_race_for_a_shard_fetch_it_once(tmp_path, kind):
    context = multiprocessing.get_context("fork")
    made, barrier = (
        (context.Process, context.Barrier(4)) if kind == "processes" else (threading.Thread, threading.Barrier(4))
    )
    numbers = list(range(30))
    racers = [
        made(target=_want, args=(tmp_path / "shards", numbers[:: 1 - 2 * (racer % 2)], tmp_path / "reads", barrier))
        for racer in range(4)
    ]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join(WAIT)
        assert kind == "threads" or racer.exitcode == 0
    assert sorted(map(int, (tmp_path / "reads").read_text().split())) == numbers


def _hold_for_ever(folder, held):
    with ShardCache(folder, ROOM).alone(shard(1)[0]):
        held.set()
        threading.Event().wait()


def test_a_holder_that_is_killed_holds_nobody_up(cache):
    context = multiprocessing.get_context("fork")
    held = context.Event()
    holder = context.Process(target=_hold_for_ever, args=(cache.folder, held))
    holder.start()
    assert held.wait(WAIT)
    holder.kill()
    holder.join(WAIT)
    with cache.alone(shard(1)[0]):
        pass


def test_a_holder_that_is_stopped_holds_others_up_for_a_while_only(cache, monkeypatch):
    monkeypatch.setattr(caches, "LONGEST_WAIT_SECONDS", 0.05)
    cache.folder.mkdir()
    with (cache.folder / f".lock-{shard(1)[0][:2]}").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with cache.alone(shard(1)[0]):
            cache.put(*shard(1))
    assert kept(cache) == {1}
