"""Optional parts of the objective: each acts at the right time, on the right images, and on nothing else."""

import copy

import pytest
import torch

from ganrun.config.registry import LOSSES
from ganrun.games.losses import feature_matching
from tests.conditional import conditional
from tests.games.test_gan import Source, bytes_of, clone, play_of


def counted(network):
    """The calls of a network from now on."""
    calls = []
    network.register_forward_hook(lambda module, inputs, output: calls.append((inputs, output)))
    return calls


def turn(state, number, batch, others=None):
    """The loss of a player's forward pass on one slot."""
    player = state.game.players[number]
    others = {name: network for name, network in state.game.networks.items() if name not in player.owned}
    return player(batch, next(state._noises(0, 0)), others)


def frozen(values, **changes):
    """A play on one slot in which nothing moves."""
    still = {"learning_rate": 1e-30}
    return play_of(values, data__slots=1, optimizer__discriminator=still, optimizer__generator=still, **changes)


@pytest.mark.parametrize(
    ("loss", "passes"), [("non_saturating", 3), ("hinge", 3), ("wasserstein", 3), ("relativistic", 4)]
)
def test_only_relativistic_losses_show_the_generator_real_images(values, loss, passes):
    state = frozen(values, objective__loss=loss)
    discriminator, generator = (counted(state.game.networks[name]) for name in ("discriminator", "generator"))
    state.round(Source())
    assert (len(discriminator), len(generator)) == (passes, 2)


def test_the_relativistic_generator_compares_with_the_images_of_the_batch(values):
    state = frozen(values, objective__loss="relativistic")
    batch, networks = state.normalise({"image": bytes_of(1)}), copy.deepcopy(state.game.networks)
    z = next(state._noises(0, 0)).normal(12, 8, name="generator/z")
    real, fake = networks["discriminator"](batch["image"]), networks["discriminator"](networks["generator"](z))
    expected = LOSSES["relativistic"].generator(real, fake)
    torch.testing.assert_close(turn(state, 1, batch).total, expected)


def test_feature_matching_takes_the_place_of_the_generators_loss(values):
    state = frozen(values, objective__feature_matching=True)
    batch, networks = state.normalise({"image": bytes_of(1)}), state.game.networks
    z = next(state._noises(0, 0)).normal(12, 8, name="generator/z")
    features = networks["discriminator"].features
    expected = feature_matching(features(batch["image"]), features(networks["generator"](z)))
    loss = turn(state, 1, batch)
    torch.testing.assert_close(loss.total, expected)
    gradient = torch.autograd.grad(loss.total, networks["generator"].layers[0].weight)[0]
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, networks["generator"].layers[0].weight)[0])


def test_smoothing_adds_to_the_discriminators_loss_alone(values):
    batch = play_of(values).normalise({"image": bytes_of(1)})
    plain, smooth = (
        [turn(frozen(values, objective__label_smoothing=amount), player, batch) for player in (0, 1)]
        for amount in (0.0, 0.1)
    )
    added = 0.1 * plain[0].parts["logit/real"]
    torch.testing.assert_close(smooth[0].total - plain[0].total, added)
    assert torch.equal(smooth[1].total, plain[1].total)


def test_flipping_changes_the_discriminators_loss_alone_and_not_the_scores(values):
    batch = play_of(values).normalise({"image": bytes_of(1)})
    plain, flipped = (
        [turn(frozen(values, objective__label_flipping=share), player, batch) for player in (0, 1)]
        for share in (0.0, 0.5)
    )
    assert not torch.equal(flipped[0].total, plain[0].total)
    assert torch.equal(flipped[0].parts["logit/real"], plain[0].parts["logit/real"])
    assert torch.equal(flipped[1].total, plain[1].total)


@pytest.mark.parametrize(
    "changes",
    [
        {"objective__diffaugment": ["color", "translation", "cutout"]},
        {"objective__instance_noise": 0.1},
        {"objective__ada_target": 0.6},
    ],
    ids=["diffaugment", "noise", "adaptive"],
)
def test_the_discriminator_sees_no_image_as_it_is(values, changes):
    state = frozen(values, objective__loss="relativistic", **changes)
    if state.game.trackers:
        state.game.trackers["augmentation"].strength.fill_(1.0)
    discriminator, generator = (counted(state.game.networks[name]) for name in ("discriminator", "generator"))
    source = Source()
    state.round(source)
    real = source.given[0][0].double() / 127.5 - 1
    shown = [inputs[0] for inputs, _ in discriminator]
    made = [output for _, output in generator]
    # D's turn: real, generated; G's turn: real, generated. Each pass with randomness of its own.
    for seen, image in zip(shown, (real, made[0], real, made[1]), strict=True):
        assert seen.shape == image.shape
        assert not torch.isclose(seen, image).flatten(1).all(1).any()
    assert not torch.allclose(shown[0], shown[2])


