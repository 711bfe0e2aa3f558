"""Held-out samples: the rule, parts of a data set, and samples by number."""

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ganrun.config.schema import EvaluateConfig
from ganrun.data.held_out import Part, held_out_numbers
from ganrun.data.index import open_data
from ganrun.data.order import Order
from ganrun.data.samples import Samples
from ganrun.data.scored import open_scored
from ganrun.data.stream import Stream
from ganrun.errors import UserError
from ganrun.evaluation.real_images import RealImages
from tests.conftest import SIZES, write_data
from tests.data.test_corrupt_samples import members
from tests.data.test_order import walk
from tests.data.test_stream import IMAGE, config_of, data_of, stored
from tests.properties import examples

SHARE = 0.2
HELD_OUT = (6, 5, 7, 4, 6)
"""round(SHARE x samples) of each of SIZES."""
SHARDS = st.lists(st.integers(0, 60), min_size=1, max_size=8)
SHARES = st.floats(0, 1, exclude_max=True)


def sha_of(number):
    return hashlib.sha256(str(number).encode()).hexdigest()


def scored_of(data, share, samples=0):
    return open_scored(data, EvaluateConfig(held_out_share=share), samples)


# The rule.


@pytest.mark.parametrize(
    ("share", "numbers"),
    [
        (0.3, [3, 6, 7]),
        (0.2, [3, 7]),
        (0.05, []),
        (0.06, [7]),
        (0.25, [3, 7]),
        (0.0, []),
        (0.8, [0, 1, 2, 3, 5, 6, 7, 8]),
    ],
)
def test_the_rule_by_hand(share, numbers):
    """Of `for n in 0 1 2 3 4 5 6 7 8 9; do printf abab...ab:$n | b2sum -l 64; done`, in the order of these hashes:
    7 0273, 3 0ba1, 6 1dc3, 2 446d, 1 72b3, 0 8c41, 8 9f9b, 5 9fb0, 4 f56a, 9 f875."""
    assert held_out_numbers("ab" * 32, 10, share) == numbers


@examples(100)
@given(SHARDS, SHARES)
def test_what_is_trained_on_and_what_is_held_out_are_all_and_share_nothing(sizes, share):
    trained_on, held_out = Part(share), Part(share, held_out=True)
    for shard, size in enumerate(sizes):
        samples = list(range(size))
        shown, kept = trained_on.of(samples, sha_of(shard)), held_out.of(samples, sha_of(shard))
        assert sorted(shown + kept) == samples
        assert (shown, kept) == (sorted(shown), sorted(kept))
        assert (len(shown), len(kept)) == (trained_on.size(size), held_out.size(size))
        assert len(kept) == round(share * size)


@examples(60)
@given(st.integers(1, 60), SHARES, SHARES)
def test_a_larger_share_holds_out_the_same_samples_and_more(size, one, other):
    less, more = (set(held_out_numbers(sha_of(0), size, share)) for share in sorted((one, other)))
    assert less <= more


def test_shards_of_equal_size_hold_out_different_numbers():
    assert len({tuple(held_out_numbers(sha_of(shard), 100, 0.1)) for shard in range(50)}) == 50


# Parts of a data set.


def test_nothing_held_out_leaves_order_and_data_as_they_were(data_folder):
    data = open_data(str(data_folder))
    assert data.trained_on(0.0) == data
    assert scored_of(data, 0.0) is data
    assert data.sizes == SIZES


@pytest.mark.parametrize("owned", [range(4), [0], [2, 3]])
def test_a_stream_shows_the_rest_in_the_order_of_its_sizes(data_folder, owned):
    data = open_data(str(data_folder)).trained_on(SHARE)
    assert data.sizes == tuple(size - held for size, held in zip(SIZES, HELD_OUT, strict=True))
    order = Order(data.sizes, 4, 1, 2)
    stream = Stream(data, config_of(8, IMAGE), order, owned, 0)
    try:
        shown = [stream.next() for _ in range(order.lane_length)]  # Two epochs.
    finally:
        stream.close()
    pixels, kept = stored(data_folder), {}
    for shard, size in enumerate(SIZES):
        held_out = held_out_numbers(data.index.shards[shard].sha256, size, SHARE)
        kept[shard] = [pixels[shard, number][0] for number in range(size) if number not in held_out]
    for place, slot in enumerate(owned):
        images = np.concatenate([batches[place]["image"] for batches in shown])
        for image, (shard, number) in zip(images, walk(order, slot, 0, len(images)), strict=True):
            assert np.array_equal(image, kept[shard][number])


