"""The condition `past_frames`: which frames it takes, what is predicted of them, and how a prediction is fed back."""

import pytest
import torch

from ganrun.errors import UserError
from ganrun.games.conditions import UserInput
from ganrun.games.past_frames import PastFrames
from ganrun.rng import KeyedNoise

NOISE = KeyedNoise(0, 0, 0, 0, torch.device("cpu"), torch.float32)
BATCH = {f"past_{back}": torch.full((2, 3, 4, 4), -back / 10) for back in (1, 2, 3, 4)}


def shades(past):
    """The shade of each channel of the first clip, in tenths."""
    return (past[0, :, 0, 0] * 10).round().int().tolist()


def test_past_frames_are_in_the_order_of_time_and_the_last_is_the_baseline():
    condition = PastFrames(3, 3, 4)
    assert (condition.fields, condition.later) == (("past_3", "past_2", "past_1"), ("next_2", "next_3", "next_4"))
    assert (condition.frames, condition.pictures) == (3, {"past": 9})
    given = condition.of(BATCH, NOISE)
    assert shades(given["past"]) == [-3] * 3 + [-2] * 3 + [-1] * 3
    assert torch.equal(condition.baselines["copy_last"](given), BATCH["past_1"])
    assert condition.show(given).shape == (2, 3, 3, 4, 4)
    assert torch.equal(condition.show(given)[:, 0], BATCH["past_3"])
    assert PastFrames(1, 1, 1).later == ()


def test_the_generators_output_is_the_change_of_the_last_frame():
    condition = PastFrames(3, 2, 1)
    given = condition.of(BATCH, NOISE)
    assert torch.equal(condition.finish(given, torch.zeros(2, 3, 4, 4)), BATCH["past_1"])
    black, white = ({"past": torch.full((1, 6, 4, 4), shade)} for shade in (-1.0, 1.0))
    assert torch.equal(condition.finish(black, torch.ones(1, 3, 4, 4)), torch.ones(1, 3, 4, 4))
    assert torch.equal(condition.finish(white, -torch.ones(1, 3, 4, 4)), -torch.ones(1, 3, 4, 4))


def test_a_prediction_is_fed_back_as_the_last_frame_and_the_oldest_is_left_out():
    condition = PastFrames(3, 3, 2)
    given = condition.following(condition.of(BATCH, NOISE), torch.full((2, 3, 4, 4), 0.5))
    assert shades(given["past"]) == [-2] * 3 + [-1] * 3 + [5] * 3
    given = condition.following(given, torch.full((2, 3, 4, 4), 7.0))
    assert shades(given["past"]) == [-1] * 3 + [5] * 3 + [10] * 3  # As a file would have it.


def test_what_a_user_gives():
    clip = torch.arange(5).view(5, 1, 1, 1).expand(5, 1, 4, 4) / 10
    given = PastFrames(1, 3, 1).from_user(UserInput("a.gif", clip=clip))
    assert shades(given["past"]) == [2, 3, 4]
    colour = PastFrames(3, 2, 1).from_user(UserInput("a.gif", clip=clip))
    assert shades(colour["past"]) == [3] * 3 + [4] * 3
    with pytest.raises(UserError, match=r"a\.gif: 2 frames, but this run continues clips of 3; give more"):
        PastFrames(1, 3, 1).from_user(UserInput("a.gif", clip=clip[:2]))
    with pytest.raises(UserError, match=r"a\.png: this run continues clips; give a video, a GIF"):
        PastFrames(1, 3, 1).from_user(UserInput("a.png", picture=clip[0]))
