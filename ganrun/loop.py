"""The order of events in a run. Knows no Ray, no storage and no clock: those are the host's."""

from collections.abc import Callable, Iterator
from typing import Protocol

import torch
from torch import Tensor

from ganrun.ema import Average
from ganrun.errors import RunError
from ganrun.games.game import Batch, Game, Networks
from ganrun.models.normalization import SlotBatchNorm2d
from ganrun.rng import Draw
from ganrun.sections import Config
from ganrun.slots import Slots
from ganrun.telemetry.recorder import Recorder
from ganrun.turn import Seat, learning_rate


class Host(Protocol):
    """Where a run takes place. All workers call these at the same images."""

    def should_stop(self) -> bool:
        """Whether the run is asked to save and leave; the same on all workers."""

    def record(self, values: dict[str, float]) -> None:
        """A tick: means since the last one, by metric name."""

    def picture(self) -> None:
        """Samples of the averaged generator."""

    def evaluate(self) -> bool:
        """Scores the averaged generator; whether this is the best so far."""

    def save(self, best: bool) -> None:
        """A checkpoint."""


class Play:
    """A game being played: all that a checkpoint keeps is here.

    Args:
        game: its networks, on the device and in the precision of the run.
        config: of the run.
        slots: which slots are this worker's.
    """

    def __init__(self, game: Game, config: Config, slots: Slots) -> None:
        self.game, self.config, self.slots = game, config, slots
        self.images, self.generation = 0, 0
        parameter = next(next(iter(game.networks.values())).parameters())
        self.device, self.dtype = parameter.device, parameter.dtype
        self.seats = [
            Seat(player, game, getattr(config.optimizer, player.name), slots, config.train.precision == "bf16")
            for player in game.players
        ]
        self.averages = {
            name: Average(game.networks[name], config.train.average_half_life_images) for name in game.averaged
        }
        self.recorder = Recorder(slots, self.device)
        self._norms = [
            (module, player.turns)
            for player in game.players
            for module in player.owned.modules()
            if isinstance(module, SlotBatchNorm2d)
        ]

    @property
    def averaged_networks(self) -> Networks:
        """The networks, in place of those that are averaged their averages."""
        return self.game.networks | {name: average.network for name, average in self.averages.items()}

    def round(self, next_batches: Callable[[], list[dict[str, Tensor]]]) -> None:
        """Every player's turns. `next_batches` gives the next batch of each owned slot."""
        before = self.images
        batches: list[Batch] = []
        for seat in self.seats:
            for _ in range(seat.player.turns):
                if seat.player.fresh_batch or not batches:
                    batches = [self._place(batch) for batch in next_batches()]
                rate = learning_rate(seat.settings, self.images, self.config.train.total_images)
                self.recorder.add(seat.take_turn(batches, list(self._draws()), rate))
                if seat.player.fresh_batch:
                    self.images += self.config.data.batch_size
        self._settle_norms()
        for average in self.averages.values():
            average.update(self.images - before, self.images)

    def _place(self, batch: dict[str, Tensor]) -> Batch:
        """To the device, beside its work; images from bytes to [-1, 1]."""
        placed = {name: field.to(self.device, non_blocking=True) for name, field in batch.items()}
        images = placed["image"].contiguous(memory_format=torch.channels_last)
        placed["image"] = images.to(self.dtype).div_(127.5).sub_(1)
        return placed

    def _draws(self) -> Iterator[Draw]:
        for slot in self.slots.owned:
            yield Draw(self.config.run.seed, self.generation, self.images, slot, self.device, self.dtype)

    def _settle_norms(self) -> None:
        """Moves running statistics by the mean over the slots, the same bits on every worker."""
        if not self._norms:
            return
        owned, rows = len(self.slots.owned), []
        for norm, turns in self._norms:
            # Noted turn by turn, slot by slot, pass by pass: [turns, owned, passes, 2 C] -> [owned, 2 C].
            noted = norm.take_noted()
            rows.append(noted.reshape(turns, owned, -1, 2 * norm.num_features).mean(dim=(0, 2)))
        mean, start = self.slots.gather(torch.cat(rows, dim=1)).mean(0), 0
        for norm, _ in self._norms:
            norm.settle(mean[start : start + 2 * norm.num_features].view(2, -1))
            start += 2 * norm.num_features


def train(play: Play, next_batches: Callable[[], list[dict[str, Tensor]]], host: Host) -> bool:
    """Plays rounds until the run has its images or the host asks to stop; whether it has them.

    Raises:
        RunError: more turns were not finite in a tick than the config tolerates.
    """
    config = play.config
    evaluate, checkpoint = config.evaluate.every_images, config.checkpoint.every_images
    if play.images == 0:
        host.picture()
        if evaluate:
            host.evaluate()
    while play.images < config.train.total_images:
        before = play.images
        play.round(next_batches)
        done = play.images >= config.train.total_images
        if done or _passed(config.train.tick_images, before, play.images):
            _tick(play, host)
        best = bool(evaluate) and (done or _passed(evaluate, before, play.images)) and host.evaluate()
        stop = host.should_stop()
        if done or stop or best or _passed(checkpoint, before, play.images):
            host.save(best)
        if stop and not done:
            return False
    return True


def _passed(interval: int, before: int, after: int) -> bool:
    """Whether a multiple of the interval lies in (before, after]."""
    return bool(interval) and after // interval > before // interval


def _tick(play: Play, host: Host) -> None:
    values, nonfinite = play.recorder.read()
    for seat in play.seats:
        rate = learning_rate(seat.settings, play.images, play.config.train.total_images)
        values[f"learning_rate/{seat.player.name}"] = rate
    host.record(values | {"nonfinite": nonfinite})
    if nonfinite > play.config.train.nonfinite_tolerance:
        raise RunError(
            f"the run diverged: {nonfinite} turns before {play.images:,} images had a loss or gradient that is "
            f"not finite, more than train.nonfinite_tolerance: {play.config.train.nonfinite_tolerance}; "
            "lower optimizer.*.learning_rate or choose another objective.loss, and run again from the last checkpoint"
        )
    host.picture()
