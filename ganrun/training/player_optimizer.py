"""Optimizer of one player, with its gradients in blocks of memory.

A built-in optimizer treats every number alike, so it steps whole blocks: one kernel however many parameters there are.
An optimizer of the user's own gets the parameters one by one.
"""

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from ganrun.config.registry import OPTIMIZERS
from ganrun.config.schema_optimizer import PlayerOptimizerConfig
from ganrun.errors import UserError
from ganrun.games.game import Player
from ganrun.training.flat import FlatNetwork, FlatTensors
from ganrun.training.optimizers import ELEMENTWISE


class _Block:
    """Parameters of one network and dtype, with their gradients beside them."""

    def __init__(self, network: str, flat: FlatTensors, count: int, parameters: Mapping[str, nn.Parameter]) -> None:
        self.flat, self.count = flat, count
        self.names = [f"{network}.{name}" for name in flat.names[:count]]
        self.parameters = [parameters[name] for name in self.names]
        self.whole = nn.Parameter(flat.first(count))
        self.gradient = self.whole.grad = torch.zeros_like(self.whole, requires_grad=False)
        self.gradients = flat.views(self.gradient, count)

    def gather(self) -> None:
        """Copy the gradients into the block; a parameter without one has a gradient of 0."""
        pairs = [(mine, each.grad) for mine, each in zip(self.gradients, self.parameters, strict=True)]
        if missing := [mine for mine, gradient in pairs if gradient is None]:
            torch._foreach_zero_(missing)
        found = [(mine, gradient) for mine, gradient in pairs if gradient is not None]
        torch._foreach_copy_([mine for mine, _ in found], [gradient for _, gradient in found])


