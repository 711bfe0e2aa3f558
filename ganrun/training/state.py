"""A game being played: the round, and all that a checkpoint keeps."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from ganrun.config.schema import Config
from ganrun.data.decode import Field, RawBatch
from ganrun.games.game import Batch, Game, Networks
from ganrun.models.normalization import SlotBatchNorm2d
from ganrun.rng import Draw
from ganrun.slots import Slots
from ganrun.telemetry.collapse import Suspicion
from ganrun.telemetry.spans import mark
from ganrun.training.ema import Average
from ganrun.training.metric_recorder import Recorder
from ganrun.training.player_step import Seat, TurnRecord, has_bf16, learning_rate


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
        bf16 = config.train.precision == "bf16" and has_bf16(self.device)
        self.seats = [Seat(player, game, config.optimizer.of(player.name), slots, bf16) for player in game.players]
        self.averages = {
            name: Average(game.networks[name], config.train.average_half_life_images) for name in game.averaged
        }
        self.recorder, self.suspicion = Recorder(slots, self.device), Suspicion()
        self.skipped = torch.zeros((), device=self.device)
        """Turns of the last round that were skipped because a gradient was not finite."""
        turns = sum(player.turns for player in game.players if player.fresh_batch)
        self._round_images = turns * config.data.batch_size
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

    def round(self, next_batches: Callable[[], list[RawBatch]]) -> None:
        """Every player's turns. `next_batches` gives the next batch of each owned slot."""
        before, skipped = self.images, []
        batches: list[Batch] = []
        for seat in self.seats:
            for turn in range(seat.player.turns):
                if seat.player.fresh_batch or not batches:
                    with mark("data"):
                        batches = [self._place(batch) for batch in next_batches()]
                rate = learning_rate(seat.settings, self.images, self.config.train.total_images)
                with mark(f"{seat.player.name}: turn"):
                    record = seat.take_turn(batches, list(self._draws(turn, before // self._round_images)), rate)
                self.recorder.add(record)
                self._track(record)
                skipped.append(record.skipped)
                if seat.player.fresh_batch:
                    self.images += self.config.data.batch_size
        with mark("averages"):
            self._settle_norms()
            for average in self.averages.values():
                average.update(self.images - before, self.images)
        self.skipped = torch.stack(skipped).sum()

    def _place(self, batch: RawBatch) -> Batch:
        """To the device, beside its work; images from bytes to [-1, 1]."""
        return {name: self._place_field(field) for name, field in batch.items()}

    def _place_field(self, field: Field) -> Field:
        if not isinstance(field, Tensor):
            return field
        field = field.to(self.device, non_blocking=True)
        if field.dtype == torch.uint8:
            images = field.contiguous(memory_format=torch.channels_last)
            return images.to(self.dtype).div_(127.5).sub_(1)
        return field.to(self.dtype) if field.is_floating_point() else field

    def _draws(self, turn: int, number: int) -> Iterator[Draw]:
        """For each owned slot, in this turn of a player in round `number`."""
        seed = self.config.run.seed
        for slot in self.slots.owned:
            yield Draw(seed, self.generation, self.images, slot, self.device, self.dtype, turn, number)

    def _track(self, record: TurnRecord) -> None:
        """Tells trackers the mean over the slots of what they watch."""
        for tracker in self.game.trackers.values():
            if tracker.watches in record.rows[0]:
                seen = torch.stack([row[tracker.watches] for row in record.rows])
                tracker.update(self.slots.gather(seen).mean(0), self.config.data.batch_size)

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
