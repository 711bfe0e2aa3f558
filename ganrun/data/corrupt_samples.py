"""Policy for corrupt samples: the first ends the run, or a configured share is skipped."""

import logging
import math
from collections.abc import Callable, Sequence

from ganrun.data.decode import Located, RawBatch
from ganrun.errors import UserError

LOGGED = 10
"""Number of skipped samples that are logged by name."""
logger = logging.getLogger(__name__)


class CorruptSamplePolicy:
    """Replaces a corrupt sample by the one before it in its shard.

    The replacement depends on the shard alone: every slot shows as many samples as without corruption, and the same
    ones on any number of workers.

    Args:
        share: largest share of the samples shown that may be skipped, 0 to 1; 0: none.
        epoch: number of samples of an epoch; the share counts all epochs that have begun.
    """

    def __init__(self, share: float, epoch: int) -> None:
        self.share, self.epoch = share, epoch
        self.shown = self.skipped = 0

    def batch(self, samples: Sequence[Located], decode: Callable[[Sequence[Located]], RawBatch]) -> RawBatch:
        """Decode samples, with replacements for corrupt ones.

        Raises:
            UserError: a sample is corrupt and none may be skipped, or too many were.
        """
        self.shown += len(samples)
        try:
            return decode(samples)
        except UserError:
            if not self.share:
                raise
        return decode([self._readable(sample, decode) for sample in samples])

    def _readable(self, sample: Located, decode: Callable[[Sequence[Located]], RawBatch]) -> Located:
        """Return the sample, or the nearest one before it in its shard that is not corrupt."""
        shard, key, _ = sample
        keys = [each for each, _ in shard.samples]
        fault, at = "", keys.index(key)  # The text alone: an error references frames, and these reference shards.
        for back in range(len(keys)):
            candidate = (shard, *shard.samples[at - back])
            try:
                decode([candidate])
            except UserError as error:
                fault = fault or str(error)
            else:
                if fault:
                    self._count(fault)
                return candidate
        raise UserError(f"{fault}; every other sample of its shard is corrupt, too")

    def _count(self, fault: str) -> None:
        self.skipped += 1
        if self.skipped <= LOGGED:
            logger.warning("a corrupt sample is skipped: %s", fault)
        # Of whole epochs, since all corrupt samples of an epoch may be at its beginning.
        samples = self.epoch * math.ceil(self.shown / self.epoch)
        if self.skipped > self.share * samples:
            raise UserError(
                f"{fault}; it is corrupt sample number {self.skipped}, more than data.damaged_share: {self.share} "
                f"of {samples:,}: repair the data set, or allow more"
            )
