"""`ganrun train --validate` plays a tiny round, which names the fault of a user's own code in one line."""

import re
import sys

import pytest
import torch

from ganrun.config.run_spec import resolve
from ganrun.data.index import open_data
from ganrun.errors import UserError
from ganrun.telemetry.series import SERIES
from ganrun.training import tiny_round
from tests.conftest import config_of

MODULE = """
import torch
from torch import nn
from ganrun.extend import GAMES, LOSSES, NETWORKS, AdversarialLoss, Game, Latent, Loss, Player, Tracker

LOGGED = {}
SHAPE = (3, 1, 16, 16)

class Net(nn.Module):
    def __init__(self, shape=(1, 16, 16)):
        super().__init__()
        self.layer, self.shape = nn.Linear(8, 256), shape
    def forward(self, z, label=None):
        return self.layer(z).unflatten(1, self.shape)

class Fitter(Player):
    name = "fitter"
    def forward(self, batch, noise, others):
        return self.loss(self.owned, batch, noise, others)

def register(name, loss, shape=(1, 16, 16), player=Fitter, **changes):
    def build(networks, objective, model):
        network = Net(shape)
        fitter = player(net=network)
        fitter.loss = loss
        parts = dict(networks={"net": network}, players=(fitter,), averaged=("net",), latent=Latent(8))
        parts |= dict(sample=lambda networks, z, label: networks["net"](z))
        return Game(**parts | {key: change(network, fitter) for key, change in changes.items()})
    GAMES[name] = build

def out(owned, noise):
    return owned["net"](noise.normal(2, 8, name="z"))

def fine(owned, batch, noise, others):
    return Loss((out(owned, noise) - batch["image"]).square().mean(), dict(LOGGED))

register("fine", fine)
register("field", lambda owned, batch, noise, others: Loss(batch["imag"].mean(), {}))
register("key", lambda owned, batch, noise, others: Loss(owned["other"](1), {}))
register("tensor", lambda owned, batch, noise, others: out(owned, noise).mean())
register("vector", lambda owned, batch, noise, others: Loss(out(owned, noise), {}))
register("constant", lambda owned, batch, noise, others: Loss(batch["image"].mean(), {}))
register("float", lambda owned, batch, noise, others: Loss(out(owned, noise).mean(), {"mean": 1.0}))
register("multiline", lambda owned, batch, noise, others: 1 / 0 if noise else 0)
register("wide", fine, shape=(4, 8, 8))
kept = []
def grows(owned, batch, noise, others):
    kept.append(out(owned, noise).mean())
    return Loss(sum(kept), {})
register("grows", grows)
register("unsaved", fine, networks=lambda network, fitter: {"net": Net()})
register("averaged", fine, averaged=lambda network, fitter: ("generator",))
register("unnamed", fine, networks=lambda network, fitter: {"net": network, "a/b": network})
register("clash", fine, networks=lambda network, fitter: {"net": network, "net_ema": Net()})
class Still(Fitter):
    fresh_batch = False
register("still", fine, player=Still)
class Nameless(Player):
    forward = Fitter.forward
register("nameless", fine, player=Nameless)
class Aside(Fitter):
    def __init__(self, **owned):
        super().__init__(**owned)
        self.scale = nn.Parameter(torch.zeros(()))
register("aside", fine, player=Aside)
class Second(Fitter):
    name = "second"
    fresh_batch = False
def two(network, fitter):
    second = Second(net=network)
    second.loss = fitter.loss
    return fitter, second
register("two", fine, players=two)
class Watcher(nn.Module):
    watches = "seen"
    def __init__(self):
        super().__init__()
        self.register_buffer("sum", torch.zeros(()))
    def update(self, mean, images):
        self.sum += mean
register("tracked", lambda owned, batch, noise, others: Loss(out(owned, noise).mean(), {"seen": torch.ones(())}),
         trackers=lambda network, fitter: {"watcher": Watcher()})
GAMES["nothing"] = lambda networks, objective, model: None
NETWORKS["list"] = lambda model, data: [Net()]
NETWORKS["alone"] = lambda model, data: {"generator": Net()}
LOSSES["wrong"] = AdversarialLoss(lambda real, fake: real.no_such_method(), lambda fake: fake.mean())
"""


