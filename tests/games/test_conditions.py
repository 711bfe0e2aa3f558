"""What networks, penalties, augmentation and samples are told, and games and networks written before conditions."""

import logging
from dataclasses import replace
from types import MappingProxyType

import pytest
import torch
from torch import nn

from ganrun.config.registry import CONDITIONS, GAMES, NETWORKS, PENALTIES
from ganrun.errors import UserError
from ganrun.evaluation.generated_images import GeneratedImages
from ganrun.extend import Condition, Game, Latent, UserInput
from ganrun.games import game as game_module
from ganrun.games.augment import Augmentation
from ganrun.games.build import build_game
from ganrun.games.calls import generate, judge, takes_z
from ganrun.games.conditions import Label, as_channels
from ganrun.models.dropout import dropout
from ganrun.rng import KeyedNoise
from ganrun.slots import Slots
from ganrun.training.new_state import new_state
from tests.conditional import conditional
from tests.conftest import config_of
from tests.games.test_gan import Source, clone, play_of

CPU = torch.device("cpu")
NOISE = KeyedNoise(0, 0, 0, 0, CPU, torch.float64)


class Grey(Condition):
    """Colourisation, in its simplest form."""

    fields = ("image",)
    pictures = MappingProxyType({"grey": 1})

    def of(self, batch, noise):
        return {"grey": batch["image"].mean(1, keepdim=True)}

    def show(self, given):
        return given["grey"]


class Told(nn.Module):
    """Takes everything there is, and notes it."""

    def __init__(self, model, data):
        super().__init__()
        self.shape, self.seen = (data.channels, data.image_size, data.image_size), []
        self.layer = nn.Linear(model.latent_size, data.channels * data.image_size**2)

    def forward(self, z, given, noise):
        self.seen.append((given, noise))
        images = self.layer(z).tanh().unflatten(1, self.shape) + given["grey"]
        return dropout(images, 0.5, noise, "dropout")


class ToldDiscriminator(nn.Module):
    def __init__(self, model, data):
        super().__init__()
        self.layer, self.seen = nn.Linear(data.channels * data.image_size**2, 1), []

    def forward(self, images, given):
        self.seen.append(given)
        return self.layer((images + given["grey"]).flatten(1)).flatten()


@pytest.fixture
def told(values, monkeypatch):
    monkeypatch.setitem(CONDITIONS.data, "grey", Grey)
    build = {"generator": Told, "discriminator": ToldDiscriminator}
    monkeypatch.setitem(
        NETWORKS.data, "told", NETWORKS.data["dcgan"].__class__(lambda m, d: {n: b(m, d) for n, b in build.items()})
    )
    values["run"]["imports"] = ["tests.conditional"]
    values["model"]["name"] = "told"
    values["objective"] = {"condition": "grey"}
    return values


def test_networks_are_told_the_condition_of_the_real_batch(told):
    state = play_of(told, data__slots=1, objective__penalties={"r1": 1.0})
    generator, discriminator = (state.game.networks[name] for name in ("generator", "discriminator"))
    source = Source()
    state.round(source)
    grey = (source.given[0][0].double() / 127.5 - 1).mean(1, keepdim=True)
    assert [len(generator.seen), len(discriminator.seen)] == [2, 4]  # real, fake, r1; fake in the generator's turn
    for given in [*(given for given, _ in generator.seen), *discriminator.seen]:
        torch.testing.assert_close(given["grey"], grey)


def test_the_two_turns_of_a_round_and_the_next_round_drop_out_differently(told):
    state = play_of(told, data__slots=1)
    for _ in range(2):
        state.round(Source())
    noises = [
        replace(noise, source=None) for _, noise in state.game.networks["generator"].seen
    ]  # Without fixed memory.
    assert len({float(noise.uniform(12, name="dropout").sum()) for noise in noises}) == 4


