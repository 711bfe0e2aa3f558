"""What all workers of a run counted and measured since the last tick, as numbers of one line of metrics."""

from collections import Counter
from collections.abc import Mapping

import torch
import torch.distributed as dist

from ganrun.data.stream import Stream
from ganrun.training.state import TrainingState

OF_A_RANK = ("rank_round_seconds/", "gpu_memory_bytes/")


class RankStats:
    """Of one worker; all read it at the same tick.

    Args:
        state: of the run.
        stream: where batches come from.
    """

    def __init__(self, state: TrainingState, stream: Stream) -> None:
        self.state, self.stream = state, stream
        self._before, self._images = Counter[str](), state.images

    def read(self, spent: Mapping[str, float]) -> dict[str, float]:
        """Speed and waiting on this rank, counts summed over all ranks, and each rank's own numbers under its name.

        Args:
            spent: seconds since the last tick, by part.
        """
        seconds = sum(spent.values()) - spent.get("score", 0)  # The time that a score takes is not the round's.
        rounds, images = self.state.player_steps[0].rounds, self.state.images - self._images
        self._images = self.state.images
        speed = {
            "images_per_second": images / seconds,
            "data_wait_ratio": spent["data"] / seconds,
            "round_seconds": seconds / rounds,
        }
        return {**speed, **self._of_all_ranks(seconds, spent["data"], rounds)}

    def _of_all_ranks(self, seconds: float, waited: float, rounds: int) -> Counter[str]:
        device, rank = self.state.device, self.state.slots.rank
        counted = self._counted()
        mine: dict[str, float] = {name: counted[name] - self._before[name] for name in counted}
        self._before = counted
        working = sum(player_step.timer.read() * player_step.player.turns for player_step in self.state.player_steps)
        mine[f"rank_round_seconds/{rank}"] = working + waited / rounds
        if device.type == "cuda":
            mine |= {f"gpu_memory_bytes/{rank}": torch.cuda.max_memory_allocated(device), "gpu_seconds": seconds}
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
        counted = Counter(shard_bytes=fetcher.bytes_fetched, samples_skipped=self.stream.corrupt_samples.skipped)
        counted.update({f"shard_errors/{kind}": count for kind, count in fetcher.faults.items()})
        return counted