@pytest.fixture(scope="module")
def mine(tmp_path_factory):
    """Import the module above as a user's."""
    folder = tmp_path_factory.mktemp("mine")
    (folder / "mine_for_tiny_rounds.py").write_text(MODULE)
    sys.path.insert(0, str(folder))
    yield "mine_for_tiny_rounds"
    sys.path.remove(str(folder))
    sys.modules.pop("mine_for_tiny_rounds", None)


@pytest.fixture
def play(values, mine):
    values["run"]["imports"] = [mine]

    def make(**changes):
        spec = resolve(config_of(values, **changes))
        return tiny_round.play(spec, open_data(spec.data.shards))

    return make


@pytest.mark.parametrize(
    ("game", "parts"),
    [
        ("field", ["objective.game=field model.name=dcgan", "a round of 2 images", r"py:\d+: KeyError: 'imag'"]),
        ("key", [r"mine_for_tiny_rounds\.py:\d+: KeyError: 'other'"]),
        ("tensor", ["player fitter: forward returned a Tensor; return Loss"]),
        ("vector", [r"player fitter: Loss.total has a gradient and the shape \[2, 1, 16, 16\]; return a scalar"]),
        ("constant", [r"player fitter: Loss.total has no gradient and the shape \[\]"]),
        ("float", ["player fitter: Loss.parts: 'mean' has the type float; return a scalar tensor"]),
        ("multiline", [r"py:\d+: ZeroDivisionError"]),
        ("wide", [r"Game.sample returned \[3, 4, 8, 8\]; return images \[3, 1, 16, 16\]"]),
        ("grows", ["RuntimeError: Trying to backward through the graph a second time"]),
        ("unsaved", ["player fitter: 'net' is not that network of Game.networks"]),
        ("averaged", ["averaged: 'generator' is not among networks: net"]),
        ("unnamed", ["the name 'a/b'; allowed: letters, digits"]),
        ("clash", ["the name 'net_ema' twice"]),
        ("still", ["fresh_batch=False, but a round begins with a new batch; set it to True"]),
        ("nameless", ["players without a name: Nameless"]),
        ("aside", ["player fitter: scale is in none of its networks"]),
        ("nothing", ["objective.game: 'nothing' builds a NoneType; return a Game"]),
    ],
)
def test_a_fault_of_a_game_is_one_line(play, game, parts):
    with pytest.raises(UserError) as caught:
        play(objective__game=game)
    text = str(caught.value)
    assert "\n" not in text
    for part in parts:
        assert re.search(part, text), text


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"model__name": "list"}, "model.name: 'list' builds a list; return a dict of nn.Modules"),
        ({"model__name": "alone"}, "objective.game: gan needs a discriminator, which model.name: alone does not build"),
        ({"objective__loss": "wrong"}, "AttributeError: 'Tensor' object has no attribute 'no_such_method'"),
    ],
)
def test_a_fault_of_networks_and_losses_is_one_line(play, changes, text):
    with pytest.raises(UserError) as caught:
        play(**changes)
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_was_played_is_told(play):
    assert play(objective__game="fine") == (
        "played rounds of 2 images in each of 2 slots and in 1 slot: fitter; drew samples, saved the state, "
        "resumed from it"
    )
    assert "with model.width=16: discriminator, then generator;" in play(model__width=32)


def test_many_turns_are_two(play, monkeypatch):
    played = []
    inner = tiny_round.state_of
    monkeypatch.setattr(tiny_round, "state_of", lambda *given: (played.append(inner(*given)), played[-1])[1])
    play(objective__discriminator_turns=5)
    assert {state.round_images for state in played} == {8, 4}  # Two batches of 2 images in each of 2 slots, and in 1.


@pytest.mark.parametrize(
    "name",
    ["images", "time", "score", "total", "", *(each.key for each in SERIES if each.key not in ("logit", "logit_sign"))],
)
def test_names_of_the_curve_are_refused(play, mine, monkeypatch, name):
    monkeypatch.setitem(sys.modules[mine].LOGGED, name, torch.zeros(()))
    with pytest.raises(UserError, match=r"player fitter: Loss.parts: '.*' is reserved"):
        play(objective__game="fine")


def test_two_players_do_not_log_one_name(play, mine, monkeypatch):
    logged = sys.modules[mine].LOGGED
    monkeypatch.setitem(logged, "distance", torch.zeros(()))
    assert "fitter, then second" in play(objective__game="two")
    monkeypatch.setitem(logged, "penalty/distance", torch.zeros(()))
    with pytest.raises(UserError, match=r"player second: Loss\.parts: 'penalty/distance' is logged by player fitter"):
        play(objective__game="two")