class PlayerOptimizer:
    """Optimizer of a player's parameters.

    Args:
        player: the player.
        networks: the state of its networks in blocks.
        settings: its section of the config.
        unused: turns may leave parameters without a gradient. Those are then not stepped, as torch does it, so
            parameters are stepped one by one.
    """

    def __init__(
        self,
        player: Player,
        networks: Mapping[str, FlatNetwork],
        settings: PlayerOptimizerConfig,
        unused: bool = False,
    ) -> None:
        self.player, self.settings = player, settings
        self.parameters = dict(player.owned.named_parameters())
        self.blocks = [
            _Block(name, flat, count, self.parameters)
            for name in player.owned
            for flat, count in zip(networks[name].flats, networks[name].parameters, strict=True)
            if count
        ]
        build = OPTIMIZERS[settings.name]
        self.built_in = build in ELEMENTWISE
        self.in_blocks = self.built_in and not unused
        stepped = [block.whole for block in self.blocks] if self.in_blocks else list(self.parameters.values())
        first = settings if self.built_in else settings.at(0)
        self.optimizer: torch.optim.Optimizer = build(stepped, first)

    @property
    def gradients(self) -> dict[str, Tensor]:
        """Gradients of the last turn by parameter, reduced and clipped: views of the blocks."""
        return {
            name: gradient for block in self.blocks for name, gradient in zip(block.names, block.gradients, strict=True)
        }

    def clear(self) -> None:
        """Remove the gradients of the parameters."""
        for parameter in self.parameters.values():
            parameter.grad = None

    @property
    def gradient_blocks(self) -> list[Tensor]:
        """Blocks of gradients."""
        return [block.gradient for block in self.blocks]

    @torch.no_grad()
    def gather(self) -> None:
        """Copy the gradients of the parameters into their blocks."""
        for block in self.blocks:
            block.gather()

    @torch.no_grad()
    def norm(self) -> Tensor:
        """Return the norm of all gradients, a scalar."""
        norms = [torch.linalg.vector_norm(block.gradient) for block in self.blocks]
        norm: Tensor = norms[0] if len(norms) == 1 else torch.linalg.vector_norm(torch.stack(norms))
        return norm

    @torch.no_grad()
    def step(self, norm: Tensor, skipped: Tensor, learning_rate: Tensor, betas: Sequence[Tensor] = ()) -> None:
        """Take one step, unless `skipped` is 1; then weights, moments and step count stay.

        Args:
            norm: norm of the gradient, scalar.
            skipped: 0 or 1, float scalar on the device.
            learning_rate: scalar in fixed memory; it is read by the device.
            betas: beta1 and beta2, too; only an Adam whose betas change reads them.
        """
        if clip := self.settings.clip_norm:
            factor = (clip / (norm + 1e-6)).clamp(max=1.0)
            for block in self.blocks:
                block.gradient.mul_(factor)
        if not self.in_blocks:
            for block in self.blocks:
                for parameter, gradient in zip(block.parameters, block.gradients, strict=True):
                    parameter.grad = gradient if parameter.grad is not None else None
        if self.built_in:
            self.optimizer.param_groups[0]["lr"] = learning_rate
            if self.settings.betas_change:
                self.optimizer.param_groups[0]["betas"] = tuple(betas)
            # The kernel reads both as a GradScaler sets them.
            self.optimizer.grad_scale, self.optimizer.found_inf = None, skipped  # type: ignore[attr-defined]
            self.optimizer.step()
        elif not skipped:  # Waits for the device.
            self.optimizer.param_groups[0]["lr"] = float(learning_rate)
            self.optimizer.step()

    def state_dict(self) -> dict[str, Tensor]:
        """Return the state by name, such as PARAMETER.exp_avg, PARAMETER.exp_avg_sq, PARAMETER.step.

        Raises:
            UserError: an optimizer of the user's own keeps something that is no tensor.
        """
        found = {f"{name}.{key}": value for name, key, value in self._state() if value is not None}
        if strange := [name for name, value in found.items() if not isinstance(value, Tensor)]:
            raise UserError(
                f"optimizer.{self.player.name}.name: {self.settings.name} keeps {strange[0]} as "
                f"{type(found[strange[0]]).__name__}; a checkpoint holds tensors only: keep a tensor"
            )
        return found

    def _state(self) -> Iterator[tuple[str, str, Tensor]]:
        if not self.in_blocks:
            for name, parameter in self.parameters.items():
                yield from ((name, key, value) for key, value in self.optimizer.state.get(parameter, {}).items())
            return
        for block in self.blocks:
            for key, value in self.optimizer.state.get(block.whole, {}).items():
                whole = value is not None and value.shape == block.whole.shape
                parts = block.flat.views(value, block.count) if whole else [value] * block.count
                yield from ((name, key, part) for name, part in zip(block.names, parts, strict=True))

    def load_state_dict(self, state_dict: Mapping[str, Tensor]) -> None:
        """Load the state. A parameter that never had a gradient may have none.

        Raises:
            KeyError, RuntimeError: the state is not that of these parameters.
        """
        found: dict[str, dict[str, Tensor]] = {}
        for place, value in state_dict.items():
            name, _, key = place.rpartition(".")
            if name not in self.parameters:
                raise KeyError(name)
            found.setdefault(name, {})[key] = value
        if not self.in_blocks:
            for name, state in found.items():
                parameter = self.parameters[name]
                self.optimizer.state[parameter] = {key: _like(parameter, key, value) for key, value in state.items()}
            return
        for block in self.blocks:
            for key in {key for name in block.names for key in found.get(name, {})}:
                parts = [found.get(name, {}).get(key) for name in block.names]
                self.optimizer.state[block.whole][key] = _join(block, parts, key)


def _like(parameter: nn.Parameter, key: str, value: Tensor) -> Tensor:
    """Return a copy of a parameter's state on its device; moments in its layout: kernels walk both in memory order."""
    if value.shape == parameter.shape and key != "step":
        return torch.empty_like(parameter, requires_grad=False).copy_(value)
    return value.to(parameter.device, copy=True)


def _join(block: _Block, parts: list[Tensor | None], key: str) -> Tensor:
    """Return the state of a block from that of its parameters; the greatest one for a step count."""
    if key == "step":
        return torch.stack([part.float() for part in parts if part is not None]).max().to(block.whole.device)
    joined = torch.zeros_like(block.whole, requires_grad=False)
    for view, part in zip(block.flat.views(joined, block.count), parts, strict=True):
        if part is not None:
            view.copy_(part)
    return joined
