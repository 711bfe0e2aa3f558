"""Corrupt samples: the first ends the run, or a configured share is skipped, the same on any number of workers."""

import gc
import io
import logging
import weakref

import numpy as np
import pytest
import torch
from PIL import Image

from ganrun.config.schema import FieldConfig
from ganrun.data import corrupt_samples
from ganrun.data.corrupt_samples import CorruptSamplePolicy
from ganrun.data.index import DataSet
from ganrun.data.order import Order
from ganrun.data.stream import Stream
from ganrun.errors import UserError
from ganrun.evaluation.real_images import RealImages
from ganrun.slots import Slots
from tests.data.test_order import walk
from tests.data.test_stream import IMAGE, LABEL, config_of, data_of, fault_of, opened, stream_of

__all__ = ["opened", "stream_of"]
BAD = {0, 7, 8, 9, 23, 31}
"""The first, a few that stand together, and the last of 32."""


def image(number):
    file = io.BytesIO()
    Image.fromarray(np.full((16, 16), number, np.uint8)).save(file, "png")
    return file.getvalue()


def members(bad=BAD, samples=32):
    """Sample number n is grey n, its label n % 2."""
    for number in range(samples):
        yield f"{number:02d}.png", b"no image" if number in bad else image(number)
        yield f"{number:02d}.cls", str(number % 2).encode()


@pytest.fixture
def data(tmp_path):
    return data_of(tmp_path / "data", *members())


def stands_for(number):
    """The sample shown in place of this one: the nearest before it that is whole; the shard is a ring."""
    while number % 32 in BAD:
        number -= 1
    return number % 32


def numbers_of(batch):
    """The numbers of the samples, from their pixels."""
    return batch["image"][:, 0, 0, 0].tolist()


def test_the_first_corrupt_one_ends_the_run_and_is_named(data, stream_of):
    order = Order((32,), 1, 1, 2)
    before = [number in BAD for _, number in walk(order, 0, 0, 32)].index(True)
    first = walk(order, 0, 0, 32)[before][1]
    stream = stream_of(data, batch=1)
    for _ in range(before):
        stream.next()
    with pytest.raises(UserError, match=f"data/0.tar: image of sample '{first:02d}' is not a readable image"):
        stream.next()


