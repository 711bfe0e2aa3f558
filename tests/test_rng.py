"""Random streams are functions of their keys, independent of the rank."""

import inspect
from dataclasses import replace

import pytest
import torch

from ganrun.rng import KeyedNoise, key, numpy_stream
from ganrun.slots import Slots

CPU = torch.device("cpu")
DRAW = KeyedNoise(seed=1, rollback_count=2, images=3, slot=4, device=CPU, dtype=torch.float32, turn=5)


def test_keys_are_the_same_on_every_machine_and_in_every_version():
    assert key(0, "weights") == 5062827300322842796
    assert numpy_stream(7, "epoch", 3).permutation(8).tolist() == [3, 1, 2, 4, 7, 0, 5, 6]


def test_equal_parts_give_equal_keys():
    assert key(1, "a", 2) == key(1, "a", 2)


@pytest.mark.parametrize(
    "other", [(1, "a", 3), (2, "a", 2), (1, "b", 2), (1, "a"), (1, "a2"), (1, "a", "2"), (12, "a")]
)
def test_any_other_part_gives_another_key(other):
    assert key(*other) != key(1, "a", 2)


def test_keys_fit_a_seed():
    assert all(0 <= key(number) < 2**63 for number in range(1000))


def test_a_draw_is_the_same_again():
    assert torch.equal(DRAW.normal(5, 3, name="z"), DRAW.normal(5, 3, name="z"))
    assert torch.equal(DRAW.uniform(5, name="z"), replace(DRAW).uniform(5, name="z"))


@pytest.mark.parametrize("part", ["seed", "rollback_count", "images", "slot"])
def test_a_draw_differs_when_any_part_of_its_key_does(part):
    other = replace(DRAW, **{part: getattr(DRAW, part) + 1})
    assert not torch.equal(DRAW.normal(8, name="z"), other.normal(8, name="z"))


def test_a_draws_key_is_seed_generation_images_slot_turn_and_purpose():
    stream = torch.Generator().manual_seed(key(1, 2, 3, 4, 5, "z"))
    assert torch.equal(DRAW.normal(8, name="z"), torch.randn(8, generator=stream))


def test_the_round_follows_from_the_images_and_is_no_part_of_the_key():
    assert torch.equal(DRAW.normal(8, name="z"), replace(DRAW, round=9).normal(8, name="z"))


def test_a_draw_differs_by_its_purpose():
    assert not torch.equal(DRAW.normal(8, name="z"), DRAW.normal(8, name="y"))


def test_parts_do_not_stand_in_for_each_other():
    noises = [replace(DRAW, images=3, slot=4), replace(DRAW, images=4, slot=3), replace(DRAW, images=34, slot=4)]
    assert len({noise.normal(1, name="z").item() for noise in noises}) == 3


def test_draws_have_the_distribution_and_the_precision_asked_for():
    noise = replace(DRAW, dtype=torch.float64)
    normal, uniform = noise.normal(20_000, name="z"), noise.uniform(20_000, name="u")
    assert normal.dtype == uniform.dtype == torch.float64
    assert abs(normal.mean()) < 0.03
    assert abs(normal.std() - 1) < 0.03
    assert 0 <= uniform.min() < 0.01
    assert 0.99 < uniform.max() < 1


@pytest.mark.parametrize("workers", [1, 2, 3, 5])
def test_draws_do_not_depend_on_who_owns_the_slot(workers):
    torch.manual_seed(workers)  # a global stream would show here
    drawn = [
        replace(DRAW, slot=slot).normal(2, name="z")
        for rank in range(workers)
        for slot in Slots(6, rank, workers).owned
    ]
    expected = [replace(DRAW, slot=slot).normal(2, name="z") for slot in range(6)]
    assert torch.equal(torch.stack(drawn), torch.stack(expected))


def test_drawing_leaves_the_global_stream_alone():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    DRAW.normal(5, name="z")
    numpy_stream(1).random()
    assert torch.equal(torch.get_rng_state(), before)


def test_a_rank_is_no_part_of_a_key():
    assert not {"rank", "workers"} & set(inspect.signature(KeyedNoise).parameters)


@pytest.mark.parametrize(
    ("total", "workers"), [(1, 1), (6, 1), (2, 2), (6, 2), (6, 3), (7, 3), (5, 5), (6, 5), (64, 5)]
)
def test_workers_own_every_slot_once_and_nearly_equal_numbers(total, workers):
    owned = [Slots(total, rank, workers).owned for rank in range(workers)]
    assert [slot for slots in owned for slot in slots] == list(range(total))
    assert max(map(len, owned)) - min(map(len, owned)) <= 1


@pytest.mark.parametrize("workers", [1, 2, 3, 5])
def test_the_mean_over_workers_of_weighted_sums_is_the_mean_over_slots(workers):
    values = [float(slot**2) for slot in range(6)]
    sums = [
        sum(values[slot] * slots.weight for slot in slots.owned)
        for slots in (Slots(6, rank, workers) for rank in range(workers))
    ]
    assert sum(sums) / workers == pytest.approx(sum(values) / 6)
