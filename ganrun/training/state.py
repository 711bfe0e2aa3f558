"""Training state: a round of the game, and the content of a checkpoint."""

import functools
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from ganrun.config.schedules import value_at
from ganrun.config.schema import DataConfig, RunConfig, TrainConfig
from ganrun.config.schema_optimizer import OptimizerConfig
from ganrun.data.decode import RawBatch, normalised
from ganrun.data.jitter import jittered
from ganrun.errors import RunError, UserError
from ganrun.games.game import Batch, Game, Networks
from ganrun.models.slot_statistics import update_running_stats
from ganrun.rng import KeyedNoise
from ganrun.slots import Slots
from ganrun.telemetry.series import LOSS
from ganrun.telemetry.spans import span
from ganrun.training.collapse import CollapseDetector
from ganrun.training.ema import EMA, ema_weight
from ganrun.training.flat import flatten
from ganrun.training.metric_recorder import MetricRecorder
from ganrun.training.player_step import PlayerStep, StepResult, has_bf16, learning_rate
from ganrun.training.round_inputs import Numbers, RoundInputs, RoundNoise
from ganrun.training.tensor_files import differences, first_of
from ganrun.training.turns import turns_of

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
        self.seed, self.batch_size, self._jitter = run.seed, data.batch_size, data.jitter
        self.images, self.rollback_count = 0, 0
        parameter = next(parameter for network in game.networks.values() for parameter in network.parameters())
        self.device, self.dtype = parameter.device, parameter.dtype
        bf16 = train.precision == "bf16" and has_bf16(self.device)
        self._flat = flat = flatten(game.networks)
        self.player_steps = [
            # Networks and losses of ganrun use all parameters in every turn.
            PlayerStep(player, game, flat, optimizer.of(player.name), slots, bf16, unused=bool(run.imports))
            for player in game.players
        ]
        self._loggers: dict[str, str] = {}
        """Player that logs each key of a tick."""
        self.ema = {name: EMA(game.networks[name], flat[name]) for name in game.averaged}
        self.recorder, self.collapse_detector = MetricRecorder(slots, self.device), CollapseDetector()
        self.skipped = torch.zeros((), device=self.device)
        """Number of turns of the last round that were skipped for a non-finite gradient; a scalar on the device."""
        self._turns = list(turns_of(self.player_steps, data.batch_size))
        self._fresh_batches = self._turns[-1].batch + 1
        self.round_images = self._turns[-1].shown
        """Real images shown in a round."""
        self.play_round: Callable[[RoundInputs], None] = self.play
        """Player of a round: eager, or that of `CapturedRounds`."""
        self._inputs: dict[Hashable, RoundInputs] = {}
        """Inputs of each kind of round."""
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
        if faults := list(self._differences(tensors)):
            raise RunError(
                f"the checkpoint does not fit the networks of this config: {first_of(faults)}; take the config that "
                "the run began with, or another run.name"
            )
        try:
            for group, part in self._parts():
                part.load_state_dict(tensors[group])
            self.recorder.load_state_dict({"names": record["recorded"], **tensors["recorder"]})
            self.collapse_detector.load_state_dict(record.get("suspected", {}))
            self.images, self.rollback_count = record["images"], record["rollback_count"]
        except (KeyError, RuntimeError) as error:
            raise RunError(f"the checkpoint does not fit the networks of this config: {error}") from error

    def _differences(self, tensors: Groups) -> Iterator[str]:
        """Yield in words which files are missing, and which tensors of networks are others than here."""
        for group, part in self._parts():
            if group not in tensors:
                yield f"{group}.safetensors is missing"
            elif isinstance(part, nn.Module | EMA):
                yield from (f"{group}: {each}" for each in differences(tensors[group], part.state_dict()))
        if "recorder" not in tensors:
            yield "recorder.safetensors is missing"

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
        with span("data"):
            inputs = self.fill(next_batches)
        self.play_round(inputs)
        self.advance()

    def fill(self, next_batches: Callable[[], list[RawBatch]]) -> RoundInputs:
        """Write the inputs of the next round: batches, noise, learning rates. Rounds of one kind share their memory."""
        number = self.images // self.round_images
        kind = self.game.kind_of_round(self.images, number)
        if kind not in self._inputs:
            self._inputs[kind] = RoundInputs(len(self._turns), self.dtype, self.device)
        batches = [next_batches() for _ in range(self._fresh_batches)]
        self._inputs[kind].fill(batches, self._numbers(), self._noise_of(number))
        return self._inputs[kind]

    def play(self, inputs: RoundInputs) -> None:
        """Play the turns of a round. DDP averages the gradients."""
        for table in self.phases(inputs):
            self.slots.add(table)

    def tensors(self) -> list[Tensor]:
        """Return all tensors that a round changes in place."""
        found = [block for flat in self._flat.values() for block in flat.blocks]
        found += [block for ema in self.ema.values() for block in ema.blocks]
        for player_step in self.player_steps:
            for own in player_step.optimizer.optimizer.state.values():
                found += [value for value in own.values() if isinstance(value, Tensor)]
        for tracker in self.game.trackers.values():
            found += tracker.state_dict().values()
        return [*found, self.recorder.sums, self.recorder.nonfinite, self.skipped]

    def advance(self) -> None:
        """Count the images of a round that was played."""
        self.images += self.round_images

    def phases(self, inputs: RoundInputs, reduced: bool = True) -> Iterator[Tensor]:
        """Play the turns of a round up to each collective: yield tensors that the caller adds over the workers.

        Everything that differs between rounds of a kind is read from `inputs`.

        Args:
            inputs: as `fill` left them.
            reduced: True: DDP averages the gradients. False: gradients are among the tensors.
        """
        number, skipped = self.images // self.round_images, []
        batches: list[list[Batch]] = []
        for turn, (rate, *betas) in zip(self._turns, inputs.rates, strict=True):
            player_step = turn.player_step
            name = player_step.player.name
            noises = list(self._noises(turn.number, number, turn.offset, inputs.noise))
            if turn.batch == len(batches):
                batches.append(list(map(self.normalise, inputs.batches[turn.batch], noises)))
            if not player_step.player.active(self.images):
                continue
            with span(f"{name}: turn"):
                rows = player_step.backward(batches[turn.batch], noises, reduced)
                if not reduced:
                    yield from player_step.optimizer.gradient_blocks
                result = player_step.apply(rows, rate, betas)
            self._check_keys(name, result)
            self.recorder.add(result)
            yield from self._track(name, result)
            skipped.append(result.skipped)
        with span("ema"):
            yield from self._update_running_stats()
            for ema in self.ema.values():
                ema.update(inputs.ema_weight)
        self.skipped.copy_(torch.stack(skipped).sum())

    def _numbers(self) -> Numbers:
        """Return the learning rates and the weight of the EMA of the next round."""
        total, shown = self.train.total_images, self.images + self.round_images
        steps = [(turn.player_step.settings, self.images + turn.offset) for turn in self._turns]
        rates = [(learning_rate(settings, images, total), *settings.betas_at(images)) for settings, images in steps]
        half_life = value_at(self.train.average_half_life_images, self.images)
        return Numbers(rates, ema_weight(half_life, self.round_images, shown))

    def _noise_of(self, number: int) -> Callable[[KeyedNoise], KeyedNoise]:
        """Return the function from the noise of a slot in a turn to that of the same in round `number`."""

        @functools.cache
        def noise(offset: int, slot: int, turn: int) -> KeyedNoise:
            return next(self._noises(turn, number, offset, slots=(slot,)))

        return lambda before: noise(before.offset, before.slot, before.turn)

    def normalise(self, batch: RawBatch, noise: KeyedNoise | None = None) -> Batch:
        """Return a batch with images in [-1, 1], jittered if there is noise, and numbers in the run's precision."""
        batch = normalised(batch, self.dtype)
        return jittered(batch, self._jitter, noise) if noise and self._jitter else batch

    def _noises(
        self,
        turn: int,
        number: int,
        offset: int = 0,
        source: RoundNoise | None = None,
        slots: Sequence[int] | None = None,
    ) -> Iterator[KeyedNoise]:
        """Yield the noise of each slot for this turn of a player in round `number`.

        Args:
            offset: images shown in the round before the turn.
            source: numbers drawn ahead.
            slots: the slots; None: those of this worker.
        """
        images, seed, device = self.images + offset, self.seed, self.device
        for slot in self.slots.owned if slots is None else slots:
            yield KeyedNoise(seed, self.rollback_count, images, slot, device, self.dtype, turn, number, offset, source)

    def _check_keys(self, player: str, result: StepResult) -> None:
        """Raise UserError if another player logs the same key: the curve would have the mean of both."""
        for key in result.rows[0]:
            if (other := self._loggers.setdefault(key, player)) != player:
                raise UserError(
                    f"player {player}: Loss.parts: {key!r} is logged by player {other} too; choose another name"
                )

    def _track(self, player: str, result: StepResult) -> Iterator[Tensor]:
        """Update each tracker with the mean over all slots of the metric that it watches, see `phases`."""
        for tracker in self.game.trackers.values():
            for key in {tracker.watches, LOSS.of(player, tracker.watches)} & result.rows[0].keys():
                seen = self.slots.table(torch.stack([row[key] for row in result.rows]))
                yield seen
                tracker.update(seen.mean(0), self.batch_size)

    def _update_running_stats(self) -> Iterator[Tensor]:
        """Update running statistics with the mean over the slots that ran a layer, see `phases`.

        They have the same bits on every worker.
        """
        if not self._norms:
            return
        rows = zip(*(norm.take_batch_stats(len(self.slots.owned)) for norm in self._norms), strict=True)
        table = self.slots.table(torch.stack([torch.cat(row) for row in rows]))
        yield table
        update_running_stats(self._norms, table.sum(0))
