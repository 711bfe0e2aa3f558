"""Duality gap: 0 at known equilibria, more for a missing mode, equal on any number of ranks; it touches nothing."""

import copy
import math

import pytest
import torch
from torch.nn.functional import softplus

from ganrun.config.load import load_config
from ganrun.config.schema_duality_gap import DualityGapConfig
from ganrun.errors import UserError
from ganrun.evaluation.duality_gap import DualityGap
from ganrun.evaluation.modes import mixture
from ganrun.evaluation.score_pass import ScorePass
from ganrun.models.normalization import SlotBatchNorm2d
from ganrun.models.spectral_norm import SpectralNorm
from ganrun.preparation.points import draw, make_points
from ganrun.slots import Slots
from ganrun.training.state import TrainingState
from tests.conftest import config_of
from tests.evaluation.games import FromMixture, game_of, gap_of, ring_values, subject_of
from tests.games.known import values_of
from tests.ranks import Ranks

RING = "gaussians:8"


@pytest.fixture(scope="module")
def ring(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ring") / "ring"
    make_points(RING, str(folder), 8_000, 0)
    return folder


@pytest.fixture(scope="module")
def gaussian(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gaussian") / "gaussian"
    make_points("points:gaussian", str(folder), 8_000, 0)
    return folder


def set_weights(game, **values):
    with torch.no_grad():
        for network in game.networks.values():
            for name, each in network.named_parameters():
                each.fill_(values.get(name, 0.0))


@pytest.mark.parametrize("loss", ["minimax", "relativistic", "wasserstein", "hinge"])
def test_the_gap_is_0_at_the_equilibrium_of_the_dirac_gan_and_only_there(loss, tmp_path):
    game = game_of(values_of("dirac", tmp_path, {"loss": loss}))
    subject = subject_of(game, "package:dirac")
    set_weights(game)
    assert gap_of(subject, learning_rate=0.1)["duality_gap"] == 0
    for away in ({"theta": 0.3}, {"psi": 0.3}):
        set_weights(game, **away)
        found = gap_of(subject, learning_rate=0.1)
        assert found["duality_gap"] > 0.1
        gains = found["discriminator_gain"], found["generator_gain"]
        assert (gains[0] > 0) == ("theta" in away)
        assert (gains[1] > 0) == ("psi" in away)


def test_the_gap_is_below_a_thousandth_at_the_equilibrium_of_the_linear_quadratic_game(gaussian, tmp_path):
    game = game_of(values_of("linear_quadratic", tmp_path, {"loss": "minimax"}))
    set_weights(game, a=1.0)
    subject = subject_of(game, gaussian, samples=2_000)
    at = gap_of(subject, learning_rate=1e-2)
    assert 0 <= at["duality_gap"] < 1e-3
    assert at["discriminator_error"] < 1e-6  # D is 1/2 everywhere, and so is the optimal one.
    set_weights(game, a=0.5)
    away = gap_of(subject, learning_rate=1e-2)
    assert away["duality_gap"] > 0.01
    assert away["discriminator_error"] > 0.05


def test_the_gap_of_a_generator_that_is_the_data_is_below_a_thousandth(ring):
    game = game_of(ring_values(ring), train__precision="float64")
    with torch.no_grad():
        for each in game.networks["discriminator"].layers[-1].parameters():
            each.zero_()  # D is 1/2 everywhere.
    networks = game.networks | {"generator": FromMixture(RING)}
    found = gap_of(subject_of(game, ring, samples=1_500, networks=networks))
    assert 0 <= found["duality_gap"] < 1e-3
    assert found["game_value"] == pytest.approx(-math.log(4))
    assert found["game_value_excess"] == pytest.approx(0, abs=1e-9)


def test_the_gap_is_made_of_v_as_the_formula_says(tmp_path):
    game = game_of(values_of("dirac", tmp_path, {"loss": "non_saturating"}))
    set_weights(game, theta=0.5, psi=2.0)
    subject = subject_of(game, "package:dirac")
    found = gap_of(subject, steps=1, learning_rate=0.25)
    value = float(-softplus(torch.tensor(0.0)) - softplus(torch.tensor(1.0)))
    assert found["game_value"] == pytest.approx(value, abs=1e-6)
    # Adam's first step is the learning rate, against the gradient: psi becomes 1.75, or theta 0.75.
    raised = float(-softplus(torch.tensor(0.0)) - softplus(torch.tensor(0.875)))
    lowered = float(-softplus(torch.tensor(0.0)) - softplus(torch.tensor(1.5)))
    assert found["discriminator_gain"] == pytest.approx(raised - value, abs=1e-5)
    assert found["generator_gain"] == pytest.approx(value - lowered, abs=1e-5)
    assert found["duality_gap"] == pytest.approx(raised - lowered, abs=1e-5)


def test_a_best_response_keeps_to_the_clipping_and_the_penalties_of_the_run(tmp_path):
    def gain(**objective):
        game = game_of(values_of("dirac", tmp_path, {"loss": "wasserstein", **objective}))
        set_weights(game, theta=1.0)
        return gap_of(subject_of(game, "package:dirac"), steps=120, learning_rate=0.05)["discriminator_gain"]

    assert gain(weight_clip=0.25) == pytest.approx(0.25, abs=1e-3)  # V = -theta psi.
    assert gain(penalties={"r1": 2.0}) == pytest.approx(0.5, abs=0.02)  # -psi - psi^2 is largest at -1/2.
    assert gain() > 2


@pytest.fixture(scope="module")
def trained(ring):
    """A generator trained on the ring for 700 rounds, with its discriminator."""
    config = config_of(ring_values(ring))
    state = TrainingState(game_of(ring_values(ring)), config.run, config.data, config.optimizer, config.train, Slots(1))
    points = torch.from_numpy(draw(mixture(RING), 8_000, 1)[0])[:, :, None, None]
    random = torch.Generator().manual_seed(0)
    for _ in range(700):
        chosen = torch.randint(0, len(points), (128,), generator=random)
        state.round(lambda chosen=chosen: [{"image": points[chosen]}])
    return state.game, state.ema_networks


class Without(torch.nn.Module):
    """A generator without the mode at angle 0: its points there are turned to the next one."""

    def __init__(self, generator):
        super().__init__()
        self.generator = generator
        turn = math.pi / 4
        matrix = [[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]]
        self.register_buffer("turn", torch.tensor(matrix))

    def forward(self, z, label=None):
        points = self.generator(z)[:, :, 0, 0]
        angle = torch.atan2(points[:, 1], points[:, 0])
        turned = torch.where((angle.abs() < math.pi / 8)[:, None], points @ self.turn.T, points)
        return turned[:, :, None, None]


def test_the_gap_rises_when_a_mode_is_removed_from_a_trained_generator(trained, ring):
    game, networks = trained
    whole = gap_of(subject_of(game, ring, samples=1_000, networks=networks))
    cut = networks | {"generator": Without(networks["generator"]).eval()}
    missing = gap_of(subject_of(game, ring, samples=1_000, networks=cut))
    three_errors = 3 * math.hypot(whole["duality_gap_deviation"], missing["duality_gap_deviation"])
    assert missing["duality_gap"] > whole["duality_gap"] + three_errors
    assert missing["discriminator_gain"] > whole["discriminator_gain"]


def test_the_gap_is_the_same_on_any_number_of_ranks_and_twice(trained, ring):
    game, networks = trained
    score = DualityGap(DualityGapConfig(steps=5))
    alone = score.start(subject_of(game, ring, networks=networks))
    again = DualityGap(DualityGapConfig(steps=5)).start(subject_of(game, ring, networks=networks))
    for size in (2, 3):
        parts = [
            score.start(subject_of(game, ring, group=Ranks(rank, size), networks=networks)) for rank in range(size)
        ]
        for name, value in alone.items():
            assert torch.equal(sum(part[name] for part in parts), value)
            assert torch.equal(again[name], value)
    assert (parts[1]["values"] == 0).all()  # The first rank has the discriminator, the last the generator.


@pytest.mark.parametrize("model", [{"spectral_norm": True}, {"minibatch_stddev": True}], ids=["spectral", "batch norm"])
def test_nothing_of_the_run_moves(model, values, data_folder):
    game = game_of(values | {"model": values["model"] | model, "objective": {"loss": "hinge"}})
    for network in game.networks.values():
        network.train()
    kinds = {type(module) for module in game.networks["discriminator"].modules()}
    assert (SpectralNorm if "spectral_norm" in model else SlotBatchNorm2d) in kinds
    before = copy.deepcopy({name: network.state_dict() for name, network in game.networks.items()})
    random = torch.random.get_rng_state()
    subject = subject_of(game, data_folder, kind="image", samples=30)
    assert gap_of(subject, steps=3)["duality_gap"] >= 0
    for name, network in game.networks.items():
        for key, value in network.state_dict().items():
            assert torch.equal(value, before[name][key]), f"{name}.{key}"
        assert network.training
        assert all(each.grad is None for each in network.parameters())
        assert [norm.recorded for norm in network.modules() if isinstance(norm, SlotBatchNorm2d) if norm.recorded] == []
    assert torch.equal(torch.random.get_rng_state(), random)


def test_labels_of_the_held_out_images_are_conditions_of_both_players(values, data_folder):
    from ganrun.config.schema import FieldConfig

    values["model"]["classes"] = 3
    values["data"]["fields"] = {"image": "image", "label": "label"}
    game = game_of(values)
    subject = subject_of(game, data_folder, kind="image", samples=30)
    subject.reals.fields["label"] = FieldConfig(kind="label")
    assert gap_of(subject, steps=2)["duality_gap"] > 0


def test_a_value_that_is_not_finite_is_no_number(tmp_path):
    game = game_of(values_of("dirac", tmp_path, {}))
    set_weights(game, theta=math.nan)
    with pytest.raises(ValueError, match=r"V is not finite; a lower evaluate\.duality_gap\.learning_rate"):
        gap_of(subject_of(game, "package:dirac"))


def test_what_it_needs_is_said_in_a_line(tmp_path, ring):
    game = game_of(values_of("dirac", tmp_path, {}))
    refused = {
        "no samples are held out; set evaluate.held_out_share, or evaluate.shards": subject_of(
            game, "package:dirac", share=0.0
        ),
        "there are 3 held-out samples, and it needs at least 4": subject_of(game, "package:dirac", samples=3),
        "it needs two players with one value": subject_of(
            game_of(ring_values(ring, objective={"feature_matching": True})), ring
        ),
    }
    for reason, subject in refused.items():
        with pytest.raises(UserError, match=f"metrics: duality_gap cannot be computed: {reason}") as told:
            ScorePass({"duality_gap": DualityGap(DualityGapConfig())}, subject)
        assert "\n" not in str(told.value)


HELD_OUT = "evaluate.held_out_share=0.1"
FAULTS = {
    "one player": (
        ("heights_mixture", "evaluate.metrics=[duality_gap]"),
        "evaluate.metrics: duality_gap is of two players, but objective.game: likelihood has one; leave it out",
    ),
    "players of two values": (
        ("gain_letter", "evaluate.metrics=[duality_gap]"),
        "evaluate.metrics: duality_gap is of two players with one value, but those of objective.game: gain have two",
    ),
    "nothing held out": (
        ("quickstart", "evaluate.metrics=[duality_gap]"),
        "evaluate.metrics: duality_gap needs held-out samples, and nothing is held out; set "
        "evaluate.held_out_share=0.1, or evaluate.shards",
    ),
    "other aims": (
        ("quickstart", "evaluate.metrics=[duality_gap]", HELD_OUT, "objective.feature_matching=true"),
        "evaluate.metrics: duality_gap is of two players with one value, but the generator of "
        "objective.feature_matching has another aim; leave one of them out",
    ),
    "unused": (
        ("quickstart", "evaluate.duality_gap.steps=3"),
        "evaluate.duality_gap: has no effect without its score; add duality_gap to evaluate.metrics",
    ),
    "images": (
        ("quickstart", "evaluate.metrics=[kl]"),
        "evaluate.metrics: kl needs the density of the data, which points of a known mixture have and images do not",
    ),
    "latent": (
        ("dirac", "model.name=linear_quadratic", "model.latent=uniform"),
        "model.latent_size: 1 and model.latent: uniform, but model.name: linear_quadratic has a normal z of "
        "data.channels: 1; set model.latent_size=1 model.latent=normal",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_config_that_cannot_have_it_is_refused_in_a_line(fault):
    (name, *overrides), message = FAULTS[fault]
    with pytest.raises(UserError) as told:
        load_config(f"configs/{name}.yaml", overrides)
    assert message in str(told.value)


def test_a_run_may_follow_it():
    config = load_config(
        "configs/quickstart.yaml", ["evaluate.metrics=[duality_gap]", HELD_OUT, "evaluate.best.metric=duality_gap"]
    )
    assert config.evaluate.best.metric == "duality_gap"
