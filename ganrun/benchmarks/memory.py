"""Forecast of a worker's memory, from rounds on torch's meta device: tensors with shapes and without numbers."""

import math
import weakref
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ganrun.benchmarks.rounds import a_batch, changed
from ganrun.config.registry import OPTIMIZERS
from ganrun.config.run_spec import RunSpec
from ganrun.config.schema_optimizer import PlayerOptimizerConfig
from ganrun.games.build import build_game
from ganrun.games.game import Game
from ganrun.slots import Slots
from ganrun.training.new_state import state_of
from ganrun.training.state import TrainingState

META = torch.device("meta")


class Memory(NamedTuple):
    """Bytes on the device of a worker with one slot, without CUDA's context and the workspaces of its libraries."""

    weights: int
    """Networks and their averages."""
    optimizer: int
    """Gradients and moments."""
    activations: int
    """Most that a round adds: activations, gradients before they are gathered, noise."""

    @property
    def total(self) -> int:
        """Bytes of all."""
        return sum(self)


def forecast(spec: RunSpec) -> Memory:
    """Forecast the memory of a worker with one slot: the rounds of the config, played without numbers.

    With bf16, passes are taken to be in bf16 throughout, unless there are gradient penalties: those are in float32.

    Raises:
        RuntimeError, NotImplementedError: the user's own code reads numbers, or runs what the meta device has not.
    """
    halved = spec.train.precision == "bf16" and not spec.objective.penalties
    spec = changed(spec, data__batch_size=spec.data.batch_size // spec.slots, data__slots=1)
    if spec.train.precision == "bf16":  # torch has no autocast for the meta device.
        spec = changed(spec, train__precision="float32")
    game = build_game(spec, META)
    parameters = {player.name: _bytes(player.owned.parameters()) for player in game.players}
    weights = _bytes(_tensors(game)) + sum(_bytes(_state(game.networks[name])) for name in game.averaged)
    if halved:
        for network in game.networks.values():
            network.to(torch.bfloat16)
    moments = {each.name: _moments(spec.optimizer.of(each.name)) for each in game.players}
    with _LiveBytes() as memory:
        state = state_of(game, spec, Slots(1))
        before = memory.live
        _play(state, spec)
        added = memory.peak - before
    if halved:  # Gradients of the parameters are float32, and autocast keeps bf16 copies of weights.
        added += max(parameters.values())
    optimizer = sum((1 + moments[name]) * size for name, size in parameters.items())
    return Memory(weights, optimizer, added)


def _play(state: TrainingState, spec: RunSpec) -> None:
    """Play a round of the kind that takes most: all players are active, and lazy penalties due."""
    for player_step in state.player_steps:
        player_step.optimizer.step = lambda *_: None  # type: ignore[method-assign]  # Fused kernels have no meta device.
    period = state.round_images * spec.objective.penalty_every_rounds
    state.images = math.ceil(spec.objective.reconstruct_first_images / period) * period
    batch = a_batch(spec, state.batch_size)
    on_meta = {name: value.to(META) if isinstance(value, Tensor) else value for name, value in batch.items()}
    state.round(lambda: [on_meta])


def _moments(settings: PlayerOptimizerConfig) -> int:
    """Return the number of tensors that an optimizer keeps beside a parameter, in its shape."""
    parameter = nn.Parameter(torch.zeros(2))
    parameter.grad = torch.zeros(2)
    optimizer = OPTIMIZERS[settings.name]([parameter], settings)
    optimizer.step()
    return sum(isinstance(value, Tensor) and value.numel() == 2 for value in optimizer.state[parameter].values())


def _tensors(game: Game) -> list[Tensor]:
    modules = (*game.networks.values(), *game.frozen.values())
    return list({id(tensor): tensor for module in modules for tensor in _state(module)}.values())


def _state(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]


def _bytes(tensors: Any) -> int:
    return sum(tensor.nbytes for tensor in tensors)


class _LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counter of the bytes of all tensors that operations made and that are still there, and of the most so far."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live, self.peak = 0, 0
        self._sizes: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(found):
            if isinstance(tensor, Tensor) and tensor.is_meta:
                self._count(tensor.untyped_storage())
        return found

    def _count(self, storage: torch.UntypedStorage) -> None:
        address = storage._cdata
        if address not in self._sizes:
            self._sizes[address] = storage.nbytes()
            weakref.finalize(storage, self._free, address)
            self.live += storage.nbytes()
            self.peak = max(self.peak, self.live)

    def _free(self, address: int) -> None:
        self.live -= self._sizes.pop(address, 0)
