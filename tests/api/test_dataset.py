"""Batches for a loop of one's own: those of a run, on any number of workers, resumed exactly."""

import collections
import json
import re

import pytest
import torch
from torch.utils.data import DataLoader

import ganrun
from ganrun.config.schema import DataConfig
from ganrun.data.decode import normalised
from ganrun.data.index import open_data
from ganrun.data.order import Order
from ganrun.data.stream import Stream
from ganrun.errors import UserError
from tests.conftest import SIZES

FIELDS = {"image": "image", "label": {"kind": "label"}}


@pytest.fixture
def made(data_folder):
    def make(batch_size=12, **options):
        return ganrun.Dataset(str(data_folder), batch_size, fields=FIELDS, **{"slots": 6, "cache_mib": 0} | options)

    return make


def taken(dataset, count):
    """The next `count` batches."""
    iterator = iter(dataset)
    try:
        return [next(iterator) for _ in range(count)]
    finally:
        iterator.close()


def assert_equal(ours, theirs):
    assert len(ours) == len(theirs)
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.keys() == other.keys()
        assert all(torch.equal(mine[name], other[name]) for name in mine)


def test_batches_are_those_of_a_run(made, data_folder):
    data = open_data(str(data_folder))
    values = {"shards": "x", "image_size": 16, "channels": 1, "batch_size": 12, "fields": FIELDS}
    stream = Stream(data, DataConfig(**values), Order(SIZES, 6, 0, 4), range(6), 0)
    slots = normalised(stream.next()[0], torch.float32), made()
    stream.close()
    (batch,) = taken(slots[1], 1)
    assert torch.equal(batch["image"][:2], slots[0]["image"])
    assert batch["image"].shape == (12, 1, 16, 16)
    assert -1 <= batch["image"].min() < batch["image"].max() <= 1
    assert (batch["label"].dtype, slots[1].classes, slots[1].samples) == (torch.int64, ("a", "b", "c"), sum(SIZES))


def test_each_sample_is_shown_once_in_an_epoch(made):
    images = torch.cat([batch["image"] for batch in taken(made(141, slots=1), 2)])
    times = collections.Counter(image.numpy().tobytes() for image in images)
    assert set(times.values()) == {2}
    assert len(times) == sum(SIZES)


@pytest.mark.parametrize("workers", [2, 4, 6])
def test_workers_share_the_batches_of_one(made, workers):
    alone = taken(made(), 3)
    parts = [taken(made(rank=rank, workers=workers), 3) for rank in range(workers)]
    joined = [
        {name: torch.cat([part[number][name] for part in parts]) for name in FIELDS} for number in range(len(alone))
    ]
    assert_equal(joined, alone)


def test_a_position_is_resumed_exactly_by_any_number_of_workers(made):
    whole = taken(made(), 20)  # Into the second epoch.
    first = made()
    taken(first, 13)
    state = json.loads(json.dumps(first.state_dict()))
    assert_equal(taken(first, 7), whole[13:])  # The next iteration continues.
    for workers in (1, 3):
        parts = []
        for rank in range(workers):
            resumed = made(rank=rank, workers=workers)
            resumed.load_state_dict(state)
            parts.append(taken(resumed, 7))
        joined = [{name: torch.cat([part[number][name] for part in parts]) for name in FIELDS} for number in range(7)]
        assert_equal(joined, whole[13:])


def test_a_data_loader_takes_it(made):
    dataset = made()
    loaded = []
    for batch in DataLoader(dataset, batch_size=None):
        loaded.append(batch)
        if len(loaded) == 3:
            break
    assert dataset.state_dict()["images"] == 36
    assert_equal(loaded, taken(made(), 3))
    with pytest.raises(UserError, match=r"num_workers: ganrun.Dataset reads ahead in threads; .*num_workers=0"):
        next(iter(DataLoader(made(), batch_size=None, num_workers=1)))


def test_ranks_are_those_of_torchrun(made, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert_equal(taken(made(), 1), taken(made(rank=1, workers=2), 1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 13}, "batch_size: 13 cannot be cut into slots: 6; take a multiple"),
        ({"rank": 2, "workers": 2}, "rank: 2 of workers: 2; give both, the rank from 0 to workers - 1"),
        ({"rank": 1}, "rank: 1 of workers: None"),
        ({"damaged_share": 2.0}, "ganrun.Dataset: damaged_share: 2.0: "),
        ({"crop": 64}, "data.crop: 64, but the images"),
        ({"slots": 200, "batch_size": 200}, "data.slots: 200 is more than the 141 samples"),
    ],
)
def test_settings_that_do_not_fit_are_named(made, options, message):
    with pytest.raises(UserError) as raised:
        made(**options)
    assert str(raised.value).startswith(message)


def test_a_state_of_other_settings_is_refused(made):
    state = made(seed=1).state_dict()
    with pytest.raises(UserError, match="state: seed was 1, is 0; give the same"):
        made().load_state_dict(state)
    with pytest.raises(UserError, match=r"state: .*data.* is missing; give what"):
        made().load_state_dict({"images": 3})


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"held_out_share": -1}, "held_out_share: -1 is not allowed; give a share from 0 to below 1"),
        ({"held_out_share": 1.0}, "held_out_share: 1.0 is not allowed"),
        ({"slots": 1, "rank": 0, "workers": 2}, "slots: 1 is fewer than workers: 2; each worker needs a slot"),
        ({"slots": 0}, "slots: 0 is fewer than workers: 1"),
        ({"decoders": 0}, "decoders: 0 is not allowed; give at least 1"),
    ],
)
def test_settings_out_of_range_are_named(data_folder, settings, fault):
    with pytest.raises(UserError, match=re.escape(fault)):
        ganrun.Dataset(str(data_folder), batch_size=4, **settings)


def test_a_position_between_batches_is_refused(data_folder):
    data = ganrun.Dataset(str(data_folder), batch_size=4)
    for images in (-4, 3, "4"):
        with pytest.raises(UserError, match="is no multiple of batch_size: 4"):
            data.load_state_dict(data.state_dict() | {"images": images})
