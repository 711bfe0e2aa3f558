"""Decoded images on disk: the same batches, decoded once on a machine, whatever happens to the files."""

import errno
import logging
import os
from pathlib import Path

import pytest
import torch

from ganrun.config.schema import DataConfig, FieldConfig
from ganrun.data.cache import ShardCache
from ganrun.data.decode import Decoder
from ganrun.data.decoded import CHECKSUM_BYTES
from ganrun.data.index import open_data
from ganrun.data.order import Order
from ganrun.data.shard import MIRRORED
from ganrun.data.stream import Stream
from ganrun.errors import UserError
from tests.conftest import write_data

SAMPLES, SIZE = 12, 16
RECORD = CHECKSUM_BYTES + SIZE * SIZE
FIELDS = {"image": FieldConfig(kind="image"), "label": FieldConfig(kind="label")}


@pytest.fixture
def data(tmp_path: Path) -> str:
    """Return a set of two shards."""
    return str(write_data(tmp_path / "data", (7, 5), SIZE))


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that gets the key of each image that is decoded."""
    keys, original = [], Decoder._decode

    def noted(self, shard, key, members, out):
        keys.append(key)
        original(self, shard, key, members, out)

    monkeypatch.setattr(Decoder, "_decode", noted)
    return keys


def cache_in(folder: Path, limit: int = 2**20) -> ShardCache:
    return ShardCache(folder / "cache", limit)


def epoch(shards: str, cache: ShardCache | None, crop: int | None = None, mirror: bool = False, share: float = 0.0):
    """Return all images of an epoch in the order of a run, and their labels, each sample a slot batch of its own."""
    opened = open_data(shards, crop=crop)
    opened = opened.trained_on(share, mirror=mirror)
    order = Order(opened.sizes, 1, 1, 2)
    config = DataConfig(
        shards="x", image_size=crop or SIZE, channels=1, batch_size=1, slots=1, fields=FIELDS, mirror=mirror
    )
    stream = Stream(opened, config, order, [0], 0, cache=cache)
    try:
        batches = [stream.next()[0] for _ in range(sum(opened.sizes))]
    finally:
        stream.close()
    return torch.cat([batch["image"] for batch in batches]), torch.cat([batch["label"] for batch in batches])


def files(cache: ShardCache) -> list[Path]:
    return sorted(path for path in cache.folder.iterdir() if not path.name.startswith("."))


@pytest.mark.parametrize("options", [{}, {"crop": 10}, {"mirror": True}, {"share": 0.3}], ids=str)
def test_from_the_second_epoch_on_nothing_is_decoded_and_batches_are_the_same(data, tmp_path, decoded, options):
    plain = epoch(data, None, **options)
    decoded.clear()
    first = epoch(data, cache_in(tmp_path), **options)
    images = [key.removesuffix(MIRRORED) for key in decoded]
    assert len(images) == len(set(images)) >= SAMPLES * (1 - options.get("share", 0)) - 1
    decoded.clear()
    later = epoch(data, cache_in(tmp_path), **options)
    assert len(decoded) <= 2  # Those that the first stream had not read ahead to.
    for found in (first, later):
        assert all(torch.equal(a, b) for a, b in zip(found, plain, strict=True))


def test_a_form_has_a_file_of_its_own_for_each_shard(data, tmp_path):
    cache = cache_in(tmp_path)
    epoch(data, cache)
    assert sorted(path.stat().st_size for path in files(cache)) == [5 * RECORD, 7 * RECORD]
    epoch(data, cache, crop=10)
    assert len(files(cache)) == 4


@pytest.mark.parametrize("fault", ["flipped", "cut short", "longer", "emptied", "gone"])
def test_a_corrupt_file_is_decoded_again_and_mended(data, tmp_path, decoded, fault):
    cache = cache_in(tmp_path)
    plain = epoch(data, cache)
    decoded.clear()
    for path in files(cache):
        content = bytearray(path.read_bytes())
        content[RECORD + CHECKSUM_BYTES + 3] ^= 1  # Of the second image.
        changed = {"flipped": content, "cut short": content[:-5], "longer": content + b"x", "emptied": b""}
        path.unlink() if fault == "gone" else path.write_bytes(changed[fault])
    again = epoch(data, cache)
    assert all(torch.equal(a, b) for a, b in zip(again, plain, strict=True))
    assert len(decoded) >= 2 if fault == "flipped" else len(decoded) >= SAMPLES
    assert sorted(path.stat().st_size for path in files(cache)) == [5 * RECORD, 7 * RECORD]
    decoded.clear()
    epoch(data, cache)
    assert len(decoded) <= 2


def test_a_set_that_does_not_fit_as_a_whole_has_no_file(data, tmp_path, decoded):
    room = SAMPLES * RECORD + sum(shard.bytes for shard in open_data(data).index.shards)
    for limit, count in ((room - 1, 0), (room, 2)):
        cache = cache_in(tmp_path / str(limit), limit)
        epoch(data, cache)
        assert (len(files(cache)) if cache.folder.exists() else 0) == count


def test_decoded_images_and_shards_share_the_limit(data, tmp_path):
    shards = sum(shard.bytes for shard in open_data(data).index.shards)
    cache = cache_in(tmp_path, shards + 2 * SAMPLES * RECORD)
    for number in range(4):
        cache.put(f"{number:064x}", bytes(cache.limit // 4))
    epoch(data, cache)
    assert sum(path.stat().st_size for path in files(cache)) <= cache.limit
    assert len([path for path in files(cache) if path.name.startswith("0" * 60)]) < 4


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS])
def test_a_disk_that_takes_nothing_is_told_once_and_nothing_else_happens(data, tmp_path, monkeypatch, caplog, code):
    plain = epoch(data, None)

    def refuse(*arguments):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("ganrun.data.decoded.os.pwritev", refuse)
    with caplog.at_level(logging.WARNING):
        found = epoch(data, cache_in(tmp_path))
    assert all(torch.equal(a, b) for a, b in zip(found, plain, strict=True))
    told = [record.getMessage() for record in caplog.records]
    assert told == [f"nothing is cached in {tmp_path}/cache: {os.strerror(code)}"]


def test_a_folder_that_cannot_be_made_means_no_cache(data, tmp_path, caplog):
    (tmp_path / "cache").write_text("a file")
    plain = epoch(data, None)
    found = epoch(data, cache_in(tmp_path))
    assert all(torch.equal(a, b) for a, b in zip(found, plain, strict=True))
    assert "nothing is cached in" in caplog.text


def test_an_image_that_cannot_be_decoded_is_a_fault_each_time(data, tmp_path, monkeypatch):
    def refuse(self, shard, key, members, out):
        raise UserError(f"{key} is not readable")

    monkeypatch.setattr(Decoder, "_decode", refuse)
    for _ in range(2):
        with pytest.raises(UserError, match="is not readable"):
            epoch(data, cache_in(tmp_path))
