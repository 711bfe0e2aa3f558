"""A round reads all that varies from fixed memory: its recorded operations, run again, are the next rounds."""

import math

import pytest
import torch

from ganrun.config.registry import GAMES, LOSSES, PENALTIES
from ganrun.games.ada_transforms import GROUPS
from ganrun.games.losses import AdversarialLoss
from ganrun.slots import Slots
from ganrun.training.new_state import new_state
from ganrun.training.state import TrainingState
from tests.conftest import config_of
from tests.families import FAMILIES, values_of
from tests.paired import paired
from tests.replaying import Recording

CPU = torch.device("cpu")
ROUNDS = 4
OBJECTIVES = {
    **{loss: {"loss": loss} for loss in ("minimax", "least_squares", "hinge", "wasserstein", "relativistic")},
    # That of sentences is in the family dcgan_text.
    **{name: {"penalties": {name: 1.0}} for name in PENALTIES if name != "matching_aware"},
    "clip": {"loss": "wasserstein", "weight_clip": 0.01, "discriminator_turns": 2},
    "noise": {"instance_noise": 0.5, "instance_noise_images": 1_000},
    "ada": {"ada_target": 0.6, "ada_images": 100},
    "ada_all": {"ada_target": 0.6, "ada_images": 100, "ada_transforms": list(GROUPS)},
    "diffaugment": {"diffaugment": ["color", "translation", "cutout"]},
    "flipping": {"label_flipping": 0.5, "label_smoothing": 0.1},
}
TRANSLATIONS = {
    **{loss: {"loss": loss} for loss in ("minimax", "least_squares", "hinge", "wasserstein", "relativistic")},
    **{name: {"penalties": {name: 1.0}} for name in ("r1", "wgan_gp")},
    **{term: {"reconstruction": {term: 1.0}} for term in ("l1", "l2", "feature_matching", "perceptual")},
    "augmented": {"diffaugment": ["color", "translation", "cutout"], "ada_target": 0.6, "ada_images": 100},
    "ada_all": {"ada_probability": 0.5, "ada_transforms": list(GROUPS)},
    "flipping": {"label_flipping": 0.5},
}
"""Objectives of runs that translate pictures, with pix2pix's networks."""
OPTIMIZERS = {
    "adamw": {"name": "adamw", "weight_decay": 0.1},
    "sgd": {"name": "sgd", "momentum": 0.9, "learning_rate": 1e-3},
    "warm-up": {"warmup_images": 100, "schedule": "linear"},
    "clipped": {"clip_norm": 0.1, "schedule": "cosine"},
}
LATENTS = ("uniform", "truncated", "hypersphere")


def batches_of(config, seed):
    """Random samples of each slot, of the kinds of fields that the config reads."""
    random, data = torch.Generator().manual_seed(seed), config.data
    count = data.batch_size // config.slots
    found = []
    for _ in range(config.slots):
        batch = {}
        for name in [name for name, field in data.fields.items() if field.kind in ("image", "point")]:
            channels, size = data.shape(name)
            shape = (count, channels, size, size)
            batch[name] = torch.randint(0, 256, shape, generator=random, dtype=torch.uint8)
            if data.fields[name].kind == "point":
                batch[name] = torch.randn(shape, generator=random)
        if "embedding" in data.fields:
            batch["embedding"] = torch.randn(count, 2, config.objective.text.size, generator=random)
            batch["embedding"][::2, 1] = torch.nan  # One caption.
            batch["text"] = ["a\nb"] * count
        if "label" in data.fields:
            batch["label"] = torch.randint(0, 3, (count,), generator=random)
        found.append(batch)
    return found


