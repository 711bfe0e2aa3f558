"""Tiny rounds of a config's game on made-up data, which find the faults of a user's own code before a run does."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch

from ganrun.config.imports import describe
from ganrun.config.registry import NETWORKS
from ganrun.config.run_spec import RunSpec
from ganrun.data.decode import normalised
from ganrun.data.index import DataSet
from ganrun.data.made_up import MadeUpBatches
from ganrun.errors import RunError, UserError
from ganrun.games.build import build_game
from ganrun.rng import KeyedNoise
from ganrun.slots import Slots
from ganrun.training.new_state import state_of
from ganrun.training.state import TrainingState

IMAGES = 2
"""Images per slot: enough for statistics over a batch, and few enough for large networks."""
TURNS = 2
"""Most turns of a player in a round: the third repeats the second."""
WIDTH = 16
"""Greatest width of ganrun's own networks."""
PASS = 64
"""Samples in each of two chunks that weights are set by, as a run does before its first round."""
SAMPLES = 3
"""Images that are sampled: another number than a batch has."""
CPU = torch.device("cpu")


def play(spec: RunSpec, data: DataSet) -> str:
    """Play a tiny round with one slot and one with two on the CPU, as a run does, sample, and resume from the state.

    Returns:
        What was played, as one line.

    Raises:
        UserError: something failed; one line with the config's keys, the place in the user's own code, and the cause.
    """
    tiny, batches = _tiny(spec), MadeUpBatches(spec.data, data)
    for slots in (2, 1):
        with _named(spec, "building the game"):
            state = _new_state(tiny, slots, batches)
        with _named(spec, f"drawing {SAMPLES} samples"):
            _check_samples(state, spec, batches)
        _round(state, batches, spec)
    with _named(spec, "loading the saved state"):
        resumed = _new_state(tiny, slots, batches)
        resumed.load_state_dict(state.state_dict())
    _round(resumed, batches, spec)
    narrow = f" with model.width={tiny.model.width}" if tiny.model.width < spec.model.width else ""
    players = ", then ".join(player.name for player in state.game.players)
    return (
        f"played rounds of {state.batch_size} images in each of 2 slots and in 1 slot{narrow}: {players}; "
        "drew samples, saved the state, resumed from it"
    )


def _tiny(spec: RunSpec) -> RunSpec:
    """Return the config with narrow networks if they are ganrun's: every width takes the same steps."""
    family = NETWORKS.get(spec.model.name)
    build, width = family and family.build, min(spec.model.width, WIDTH)
    if not (isinstance(build, str) and build.startswith("ganrun.")):
        return spec
    return spec.model_copy(update={"model": spec.model.model_copy(update={"width": width})})


def _new_state(spec: RunSpec, slots: int, batches: MadeUpBatches) -> TrainingState:
    """Return the state of a run of the config with so many slots, of at most IMAGES images and TURNS turns each."""
    batch_size = slots * min(IMAGES, spec.data.batch_size // spec.slots)
    data = spec.data.model_copy(update={"batch_size": batch_size, "slots": slots})
    spec = spec.model_copy(update={"data": data})
    game = build_game(spec, CPU)
    for player in game.players:
        player.turns = min(player.turns, TURNS)
    if game.initialise is not None:
        dtype = next(next(iter(game.networks.values())).parameters()).dtype
        chunks = [normalised(batches.next(PASS), dtype) for _ in range(2)]
        noise = KeyedNoise(spec.run.seed, 0, 0, 0, CPU, dtype)
        game.initialise(
            lambda: ((batch, replace(noise, slot=slot)) for slot, batch in enumerate(chunks)), lambda sums: None
        )
    return state_of(game, spec, Slots(slots))


def _round(state: TrainingState, batches: MadeUpBatches, spec: RunSpec) -> None:
    slots = state.slots.total
    count = state.batch_size // slots
    with _named(spec, f"a round of {count} images in each of {slots} slots"):
        state.round(lambda: [batches.next(count) for _ in range(slots)])
        state.recorder.read()


@contextmanager
def _named(spec: RunSpec, doing: str) -> Iterator[None]:
    """Raise what fails in this block as a UserError of one line."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        names = f"objective.game={spec.objective.game} model.name={spec.model.name}"
        cause = str(error) if isinstance(error, RunError) else describe(error, spec.run.imports)
        raise UserError(f"{names}: {doing}: {cause}") from error


def _check_samples(state: TrainingState, spec: RunSpec, batches: MadeUpBatches) -> None:
    game, (channels, size) = state.game, spec.data.shape(spec.objective.target)
    noise = KeyedNoise(state.seed, 0, 0, 0, state.device, state.dtype).under("samples")
    with torch.inference_mode():
        given = game.condition.by_number(0, SAMPLES, state.device)
        if given is None:
            given = game.condition.of(state.normalise(batches.next(SAMPLES)), noise)
        images = game.sample(state.ema_networks, SAMPLES, noise, given)
    shape = [SAMPLES, channels, size, size]
    if not isinstance(images, torch.Tensor) or list(images.shape) != shape:
        found = list(images.shape) if isinstance(images, torch.Tensor) else type(images).__name__
        raise UserError(f"objective.game: {spec.objective.game}: Game.sample returned {found}; return images {shape}")