def test_a_shard_that_is_held_out_whole_is_passed_over(tmp_path):
    data = open_data(str(write_data(tmp_path / "data", sizes=(1, 9, 1)))).trained_on(0.6)
    assert data.sizes == (0, 4, 0)
    order = Order(data.sizes, 2, 0, 2)
    assert {segment.shard for epoch in range(5) for slot in range(2) for segment in order.lane(epoch, slot)} == {1}
    with pytest.raises(UserError, match=r"data\.slots: 5 is more than the 4 samples"):
        Order(data.sizes, 5, 0, 2)


def test_what_stands_for_a_corrupt_sample_is_of_the_same_part(tmp_path):
    bad = set(range(1, 32, 2))
    data, share = data_of(tmp_path / "data", *members(bad)), 0.5
    held_out = set(held_out_numbers(data.index.shards[0].sha256, 32, share))
    # Otherwise a replacement that knew no parts would pass, too.
    assert any((number in held_out) != (number - 1 in held_out) for number in bad)
    trained_on = data.trained_on(share)
    stream = Stream(trained_on, config_of(4, IMAGE, damaged_share=0.9), Order((16,), 1, 1, 2), [0], 0)
    try:
        shown = {image for _ in range(8) for image in stream.next()[0]["image"][:, 0, 0, 0].tolist()}
    finally:
        stream.close()
    assert shown == set(range(32)) - held_out - bad
    real = RealImages(scored_of(data, share), 16, IMAGE, damaged_share=0.9).images(0, 16)[:, 0, 0, 0].tolist()
    assert set(real) == held_out - bad


# What scores compare with.


def test_samples_by_number_are_in_the_order_of_shard_and_number(data_folder):
    data = open_data(str(data_folder))
    every, held_out = Samples(data), Samples(scored_of(data, SHARE))
    assert (len(every), len(held_out)) == (sum(SIZES), sum(HELD_OUT))
    keys = [f"{number:06d}" for number in range(sum(SIZES))]
    assert [key for _, key, _ in every] == keys
    first, expected = 0, []
    for shard, size in zip(data.index.shards, SIZES, strict=True):
        expected += [keys[first + number] for number in held_out_numbers(shard.sha256, size, SHARE)]
        first += size
    assert [held_out[number][1] for number in reversed(range(len(held_out)))] == expected[::-1]
    for number in (-1, len(held_out)):
        with pytest.raises(IndexError, match=f"sample {number} of 28"):
            held_out[number]


def test_a_shard_without_held_out_samples_has_no_numbers(tmp_path):
    data = open_data(str(write_data(tmp_path / "data", sizes=(1, 9, 1, 8, 2))))
    held_out = Samples(scored_of(data, 0.2))
    assert scored_of(data, 0.2).sizes == (0, 2, 0, 2, 0)
    assert [opened.where[-10:] for opened, _, _ in held_out] == ["000001.tar"] * 2 + ["000003.tar"] * 2


def test_statistics_of_other_real_images_have_other_keys(data_folder):
    data = open_data(str(data_folder))
    parts = [data, scored_of(data, 0.2), scored_of(data, 0.25), data.trained_on(0.2).whole]
    origins = [RealImages(part, 20, IMAGE).origin for part in parts]
    assert origins[0] == origins[3]
    assert len({str(origin) for origin in origins}) == 3
    # What the classifier of stacked images is trained on does not depend on the share.
    assert RealImages(parts[1], 20, IMAGE).of(20).origin == origins[0]


@pytest.mark.parametrize(
    ("share", "samples", "reason"),
    [
        (SHARE, 29, r"evaluate\.samples: 29, but only 28 samples are held out \(evaluate\.held_out_share=0\.2\); ask "),
        (0.01, 0, r"held_out_share: 0\.01 holds out no sample, .* the largest has 35; raise it \(from about 0\.029\)"),
    ],
)
def test_too_few_are_refused_with_the_number_there_is(data_folder, share, samples, reason):
    data = open_data(str(data_folder))
    assert scored_of(data, SHARE, 28).samples == 28
    with pytest.raises(UserError, match=reason):
        scored_of(data, share, samples)


def test_another_data_set_is_named_with_its_hash(data_folder, tmp_path):
    other = write_data(tmp_path / "other", sizes=(12, 8))
    settings = EvaluateConfig(shards=[str(other)])
    scored = open_scored(open_data(str(data_folder)), settings, 20)
    fingerprint = open_data(str(other)).index.fingerprint
    assert (scored.sizes, scored.held_out_by) == ((12, 8), f"evaluate.shards={other} sha256:{fingerprint[:12]}")
    with pytest.raises(UserError, match=r"but only 20 samples are held out \(evaluate\.shards=.*sha256:"):
        open_scored(open_data(str(data_folder)), settings, 21)
    with pytest.raises(UserError, match=r"^evaluate\.shards: 'nowhere' holds no shards"):
        open_scored(open_data(str(data_folder)), EvaluateConfig(shards="nowhere"), 2)