class Rounds:
    """A training state with its own sequence of batches."""

    def __init__(self, config):
        self.state: TrainingState = new_state(config, CPU, Slots(config.slots))
        self.config, self.seed = config, 0

    def batches(self):
        self.seed += 1
        return batches_of(self.config, self.seed)

    def eager(self, rounds):
        for _ in range(rounds):
            self.state.round(self.batches)

    def record(self):
        """Play one round, and return its operations beside the filling of the inputs."""
        inputs = self.state.fill(self.batches)
        with Recording() as recording:
            self.state.play(inputs)
        self.state.advance()
        return inputs, recording

    def replay(self, inputs, recording):
        assert self.state.fill(self.batches) is inputs
        recording.replay()
        self.state.advance()

    def tensors(self):
        tensors, _ = self.state.state_dict()
        return {f"{group}/{name}": tensor for group, part in tensors.items() for name, tensor in part.items()}


def check(config, period=1):
    """Compare eager rounds with replayed ones. `period`: number of rounds after which the kinds of rounds repeat."""
    eager, replayed = Rounds(config), Rounds(config)
    eager.eager((2 + ROUNDS) * period)
    replayed.eager(period)
    recorded = [replayed.record() for _ in range(period)]
    for _ in range(ROUNDS):
        for inputs, recording in recorded:
            replayed.replay(inputs, recording)
    for inputs, recording in recorded:
        assert inputs.noise.is_complete
        # Reading a learning rate on the CPU is the fused optimizer's; on a GPU its kernel does.
        assert recording.reads == recording.fresh == []
    expected = eager.tensors()
    assert replayed.tensors().keys() == expected.keys()
    for name, tensor in replayed.tensors().items():
        assert torch.equal(tensor, expected[name]), name
    assert eager.state.images == replayed.state.images
    return recorded


def family_config(name, values, slots):
    values = values_of(name, values)
    values["data"]["slots"] = slots
    values["train"]["total_images"] = 100_000
    if name == "srgan":  # Rounds without discriminator are of another kind.
        values["objective"] = values["objective"] | {"reconstruct_first_images": 0}
    if name == "tricks":  # Instance noise ends with these images: rounds after it are of another kind.
        values["objective"] = values["objective"] | {"instance_noise_images": 10_000}
    return config_of(values)


@pytest.mark.parametrize("slots", [1, 2])
@pytest.mark.parametrize("name", FAMILIES)
def test_a_round_of_each_family(name, slots, values):
    config = family_config(name, values, slots)
    objective = config.objective
    check(
        config,
        period=math.lcm(
            objective.penalty_every_rounds, objective.path_length_every_rounds if objective.path_length else 1
        ),
    )


def test_a_round_of_reconstruction_alone(values):
    values = values_of("srgan", values)
    values["train"]["total_images"] = values["objective"]["reconstruct_first_images"] = 100_000
    check(config_of(values))


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_round_of_each_objective(objective, values):
    check(_with(values, OBJECTIVES[objective]))


def _with(values, objective, **sections):
    return config_of(values | {"objective": objective, **sections}, data__slots=2, train__total_images=100_000)


@pytest.mark.parametrize("objective", TRANSLATIONS)
def test_a_round_that_translates_pictures(objective, values):
    config = config_of(paired(values, "none", objective=TRANSLATIONS[objective]), data__slots=2)
    check(config)


@pytest.mark.parametrize("slots", [1, 2])
def test_a_round_of_which_every_number_has_a_schedule(slots, values):
    def until(images, begin, end):
        return {"schedule": "cosine", "from": begin, "to": end, "until_images": images}

    adam = {"learning_rate": until(90, 1e-3, 1e-4), "beta1": until(200, 0.0, 0.5), "beta2": until(100, 0.9, 0.99)}
    values["train"]["average_half_life_images"] = until(80, 0, 50)
    objective = {
        "penalties": {"r1": until(100, 2.0, 0.2), "dragan": 1.0},
        "instance_noise": until(1_000, 0.1, 0.5),
        "ada_probability": until(100, 0.0, 0.9),
    }
    config = _with(values, objective, optimizer={"discriminator": adam, "generator": adam})
    check(config.model_copy(update={"data": config.data.model_copy(update={"slots": slots})}))


