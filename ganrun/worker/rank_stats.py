"""Counters and times of all ranks since the last tick, as values of one line of metrics."""

from collections import Counter
from collections.abc import Mapping

import torch
import torch.distributed as dist

from ganrun.data.stream import Stream
from ganrun.telemetry import series as metrics
from ganrun.training.state import TrainingState


class RankStats:
    """Statistics of one worker. All workers read them at the same tick.

    Args:
        state: of the run.
        stream: where batches come from.
    """

    def __init__(self, state: TrainingState, stream: Stream) -> None:
        self.state, self.stream = state, stream
        self._before, self._images = Counter[str](), state.images

    def read(self, spent: Mapping[str, float]) -> dict[str, float]:
        """Return speed and data wait of this rank, counters summed over ranks, and per-rank values. Collective.

        Args:
            spent: seconds since the last tick, by part.
        """
        seconds = sum(spent.values()) - spent.get("score", 0)  # Scores are not part of a round.
        images = self.state.images - self._images
        rounds, self._images = images // self.state.round_images, self.state.images
        speed = {
            metrics.IMAGES_PER_SECOND.key: images / seconds,
            metrics.DATA_WAIT_RATIO.key: spent["data"] / seconds,
            metrics.ROUND_SECONDS.key: seconds / rounds,
        }
        return {**speed, **self._of_all_ranks(seconds, spent["data"], rounds)}

    def _of_all_ranks(self, seconds: float, waited: float, rounds: int) -> Counter[str]:
        device, rank = self.state.device, self.state.slots.rank
        counted = self._counted()
        mine: dict[str, float] = {name: counted[name] - self._before[name] for name in counted}
        self._before = counted
        working = sum(player_step.timer.read() * player_step.player.turns for player_step in self.state.player_steps)
        mine[metrics.RANK_ROUND_SECONDS.of(rank)] = working + waited / rounds
        if device.type == "cuda":
            mine[metrics.GPU_MEMORY_BYTES.of(rank)] = torch.cuda.max_memory_allocated(device)
            mine[metrics.GPU_SECONDS.key] = seconds
            torch.cuda.reset_peak_memory_stats(device)
        found = [mine] * self.state.slots.workers
        if len(found) > 1:
            dist.all_gather_object(found, mine)
        total = Counter[str]()
        for each in found:
            total.update(each)  # type: ignore[arg-type]
        return total

    def _counted(self) -> Counter[str]:
        fetcher = self.stream.fetcher
        counted = {
            metrics.SHARD_BYTES.key: fetcher.bytes_fetched,
            metrics.SAMPLES_SKIPPED.key: self.stream.corrupt_samples.skipped,
        }
        return Counter(counted | {metrics.SHARD_ERRORS.of(kind): count for kind, count in fetcher.faults.items()})