def test_a_generated_image_does_not_depend_on_how_many_are_drawn(told):
    game = play_of(told).game
    generator = game.networks["generator"]

    class Pairs:
        target = "image"

        def batch(self, start, count, device, dtype):
            numbers = torch.arange(start, start + count, dtype=dtype)
            return {"image": numbers.view(-1, 1, 1, 1).expand(-1, 1, 16, 16) / 200}

    images = GeneratedImages(game, game.networks, 3, pairs=Pairs())
    whole = torch.cat([images.images(start, 64) for start in (0, 64, 128)])
    for start, count in ((0, 3), (60, 10), (64, 64), (130, 5)):
        torch.testing.assert_close(images.images(start, count), whole[start : start + count], rtol=0, atol=1e-12)
    assert len(whole.flatten(1).unique(dim=0)) == 192
    assert torch.equal(images.truth(5, 2)[:, 0, 0, 0], torch.tensor([5.0, 6.0], dtype=torch.float64) / 200)
    with pytest.raises(ValueError, match="for 4 images; these come first"):
        generator.seen[-1][1].__class__.uniform(images.noise(0, 4), 3, 4, name="wrong")


def test_a_run_is_refused_networks_or_games_that_do_not_hear(told, monkeypatch):
    with pytest.raises(UserError, match="generator takes labels only"):
        build_game(config_of(told, model__name="labelled", model__classes=3), CPU)
    monkeypatch.setitem(GAMES.data, "deaf", lambda networks, objective, model: GAMES["gan"](networks, objective, model))
    with pytest.raises(UserError, match="needs an argument `condition`"):
        build_game(config_of(told, objective__game="deaf"), CPU)
    monkeypatch.setitem(CONDITIONS.data, "grey", lambda: "grey")
    with pytest.raises(UserError, match="builds a str; return a Condition"):
        build_game(config_of(told), CPU)


# How networks are called.


class Old(nn.Module):
    def forward(self, anything, y=None):
        return anything if y is None else anything + y


class Without(nn.Module):
    def forward(self, given):
        return given["label"]


def test_networks_receive_what_their_arguments_name():
    given, one = {"label": torch.ones(2)}, torch.ones(2)
    assert torch.equal(generate(Old(), one, given, NOISE), 2 * one)
    assert torch.equal(judge(Old(), one, {}, NOISE), one)
    assert torch.equal(generate(Without(), None, given, NOISE), one)
    assert [takes_z(network) for network in (Old(), Without())] == [True, False]


@pytest.mark.parametrize("classes", [0, 3])
def test_a_game_with_the_old_sample_is_accepted_with_a_note(classes, caplog):
    game_module._note_deprecated_sample.cache_clear()
    with caplog.at_level(logging.WARNING, "ganrun"):
        game = Game({}, (), (), Latent(4), lambda networks, z, label: (z, label), classes)
    assert "sample(networks, count, noise, given)" in caplog.text
    z = Latent(4).draw(NOISE, 6, "evaluate/z")
    given = game.condition.by_number(0, 6, CPU)
    found, label = game.sample({}, 6, NOISE.under("evaluate"), given)
    assert torch.equal(found, z)
    assert label is None if not classes else label.tolist() == [0, 1, 2, 0, 1, 2]
    assert torch.equal(game.from_z({}, z, NOISE, given)[0], z)
    assert isinstance(game.condition, Label) == bool(classes)


def test_penalties_receive_the_condition_and_old_ones_labels(values, monkeypatch):
    seen = {}

    def new(discriminator, real, fake, given, noise):
        seen["new"] = given
        return discriminator(real, given).sum() * 0

    def old(discriminator, real, fake, label, noise):
        seen["old"] = label
        return discriminator(real, label).sum() * 0

    monkeypatch.setitem(PENALTIES.data, "new", new)
    monkeypatch.setitem(PENALTIES.data, "old", old)
    state = play_of(conditional(values), data__slots=1, objective__penalties={"new": 1.0, "old": 1.0})
    label = torch.arange(12) % 3
    state.round(lambda: [{"image": torch.zeros(12, 1, 16, 16, dtype=torch.uint8), "label": label}])
    assert torch.equal(seen["new"]["label"], label)
    assert torch.equal(seen["old"], label)


# Augmentation.


