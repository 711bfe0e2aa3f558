"""What all workers of a run counted and measured since the last tick, as numbers of one line of metrics."""

from collections import Counter

import torch
import torch.distributed as dist

from ganrun.data.stream import Stream
from ganrun.training.state import TrainingState

OF_A_RANK = ("rank_round_seconds/", "gpu_memory_bytes/")


class RankStats:
    """Of one worker; all read it at the same tick.

    Args:
        play: the game.
        stream: where batches come from.
    """

    def __init__(self, state: TrainingState, stream: Stream) -> None:
        self.state, self.stream = state, stream
        self._before = Counter[str]()

    def read(self, seconds: float, waited: float) -> Counter[str]:
        """Sums over all workers, and each rank's own numbers under its name.

        Args:
            seconds: since the last tick.
            waited: of them for data.
        """
        device, rank, rounds = self.state.device, self.state.slots.rank, self.state.player_steps[0].rounds
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
        counted = Counter(shard_bytes=fetcher.bytes_fetched, samples_skipped=self.stream.damaged.skipped)
        counted.update({f"shard_errors/{kind}": count for kind, count in fetcher.faults.items()})
        return counted