@pytest.mark.parametrize("batch", [1, 2, 8])
def test_a_corrupt_one_is_replaced_by_the_whole_one_before_it(data, stream_of, batch):
    stream = stream_of(data, batch=batch, fields=IMAGE | LABEL, damaged_share=0.5)
    shown, labels = [], []
    for _ in range(64 // batch):
        (turn,) = stream.next()
        shown += numbers_of(turn)
        labels += turn["label"].tolist()
    wanted = [stands_for(number) for _, number in walk(Order((32,), 1, 1, 2), 0, 0, 64)]
    assert shown == wanted
    assert labels == [number % 2 for number in wanted]  # All fields come from the sample that replaces it.


def test_a_field_that_is_corrupt_takes_its_sample_along(tmp_path, stream_of):
    data = data_of(tmp_path / "data", ("0.png", image(0)), ("0.cls", b"1"), ("1.png", image(1)), ("1.cls", b"cat"))
    stream = stream_of(data, batch=2, fields=IMAGE | LABEL, damaged_share=0.5)
    (turn,) = stream.next()
    assert numbers_of(turn) == [0, 0]
    assert turn["label"].tolist() == [1, 1]


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("images", [0, 12, 36])
def test_workers_and_resume_do_not_enter(data, workers, images):
    """4 slots of 2; positions from `images` on, as so many workers show them."""
    order, config = Order((32,), 4, 1, 2), config_of(8, IMAGE, damaged_share=0.5)
    shown = []
    for rank in range(workers):
        stream = Stream(data, config, order, Slots(4, rank, workers).owned, images)
        turns = [stream.next() for _ in range(8)]
        stream.close()
        owned = len(Slots(4, rank, workers).owned)
        shown += [[number for turn in turns for number in numbers_of(turn[place])] for place in range(owned)]
    expected = [[stands_for(number) for _, number in walk(order, slot, images // 4, 16)] for slot in range(4)]
    assert shown == expected


def test_they_are_counted_and_a_few_are_named(tmp_path, stream_of, caplog):
    bad = set(range(0, 60, 2))
    data = data_of(tmp_path / "data", *members(bad=bad, samples=60))
    stream = stream_of(data, batch=60, damaged_share=0.9)
    with caplog.at_level(logging.WARNING, logger=corrupt_samples.__name__):
        stream.next()
        stream.close()
    epochs = stream.corrupt_samples.shown // 60
    assert epochs >= 1
    assert stream.corrupt_samples.skipped == 30 * epochs
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 10
    assert len({message for message in said if "is not a readable image" in message and "data/0.tar" in message}) == 10


def test_too_many_end_the_run_and_the_line_says_what_to_do(data, stream_of):
    stream = stream_of(data, batch=1, damaged_share=4 / 32)
    text = fault_of(stream, turns=33)
    assert "data/0.tar: image of sample " in text
    assert (
        "corrupt sample number 5, more than data.damaged_share: 0.125 of 32: repair the data set, or allow more" in text
    )


def test_as_many_as_the_share_are_passed_over(data, stream_of):
    stream = stream_of(data, batch=1, damaged_share=len(BAD) / 32)
    for _ in range(100):
        stream.next()
    assert stream.corrupt_samples.skipped > 2 * len(BAD)


def test_the_share_is_of_an_epoch_before_one_was_shown(data):
    """Or one corrupt sample at the very beginning would be all that was shown."""
    decoded = []

    def decode(samples):
        if any(key == "01" for _, key, _ in samples):
            raise UserError("corrupt")
        decoded.append([key for _, key, _ in samples])
        return {}

    forgiving = CorruptSamplePolicy(0.05, epoch=32)
    shard = opened_shard(data)
    forgiving.batch([(shard, *shard.samples[1])], decode)
    assert decoded[-1] == ["00"]
    with pytest.raises(UserError, match="number 2"):
        forgiving.batch([(shard, *shard.samples[1])], decode)


def opened_shard(data: DataSet):
    from ganrun.data.fetch import Fetcher

    return Fetcher(data).request(0).result(60)


def test_a_shard_of_corrupt_ones_alone_ends_the_run(tmp_path, stream_of):
    data = data_of(tmp_path / "data", *members(bad=set(range(5)), samples=5))
    with pytest.raises(
        UserError, match=r"data/0.tar: image of sample '0\d' .*; every other sample of its shard is corrupt, too"
    ):
        stream_of(data, batch=1, damaged_share=0.99).next()


def test_what_is_wrong_with_the_shard_itself_is_never_passed_over(tmp_path, stream_of):
    data = data_of(tmp_path / "data", *members())
    path = tmp_path / "data/0.tar"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match="bytes, but the index says"):
        stream_of(data, batch=1, damaged_share=0.99).next()


def test_a_corrupt_sample_keeps_no_shard_in_memory(data):
    """An error that is kept keeps its frames, and they the shard."""
    gc.disable()
    try:
        shard = opened_shard(data)
        alive = weakref.ref(shard)

        def decode(samples):
            if any(key == "07" for _, key, _ in samples):
                raise UserError("corrupt")
            return {"image": torch.zeros(len(samples))}

        CorruptSamplePolicy(0.5, 32).batch([(shard, *shard.samples[number]) for number in range(9)], decode)
        del shard
        assert alive() is None
    finally:
        gc.enable()


def test_the_score_passes_over_what_the_stream_passes_over(data):
    fields = {"image": FieldConfig(kind="image")}
    shown = RealImages(data, 32, fields, damaged_share=0.2).images(0, 32)[:, 0, 0, 0].tolist()
    assert shown == [stands_for(number) for number in range(32)]
    with pytest.raises(UserError, match="image of sample '07' is not a readable image"):
        RealImages(data, 32, fields).images(7, 1)
