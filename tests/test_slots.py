"""Assignment of slots to workers, for all numbers of slots and workers."""

import statistics

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ganrun.slots import Slots
from tests.properties import examples


@st.composite
def groups(draw):
    """Return the slots of all workers of a run."""
    total = draw(st.integers(1, 2_000))
    workers = draw(st.integers(1, total))
    return [Slots(total, rank, workers) for rank in range(workers)]


@examples(60)
@given(groups())
def test_workers_own_every_slot_once_in_its_order_and_equal_numbers_or_one_more(group):
    assert [slot for worker in group for slot in worker.owned] == list(range(group[0].total))
    sizes = {len(worker.owned) for worker in group}
    assert min(sizes) >= 1
    assert max(sizes) - min(sizes) <= 1


@examples(60)
@given(groups(), st.data())
def test_the_mean_over_workers_of_weighted_sums_is_the_mean_over_slots(group, data):
    some = data.draw(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=20))
    losses = [some[slot % len(some)] for slot in range(group[0].total)]
    sums = [sum(worker.weight * losses[slot] for slot in worker.owned) for worker in group]
    assert statistics.fmean(sums) == pytest.approx(statistics.fmean(losses), rel=1e-9, abs=1e-9)


@examples(20)
@given(st.integers(1, 50), st.integers(0, 3))
def test_one_worker_has_all_rows_as_they_are(total, columns):
    rows = torch.arange(total * columns).view(total, columns)
    assert Slots(total).gather(rows) is rows
