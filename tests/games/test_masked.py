"""The condition `masked`: holes, what is copied, and its baselines."""

import cv2
import numpy as np
import pytest
import torch

from ganrun.errors import UserError
from ganrun.evaluation.paired_scores import l1_hole, psnr_hole
from ganrun.evaluation.score import ScoreBatch
from ganrun.games.build import build_game
from ganrun.games.conditions import UserInput
from ganrun.games.masked import HOLES, Masked
from ganrun.rng import KeyedNoise
from tests.conftest import config_of
from tests.families import values_of

NOISE = KeyedNoise(0, 0, 0, 0, torch.device("cpu"), torch.float32)
IMAGES = torch.rand(5, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.mark.parametrize("share", [0.1, 0.25, 0.6])
@pytest.mark.parametrize("holes", HOLES)
def test_holes_have_the_share_of_the_pixels_and_are_drawn_for_each_image(holes, share):
    condition = Masked("image", 3, holes, share)
    given = condition.of({"image": IMAGES}, NOISE)
    mask = given["mask"]
    assert set(mask.unique().tolist()) == {0.0, 1.0}
    assert mask.mean((1, 2, 3)).tolist() == pytest.approx([share] * 5, abs=0.07 if holes == "center" else 0.02)
    assert torch.equal(given["masked"], torch.where(mask > 0, 0.0, IMAGES))
    different = sum(not torch.equal(mask[0], other) for other in mask[1:])
    assert different == (0 if holes == "center" else 4)
    assert torch.equal(mask, condition.of({"image": IMAGES}, NOISE)["mask"])


def test_the_centre_box_of_a_quarter_is_half_as_wide():
    mask = Masked("image", 3, "center", 0.25).of({"image": IMAGES}, NOISE)["mask"]
    expected = torch.zeros(32, 32)
    expected[8:24, 8:24] = 1
    assert torch.equal(mask[0, 0], expected)


def test_a_mask_field_is_the_hole_where_it_is_not_black():
    field = torch.full((5, 1, 32, 32), -1.0)
    field[:, :, 4:9] = -1 + 2 / 255
    given = Masked("image", 3, "boxes", 0.5, field="hole").of({"image": IMAGES, "hole": field}, NOISE)
    assert torch.equal(given["mask"][0, 0, :, 0].nonzero().flatten(), torch.arange(4, 9))


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_known_pixels_are_copied_to_the_bit(values, precision):
    values = values_of("dcgan_masked", values)
    game = build_game(config_of(values, train__precision=precision), torch.device("cpu"))
    dtype = next(game.networks["generator"].parameters()).dtype
    noise = KeyedNoise(0, 0, 0, 0, torch.device("cpu"), dtype)
    images = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0)).to(dtype) * 2 - 1
    given = game.condition.of({"image": images}, noise)
    made = game.sample(game.networks, 4, noise, given)
    known = (given["mask"] == 0).expand_as(images)
    assert torch.equal(made[known], images[known])
    assert not torch.equal(made[~known], images[~known])


def test_baselines_fill_the_hole_alone():
    condition = Masked("image", 3, "strokes", 0.3)
    given = condition.of({"image": IMAGES}, NOISE)
    holes = (given["mask"] > 0).expand_as(IMAGES)
    for answer in condition.baselines.values():
        assert torch.equal(answer(given)[~holes], IMAGES[~holes])
    for image, made, hole in zip(IMAGES, condition.baselines["mean"](given), holes, strict=True):
        for channel in range(3):
            mean = image[channel][~hole[channel]].mean()
            torch.testing.assert_close(made[channel][hole[channel]], mean.expand(int(hole[channel].sum())))
    picture = ((given["masked"][0] + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
    theirs = cv2.inpaint(np.ascontiguousarray(picture), holes[0, 0].byte().numpy(), 3, cv2.INPAINT_NS)
    ours = (condition.baselines["navier_stokes"](given)[0] + 1) * 127.5
    inside = holes[0].permute(1, 2, 0).numpy()
    assert np.abs(ours.permute(1, 2, 0).numpy() - theirs)[inside].max() < 1e-3


def test_scores_of_holes_are_of_their_pixels():
    given = {"mask": torch.zeros(2, 1, 4, 4)}
    given["mask"][0, :, :2] = 1
    given["mask"][1, :, 3] = 1
    truth, images = torch.zeros(2, 3, 4, 4), torch.full((2, 3, 4, 4), 0.9)
    images[0, :, :2], images[1, :, 3] = 0.5, -0.25
    for score, expected in ((l1_hole(), (0.5 + 0.25) / 2), (psnr_hole(), 10 * np.log10([4 / 0.25, 64]).mean())):
        sums = {name: torch.zeros((), dtype=torch.float64) for name in ("sum", "pairs")}
        score.update(sums, ScoreBatch(images, None, given, truth))
        assert score.result(sums, None)[score.name] == pytest.approx(expected)


def test_what_a_user_gives():
    condition = Masked("image", 3, "center", 0.25)
    picture = torch.ones(1, 10, 12)
    mask = torch.zeros(10, 12, dtype=torch.bool)
    mask[2:4] = True
    given = condition.from_user(UserInput("a.png", picture=picture, mask=mask))
    assert given["masked"].shape == (1, 3, 10, 12)
    assert torch.equal(given["mask"][0, 0] > 0, mask)
    drawn = condition.from_user(UserInput("a.png", picture=picture))
    assert float(drawn["mask"].mean()) == pytest.approx(0.25, abs=0.1)
    for wrong, words in ((torch.zeros_like(mask), "has no hole"), (torch.ones_like(mask), "leaves no known pixel")):
        with pytest.raises(UserError, match=rf"a\.png: the mask {words}"):
            condition.complete(UserInput("a.png", picture=picture, mask=wrong))
    with pytest.raises(UserError, match=r"a\.png: the mask has 9x10 pixels, but the picture 12x10; they must agree"):
        condition.complete(UserInput("a.png", picture=picture, mask=mask[:, :9]))
    with pytest.raises(UserError, match=r"a\.png: this run fills holes of pictures; give a picture"):
        condition.from_user(UserInput("a.png"))