@pytest.mark.parametrize(
    "settings",
    [
        {"diffaugment": ["translation", "cutout"]},
        {"ada_target": 0.6, "ada_transforms": ["blit", "geometric", "cutout"]},
        {"ada_target": 0.6, "ada_transforms": ["color", "filter", "noise"]},
        {"diffaugment": ["color"], "instance_noise": 0.5},
    ],
)
def test_pixels_of_a_picture_move_with_its_image_and_keep_their_colours(values, settings):
    objective = config_of(values, **{f"objective__{key}": value for key, value in settings.items()}).objective
    augment = Augmentation(objective, ("source",))
    if augment.adaptive:
        augment.adaptive.double().strength.fill_(0.9)
    images = torch.rand(8, 3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    given = {"source": images.clone(), "label": torch.arange(8)}
    real, of_real = augment(images, given, NOISE, "discriminator", "real")
    fake, of_fake = augment(images, given, NOISE, "discriminator", "fake")
    assert torch.equal(of_real["source"], of_fake["source"])
    assert torch.equal(of_real["label"], given["label"])
    if {"translation", "blit"} & {*settings.get("diffaugment", []), *settings.get("ada_transforms", [])}:
        assert torch.equal(real, of_real["source"])
        assert torch.equal(real, fake)
        assert not torch.equal(real, images)
    else:
        assert torch.equal(of_real["source"], images)
        assert not torch.equal(real, fake)


# Players that are not active yet.


class Waiting:
    """The GAN whose discriminator begins after 24 images."""

    def __init__(self, monkeypatch):
        monkeypatch.setitem(GAMES.data, "waiting", self.build)

    @staticmethod
    def build(networks, objective, model):
        game = GAMES["gan"](networks, objective, model)
        game.players[0].active = lambda images: images >= 24
        return game


def test_a_player_that_is_not_active_takes_no_turn_but_its_images_count(values, monkeypatch):
    Waiting(monkeypatch)
    state = play_of(values, objective__game="waiting", objective__discriminator_turns=2)
    before = {name: clone(network) for name, network in state.game.networks.items()}
    source = Source(6, 2)
    state.round(source)
    assert (state.images, len(source.given)) == (24, 2)
    discriminator = state.game.networks["discriminator"].state_dict()
    assert all(torch.equal(discriminator[name], tensor) for name, tensor in before["discriminator"].items())
    assert not torch.equal(state.game.networks["generator"].layers[0].weight, before["generator"]["layers.0.weight"])
    kinds = {state.game.kind_of_round(images, images // 24) for images in (0, 24, 48)}
    assert len(kinds) == 2
    state.round(source)
    assert not torch.equal(
        state.game.networks["discriminator"].layers[0].weight, before["discriminator"]["layers.0.weight"]
    )


# What users give.


def test_a_picture_takes_the_channels_of_the_data():
    red = torch.tensor([1.0, -1.0, -1.0]).view(1, 3, 1, 1)
    assert as_channels(red, 1).item() == pytest.approx(2 * 0.299 - 1)
    assert as_channels(torch.ones(1, 1, 2, 2), 3).shape == (1, 3, 2, 2)


@pytest.mark.parametrize(
    ("condition", "words"),
    [
        (Condition(), "this run has no condition to give; leave it out"),
        (Label(3), "the condition of this run is a class; give its number as --label"),
        (Grey(), "Grey, the condition of this run, has no from_user; add it"),
    ],
)
def test_a_condition_that_takes_nothing_of_a_user_says_so(condition, words):
    with pytest.raises(UserError, match=rf"^cat\.png: {words}$"):
        condition.from_user(UserInput("cat.png"))


def test_the_state_of_a_told_run_resumes(told):
    config = config_of(told, data__slots=2)
    one, two = (new_state(config, CPU, Slots(2)) for _ in range(2))
    source = Source(2, 6)
    one.round(source)
    two.load_state_dict(one.state_dict())
    again = Source(2, 6)
    one.round(again)
    two.round(Source(2, 6))
    for name, network in one.game.networks.items():
        for key, tensor in network.state_dict().items():
            assert torch.equal(tensor, two.game.networks[name].state_dict()[key])
