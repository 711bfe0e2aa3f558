"""Training state: a round of the game, and the content of a checkpoint."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from ganrun.config.schema import DataConfig, OptimizerConfig, RunConfig, TrainConfig
from ganrun.data.decode import Field, RawBatch
from ganrun.errors import RunError, UserError
from ganrun.games.game import Batch, Game, Networks
from ganrun.rng import KeyedNoise
from ganrun.slots import Slots
from ganrun.telemetry.series import LOSS
from ganrun.telemetry.spans import span
from ganrun.training.collapse import CollapseDetector
from ganrun.training.ema import EMA
from ganrun.training.metric_recorder import MetricRecorder
from ganrun.training.player_step import PlayerStep, StepResult, has_bf16, learning_rate

Groups = dict[str, dict[str, Tensor]]


class StateDict(NamedTuple):
    """State dict of a `TrainingState`."""

    tensors: Groups
    """By group: each network, NAME_ema, optimizer_PLAYER, each tracker, recorder."""
    record: dict[str, Any]
    """Plain values: images, rollback_count, names in the recorder, streaks of the collapse detector."""


class _Stateful(Protocol):
    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> object: ...


class TrainingState:
    """Networks, EMA, optimizers, metric sums and number of images shown: the content of a checkpoint.

    Args:
        game: the game, with its networks on the device and in the precision of the run.
        run, data, optimizer, train: sections of the run's config.
        slots: the slots of this worker.
    """

    def __init__(
        self,
        game: Game,
        run: RunConfig,
        data: DataConfig,
        optimizer: OptimizerConfig,
        train: TrainConfig,
        slots: Slots,
    ) -> None:
        self.game, self.slots, self.train = game, slots, train
        self.seed, self.batch_size = run.seed, data.batch_size
        self.images, self.rollback_count = 0, 0
        parameter = next(parameter for network in game.networks.values() for parameter in network.parameters())
        self.device, self.dtype = parameter.device, parameter.dtype
        bf16 = train.precision == "bf16" and has_bf16(self.device)
        self.player_steps = [
            # Networks and losses of ganrun use all parameters in every turn.
            PlayerStep(player, game, optimizer.of(player.name), slots, bf16, unused=bool(run.imports))
            for player in game.players
        ]
        self._loggers: dict[str, str] = {}
        """Player that logs each key of a tick."""
        self.ema = {name: EMA(game.networks[name], train.average_half_life_images) for name in game.averaged}
        self.recorder, self.collapse_detector = MetricRecorder(slots, self.device), CollapseDetector()
        self.skipped = torch.zeros((), device=self.device)
        """Number of turns of the last round that were skipped for a non-finite gradient; a scalar on the device."""
        turns = sum(player.turns for player in game.players if player.fresh_batch)
        self.round_images = turns * data.batch_size
        """Real images shown in a round."""
        self._norms = list(dict.fromkeys(norm for each in self.player_steps for norm in each.norms))

    @property
    def ema_networks(self) -> Networks:
        """All networks by name, with the EMA in place of each network that has one."""
        return self.game.networks | {name: ema.network for name, ema in self.ema.items()}

    def state_dict(self) -> StateDict:
        """Return the state. The next round changes its tensors. Collective over the workers."""
        recorder = self.recorder.state_dict()
        names = recorder.pop("names")
        record = {
            "images": self.images,
            "rollback_count": self.rollback_count,
            "recorded": names,
            "suspected": self.collapse_detector.state_dict(),
        }
        return StateDict({group: part.state_dict() for group, part in self._parts()} | {"recorder": recorder}, record)

    def load_state_dict(self, state_dict: StateDict) -> None:
        """Load copies of the tensors, and the plain values.

        Raises:
            RunError: the networks or optimizers are not those of the config.
        """
        tensors, record = state_dict
        try:
            for group, part in self._parts():
                part.load_state_dict(tensors[group])
            self.recorder.load_state_dict({"names": record["recorded"], **tensors["recorder"]})
            self.collapse_detector.load_state_dict(record.get("suspected", {}))
            self.images, self.rollback_count = record["images"], record["rollback_count"]
        except (KeyError, RuntimeError) as error:
            raise RunError(f"the checkpoint does not fit the networks of this config: {error}") from error

    def _parts(self) -> Iterator[tuple[str, _Stateful]]:
        """Yield (name, part) of every part whose state is a group of tensors."""
        yield from self.game.networks.items()
        yield from ((f"{name}_ema", ema) for name, ema in self.ema.items())
        yield from ((f"optimizer_{each.player.name}", each) for each in self.player_steps)
        yield from self.game.trackers.items()

    def round(self, next_batches: Callable[[], list[RawBatch]]) -> None:
        """Play one round: all turns of all players, then running statistics and EMA.

        Args:
            next_batches: returns the next batch of each owned slot.

        Raises:
            UserError: a player's loss is not as `Loss` says.
        """
        before, skipped = self.images, []
        batches: list[Batch] = []
        for player_step in self.player_steps:
            for turn in range(player_step.player.turns):
                if player_step.player.fresh_batch or not batches:
                    with span("data"):
                        batches = [self.normalise(batch) for batch in next_batches()]
                rate = learning_rate(player_step.settings, self.images, self.train.total_images)
                with span(f"{player_step.player.name}: turn"):
                    result = player_step.step(batches, list(self._noises(turn, before // self.round_images)), rate)
                self._check_keys(player_step.player.name, result)
                self.recorder.add(result)
                self._track(player_step.player.name, result)
                skipped.append(result.skipped)
                if player_step.player.fresh_batch:
                    self.images += self.batch_size
        with span("ema"):
            self._update_running_stats()
            for ema in self.ema.values():
                ema.update(self.images - before, self.images)
        self.skipped = torch.stack(skipped).sum()

    def normalise(self, batch: RawBatch) -> Batch:
        """Return a batch with images scaled from uint8 to [-1, 1] and numbers in the precision of the run."""
        return {name: self._normalise_field(field) for name, field in batch.items()}

    def _normalise_field(self, field: Field) -> Field:
        if not isinstance(field, Tensor):
            return field
        if field.dtype == torch.uint8:
            images = field.contiguous(memory_format=torch.channels_last)
            return images.to(self.dtype).div_(127.5).sub_(1)
        return field.to(self.dtype) if field.is_floating_point() else field

    def _noises(self, turn: int, number: int) -> Iterator[KeyedNoise]:
        """Yield the noise of each owned slot for this turn of a player in round `number`."""
        seed = self.seed
        for slot in self.slots.owned:
            yield KeyedNoise(seed, self.rollback_count, self.images, slot, self.device, self.dtype, turn, number)

    def _check_keys(self, player: str, result: StepResult) -> None:
        """Raise UserError if another player logs the same key: the curve would have the mean of both."""
        for key in result.rows[0]:
            if (other := self._loggers.setdefault(key, player)) != player:
                raise UserError(
                    f"player {player}: Loss.parts: {key!r} is logged by player {other} too; choose another name"
                )

    def _track(self, player: str, result: StepResult) -> None:
        """Update each tracker with the mean over all slots of the metric that it watches."""
        for tracker in self.game.trackers.values():
            for key in {tracker.watches, LOSS.of(player, tracker.watches)} & result.rows[0].keys():
                seen = torch.stack([row[key] for row in result.rows])
                tracker.update(self.slots.gather(seen).mean(0), self.batch_size)

    def _update_running_stats(self) -> None:
        """Update running statistics with the mean over the slots that ran a layer: the same bits on every worker."""
        if not self._norms:
            return
        rows = zip(*(norm.take_batch_stats(len(self.slots.owned)) for norm in self._norms), strict=True)
        sums = self.slots.gather(torch.stack([torch.cat(row) for row in rows])).sum(0)
        sizes = [2 * norm.num_features + 1 for norm in self._norms]
        for norm, part in zip(self._norms, torch.split(sums, sizes), strict=True):
            # Last the number of slots: 0 / 0 is NaN for a layer that ran in none, and its statistics stay.
            norm.update_running_stats((part[:-1] / part[-1]).view(2, -1))
