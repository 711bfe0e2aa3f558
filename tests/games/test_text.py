"""The condition `text`, and what the game makes of it."""

import pytest
import torch
from torch import nn
from torch.distributions import Normal, kl_divergence

from ganrun.errors import UserError
from ganrun.games.build import build_game
from ganrun.games.conditions import UserInput
from ganrun.games.penalties import matching_aware
from ganrun.games.text import Text, interpolated, mismatched, scaled
from ganrun.models.text import TextInput, TextProjection
from ganrun.rng import KeyedNoise
from tests.conftest import config_of
from tests.sentences import of_text

CPU = torch.device("cpu")
NOISE = KeyedNoise(0, 0, 0, 0, CPU, torch.float64)
NAN = float("nan")


def batch_of(count, captions=(1, 2, 3), numbers=5):
    embeddings = torch.randn(count, max(captions), numbers, dtype=torch.float64)
    texts = []
    for row in range(count):
        embeddings[row, captions[row % len(captions)] :] = NAN
        texts.append("\n".join(f"{row} {place}" for place in range(captions[row % len(captions)])))
    return {"embedding": embeddings, "text": texts}


def test_each_caption_is_drawn_as_often_and_is_the_one_shown():
    batch, condition = batch_of(300), Text(TextInput(5, 2))
    seen = {1: [0], 2: [0, 0], 3: [0, 0, 0]}
    for images in range(20):
        noise = KeyedNoise(0, images, 0, 0, CPU, torch.float64)
        given, shown = condition.of(batch, noise)["text"], condition.captions(batch, noise)
        for row, text in enumerate(shown):
            number, place = map(int, text.split())
            assert number == row
            expected = scaled(batch["embedding"][row : row + 1, place])[0]
            assert torch.equal(given[row], expected)
            seen[1 + row % 3][place] += 1
    for counts in seen.values():
        assert sum(counts) == 2000
        assert all(abs(count - 2000 / len(counts)) < 120 for count in counts)
    torch.testing.assert_close(given.square().mean(1), torch.ones(300, dtype=torch.float64))


def test_wrong_sentences_are_those_beside_and_between_is_the_middle():
    given = {"text": torch.arange(6.0).view(3, 2)}
    assert mismatched(given)["text"].tolist() == [[4, 5], [0, 1], [2, 3]]
    assert interpolated(given)["text"].tolist() == [[2, 3], [1, 2], [3, 4]]


def test_what_a_user_gives():
    condition = Text(TextInput(3, 2))
    given = condition.from_user(UserInput("--text", embedding=torch.tensor([3.0, 0, 0])))
    torch.testing.assert_close(given["text"], torch.tensor([[3**0.5, 0, 0]]))
    with pytest.raises(UserError, match=r"cat\.png: this run draws sentences; give one as --text"):
        condition.from_user(UserInput("cat.png", picture=torch.zeros(3, 8, 8)))
    with pytest.raises(UserError, match="an embedding of 2 numbers, but this run has embeddings of 3"):
        condition.from_user(UserInput("--text", embedding=torch.zeros(2)))


def test_the_matching_aware_penalty_of_a_linear_discriminator():
    at_image, at_text = torch.randn(3, 4, 4, dtype=torch.float64), torch.randn(5, dtype=torch.float64)
    real, given = torch.randn(2, 3, 4, 4, dtype=torch.float64), {"text": torch.randn(2, 5, dtype=torch.float64)}

    def linear(images, told):
        return (images * at_image).sum((1, 2, 3)) + told["text"] @ at_text

    expected = (at_image.norm() + at_text.norm()) ** 6
    torch.testing.assert_close(matching_aware(linear, real, real, given, NOISE), expected)


def test_conditioning_augmentation_is_drawn_and_its_divergence_is_that_of_normals():
    projection = TextProjection(TextInput(5, 3), augmented=True).double()
    given = {"text": torch.randn(400, 5, dtype=torch.float64)}
    mean, deviation = projection(given), (projection.log_variance(given["text"]) / 2).exp()
    normal = torch.zeros(400, 3, dtype=torch.float64), torch.ones(400, 3, dtype=torch.float64)
    torch.testing.assert_close(
        projection.divergence(given), kl_divergence(Normal(mean, deviation), Normal(*normal)).mean()
    )
    drawn = (projection(given, NOISE) - mean) / deviation
    assert abs(drawn.mean()) < 0.1
    assert abs(drawn.std() - 1) < 0.1


