"""The game `gain`: what is missing, what the discriminator is told, its losses, and what is copied."""

import math

import pytest
import torch

from ganrun.config.load import load_config
from ganrun.errors import UserError
from ganrun.evaluation.paired_scores import Rmse
from ganrun.evaluation.score import ScoreBatch
from ganrun.games.build import build_game
from ganrun.games.conditions import UserInput
from ganrun.games.gain import hint
from ganrun.games.masked import MaskedPoints
from ganrun.rng import KeyedNoise
from tests.conftest import config_of, write_yaml
from tests.families import values_of

NOISE = KeyedNoise(0, 0, 0, 0, torch.device("cpu"), torch.float64)
POINTS = torch.rand(500, 2, 1, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.fixture
def game(values):
    return build_game(config_of(values_of("gain", values)), torch.device("cpu"))


def test_numbers_are_missing_completely_at_random_and_those_that_the_data_lacks_always():
    condition = MaskedPoints("image", 2, 0.3)
    points = POINTS.clone()
    points[7, 1] = math.nan
    given = condition.of({"image": points}, NOISE)
    mask = given["mask"]
    assert set(mask.unique().tolist()) == {0.0, 1.0}
    assert mask[7, 1] == 1
    shares = [float(mask.mean()), float(mask[:, 0].mean()), float((mask[:, 0] * mask[:, 1]).mean())]
    assert shares == pytest.approx([0.3, 0.3, 0.09], abs=0.05)
    assert torch.equal(given["masked"], torch.where(mask > 0, 0.0, points))
    assert torch.equal(mask, condition.of({"image": points}, NOISE)["mask"])
    assert not torch.equal(mask, condition.of({"image": points}, NOISE.under("other"))["mask"])


def test_known_numbers_are_copied_to_the_bit(game):
    given = game.condition.of({"image": POINTS}, NOISE)
    made = game.sample(game.networks, len(POINTS), NOISE, given)
    missing = given["mask"] > 0
    assert torch.equal(made[~missing], POINTS[~missing])
    assert bool(((made[missing] > 0) & (made[missing] < 1)).all())


def test_what_the_data_lacks_reaches_no_loss_and_no_gradient(game):
    points = POINTS.clone()
    points[::3, 0] = math.nan
    for player in game.players:
        loss = player({"image": points}, NOISE, game.networks)
        loss.total.backward()
        assert all(bool(value.isfinite()) for value in (loss.total, *loss.parts.values()))
        assert all(bool(each.grad.isfinite().all()) for each in player.parameters())


def test_the_hint_tells_a_share_of_the_known_numbers():
    mask = MaskedPoints("image", 2, 0.3).of({"image": POINTS}, NOISE)["mask"]
    told = hint(mask, 0.8, NOISE)
    assert set(told.unique().tolist()) == {0.0, 1.0}
    assert not bool((told * mask).any())
    assert float(told[mask == 0].mean()) == pytest.approx(0.8, abs=0.05)


def test_losses_are_those_of_the_authors(game):
    discriminator, generator = game.players
    batch, settings = {"image": POINTS}, discriminator.config
    for player in (discriminator, generator):
        own = NOISE.under(player.name)
        given = game.condition.of(batch, own)
        filled = game.networks["generator"](given, own)
        known = given["mask"] == 0
        completed = torch.where(known, POINTS, filled)
        told = hint(given["mask"], settings.hint_share, own)
        said = game.networks["discriminator"](completed, {"hint": told}).sigmoid()
        if player is discriminator:
            expected = -torch.cat([said[known & (told == 0)].log(), (1 - said[~known]).log()]).mean()
        else:
            expected = -said[~known].log().sum() / POINTS.numel()
            expected = expected + settings.known_weight * (filled - POINTS)[known].square().mean()
        torch.testing.assert_close(player(batch, NOISE, game.networks).total, expected)


def test_the_error_is_of_the_missing_numbers_whose_truth_is_known():
    truth, mask = torch.zeros(3, 2, 1, 1), torch.zeros(3, 2, 1, 1)
    mask[0, 0], mask[1, 1], mask[2, 0] = 1, 1, 1
    truth[2, 0] = math.nan
    images = torch.full((3, 2, 1, 1), 9.0)
    images[0, 0], images[1, 1] = 0.3, -0.4
    sums = {name: torch.zeros((), dtype=torch.float64) for name in ("sum", "numbers")}
    Rmse().update(sums, ScoreBatch(images, None, {"mask": mask}, truth))
    assert Rmse().result(sums, None)["rmse"] == pytest.approx(math.sqrt((0.09 + 0.16) / 2))


def test_a_user_gives_rows():
    condition = MaskedPoints("image", 2, 0.3)
    row = torch.tensor([0.5, math.nan])[:, None, None]
    given = condition.from_user(UserInput("t.csv", picture=row))
    assert given["masked"].flatten().tolist() == [0.5, 0]
    assert given["mask"].flatten().tolist() == [0, 1]
    for call in (condition.from_user, condition.complete):
        with pytest.raises(UserError, match=r"a\.png: this run fills tables of numbers; give a \.csv"):
            call(UserInput("a.png"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"objective__gain": {"hint_share": 1}}, "objective.gain.hint_share"),
        ({"objective__loss": "hinge"}, "objective.loss: hinge has no effect with objective.game: gain"),
        ({"objective__game": "gan"}, "model.name: gain does not play objective.game: gan; take objective.game: gain"),
        ({"objective__condition": "none"}, "made for masked; set objective.condition: masked"),
        ({"objective__masked": {"holes": "boxes"}}, "objective.masked.holes: boxes is of images"),
        ({"model__latent_size": 9}, "model.latent_size: 9 has no effect with model.name: gain"),
        ({"evaluate__metrics": ["psnr"]}, "evaluate.metrics: ['psnr'] is for images; points are scored by what was"),
        ({"data__fields": {"image": "image"}, "data__image_size": 8}, "objective.game: gain fills points"),
    ],
)
def test_faults_of_a_config_are_named(values, changes, words, tmp_path):
    values = values_of("gain", values)
    for name, value in changes.items():
        section, key = name.split("__")
        values.setdefault(section, {})[key] = value
    with pytest.raises(UserError) as caught:
        load_config(write_yaml(tmp_path / "run.yaml", values))
    assert words in str(caught.value)


def test_scores_of_missing_numbers_and_settings_of_the_game_need_it(values, tmp_path):
    values |= {"objective": {"gain": {"known_weight": 1.0}}, "evaluate": {"metrics": ["rmse"]}}
    with pytest.raises(UserError) as caught:
        load_config(write_yaml(tmp_path / "run.yaml", values))
    assert "objective.gain.known_weight: 1.0 has no effect with objective.game: gan" in str(caught.value)
    assert "evaluate.metrics: rmse is of missing numbers of points" in str(caught.value)