def test_a_probability_that_does_not_adapt_watches_nothing(values):
    """The sign of D(real), which some losses give no meaning, is neither logged nor gathered over the workers."""
    rounds = Rounds(_with(values, {"ada_probability": 0.3}))
    rounds.eager(1)
    names = [name for name in rounds.state.recorder.names if "augmentation" in name]
    assert [name.rpartition("/")[2] for name in names] == ["strength"]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_round_of_each_optimizer_and_schedule(optimizer, values):
    settings = OPTIMIZERS[optimizer]
    check(_with(values, {}, optimizer={"discriminator": settings, "generator": settings}))


@pytest.mark.parametrize("latent", LATENTS)
def test_a_round_of_each_latent(latent, values):
    values["model"]["latent"] = latent
    check(_with(values, {}))


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_a_round_in_each_precision(precision, values):
    values["train"]["precision"] = precision
    check(_with(values, {}))


def test_lazy_penalties_are_a_kind_of_round(values):
    (with_penalty, due), (without, rest) = check(
        _with(values, {"penalties": {"r1": 1.0}, "penalty_every_rounds": 2}), period=2
    )
    assert with_penalty is not without
    assert len(due.names) != len(rest.names)


def test_rounds_after_the_last_instance_noise_are_a_kind_of_their_own(values):
    rounds = Rounds(_with(values, {"instance_noise": 0.5, "instance_noise_images": 20}))
    kinds = [rounds.record()[0] for _ in range(4)]
    assert kinds[0] is kinds[1]
    assert kinds[1] is not kinds[2]
    assert kinds[2] is kinds[3]


def test_a_player_that_begins_later_is_a_kind_of_round_of_its_own(values, monkeypatch):
    def waiting(networks, objective, model):
        game = GAMES["gan"](networks, objective, model)
        game.players[0].active = lambda images: images >= 72
        return game

    monkeypatch.setitem(GAMES.data, "waiting", waiting)
    config = _with(values, {"game": "waiting"})
    eager, replayed = Rounds(config), Rounds(config)
    eager.eager(12)
    for _ in range(2):  # Six rounds of 12 images without the discriminator, and six with it.
        replayed.eager(1)
        inputs, recording = replayed.record()
        for _ in range(4):
            replayed.replay(inputs, recording)
    for name, tensor in replayed.tensors().items():
        assert torch.equal(tensor, eager.tensors()[name]), name


def test_a_number_that_is_baked_in_fails(values, monkeypatch):
    calls = []

    def varying(real, fake):
        calls.append(1)
        return (real - fake).mean() * len(calls)

    monkeypatch.setitem(LOSSES.data, "varying", AdversarialLoss(varying, lambda fake: -fake.mean()))
    with pytest.raises(AssertionError):
        check(_with(values, {"loss": "varying"}))


def test_the_number_of_operations_of_a_round(values):
    """Of the DCGAN of configs/quickstart.yaml with one slot: launches on a GPU. 487 before rounds had fixed inputs."""
    values["data"] |= {"image_size": 32, "slots": 1}
    values["model"]["width"] = 8
    assert operations(values) <= 350


def operations(values):
    rounds = Rounds(config_of(values, train__precision="float32"))
    rounds.eager(1)
    _, recording = rounds.record()
    return len(recording.names)


@pytest.mark.parametrize(("transforms", "at_most"), [(("blit", "geometric", "color"), 140), (tuple(GROUPS), 230)])
def test_the_number_of_operations_that_ada_adds_to_a_round(transforms, at_most, values):
    """Of the same networks with RGB images. A smaller set of transforms, without filters, took 531."""
    values["data"] |= {"image_size": 32, "channels": 3, "slots": 1}
    values["model"]["width"] = 8
    without = operations(values)
    added = operations(values | {"objective": {"ada_probability": 0.3, "ada_transforms": transforms}}) - without
    print(without, added)
    assert added <= at_most