@pytest.mark.parametrize("bound", [0.01, 0.05])
def test_weights_are_clipped_after_each_step(values, bound):
    state = play_of(values, objective__weight_clip=bound, objective__discriminator_turns=2)
    before = clone(state.game.networks["generator"])
    state.round(Source(6, 2))
    for parameter in state.game.networks["discriminator"].parameters():
        assert parameter.abs().max() <= bound
    generator = state.game.networks["generator"].state_dict()
    assert any(tensor.abs().max() > bound for tensor in generator.values())
    assert not torch.equal(generator["layers.0.weight"], before["layers.0.weight"])


@pytest.mark.parametrize("kind", ["uniform", "truncated", "hypersphere"])
def test_both_players_draw_z_as_the_config_says(values, kind):
    state = frozen(values, model__latent=kind)
    calls = counted(state.game.networks["generator"])
    state.round(Source())
    z = torch.cat([inputs[0] for inputs, _ in calls])
    if kind == "hypersphere":
        torch.testing.assert_close(z.norm(dim=1), torch.full((24,), 8**0.5, dtype=torch.float64))
    else:
        assert z.abs().max() <= {"uniform": 1, "truncated": 2}[kind]


# The adaptive strength.


def test_the_strength_follows_the_mean_over_the_slots_of_what_the_discriminator_says_of_real_images(values):
    state = play_of(values, objective__ada_target=0.6, objective__ada_images=96)
    tracker, rows = state.game.trackers["augmentation"], []
    take = state.player_steps[0].apply
    state.player_steps[0].apply = lambda *given: (rows.append(take(*given)), rows[-1])[1]
    source = Source(6, 2)
    for _ in range(3):
        state.round(source)
    signs = [torch.stack([row["logit_sign/real"] for row in record.rows]) for record in rows]
    assert all(len(each) == 6 for each in signs)
    torch.testing.assert_close(tracker.signs, torch.stack(signs).mean(1).sum())
    assert (tracker.turns.item(), tracker.strength.item()) == (3, 0)
    with torch.no_grad():
        tracker.signs.fill_(100.0)
    state.round(source)
    assert (tracker.turns.item(), tracker.signs.item(), tracker.strength.item()) == (0, 0, 0.5)


def test_without_adaptive_augmentation_nothing_is_tracked(values):
    state = play_of(values)
    assert state.game.trackers == {}
    parts = turn(state, 0, state.normalise({"image": bytes_of(1)})).parts
    assert parts.keys() == {"logit/real", "logit/fake", "logit_sign/real"}


# Labels.


def labelled(slots=1, size=12):
    return [{"image": bytes_of(slot, size), "label": torch.arange(slot, slot + size) % 3} for slot in range(slots)]


def test_the_labels_of_the_batch_go_with_real_and_generated_images(values):
    state = play_of(conditional(values), data__slots=1, objective__loss="relativistic")
    calls = {name: counted(network) for name, network in state.game.networks.items()}
    state.round(labelled)
    assert [len(each) for each in calls.values()] == [2, 4]
    for inputs, _ in [*calls["generator"], *calls["discriminator"]]:
        assert torch.equal(inputs[1], labelled()[0]["label"])


def test_both_networks_learn_what_labels_mean(values):
    state = play_of(conditional(values), objective__penalties={"r1": 1.0, "wgan_gp": 1.0})
    before = {name: clone(network) for name, network in state.game.networks.items()}
    state.round(lambda: labelled(6, 2))
    for name, key in (("generator", "shade.weight"), ("discriminator", "label.weight")):
        after = state.game.networks[name].state_dict()[key]
        assert (after != before[name][key]).any(dim=1).all()


def test_an_unconditional_game_takes_no_notice_of_labels(values):
    state = play_of(values, data__slots=1)
    calls = {name: counted(network) for name, network in state.game.networks.items()}
    state.round(labelled)
    assert not any(inputs[1] for each in calls.values() for inputs, _ in each)
    assert state.game.condition.by_number(0, 4, state.device) == {}


def test_labels_to_generate_for_are_the_classes_in_turn(values):
    game = play_of(conditional(values)).game
    assert game.condition.by_number(0, 7, torch.device("cpu"))["label"].tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert game.condition.by_number(5, 2, torch.device("cpu"))["label"].tolist() == [2, 0]