class Told(nn.Module):
    """A discriminator that returns the first number of image and sentence."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones((), dtype=torch.float64))

    def forward(self, images, given):
        return self.weight * (images[:, 0, 0, 0] + 10 * given["text"][:, 0])


def players(values, **text):
    settings = {"size": 5, "projected": 2} | text
    config = config_of(of_text(values, "none", objective={"condition": "text", "text": settings}))
    torch.manual_seed(0)
    return config, build_game(config, CPU)


def losses(config, game, discriminator=None):
    torch.manual_seed(1)
    batch = batch_of(4) | {"image": torch.randn(4, 3, 16, 16, dtype=torch.float64)}
    networks = dict(game.networks)
    d, g = game.players
    if discriminator:
        d.owned["discriminator"] = networks["discriminator"] = discriminator
    return batch, d(batch, NOISE, {"generator": networks["generator"]}), g(batch, NOISE, networks)


def test_wrong_pairs_count_as_generated_at_half_the_weight(values):
    config, game = players(values)
    batch, loss, _ = losses(config, game, Told())
    noise = NOISE.under("discriminator")
    given = game.condition.of(batch, noise)
    fake = game.sample(game.networks, 4, noise, given)
    images, real_text = batch["image"][:, 0, 0, 0], 10 * given["text"][:, 0]
    right, made = images + real_text, fake[:, 0, 0, 0] + real_text
    wrong = images + real_text.roll(1)
    softplus = nn.functional.softplus
    expected = softplus(-right).mean() + (softplus(made).mean() + softplus(wrong).mean()) / 2
    torch.testing.assert_close(loss.total, expected)
    torch.testing.assert_close(loss.parts["logit/wrong"], wrong.mean())
    config, game = players(values, wrong_pairs=False)
    _, loss, _ = losses(config, game, Told())
    torch.testing.assert_close(loss.total, softplus(-right).mean() + softplus(made).mean())
    assert "logit/wrong" not in loss.parts


def test_the_generator_also_learns_between_sentences_and_from_the_divergence(values):
    found = {}
    for name, text in {
        "plain": {},
        "between": {"interpolation": True},
        "augmented": {"conditioning_augmentation": 2.0},
    }.items():
        config, game = players(values, **text)
        batch, _, loss = losses(config, game, Told())
        found[name] = (game, batch, loss)
    game, batch, loss = found["between"]
    noise = NOISE.under("generator")
    given = interpolated(game.condition.of(batch, noise))
    between = game.sample(game.networks, 4, noise.under("between"), given)
    logits = between[:, 0, 0, 0] + 10 * given["text"][:, 0]
    added = nn.functional.softplus(-logits).mean()
    torch.testing.assert_close(loss.total, found["plain"][2].total + added)
    game, batch, loss = found["augmented"]
    divergence = game.networks["generator"].text.divergence(game.condition.of(batch, noise))
    torch.testing.assert_close(loss.parts["conditioning_augmentation"], 2 * divergence)


@pytest.mark.parametrize("model", [{"name": "dcgan"}, {"name": "r3gan", "width": 8}, {"spectral_norm": True}])
def test_both_networks_hear_the_sentence_and_features_do_not(values, model):
    torch.manual_seed(0)
    config = config_of(of_text(values, "none", model=values["model"] | model))
    networks = build_game(config, CPU).networks
    z, images = torch.randn(3, 8, dtype=torch.float64), torch.randn(3, 3, 16, 16, dtype=torch.float64)
    one, other = ({"text": torch.randn(3, 6, dtype=torch.float64)} for _ in range(2))
    for network, first in ((networks["generator"], z), (networks["discriminator"], images)):
        network.eval()
        assert not torch.allclose(network(first, one), network(first, other))
    features = networks["discriminator"].features
    assert torch.equal(features(images, one), features(images, other))
