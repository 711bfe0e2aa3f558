"""What is done about samples that are damaged: the first ends the run, or a stated share of them is passed over."""

import logging
import math
from collections.abc import Callable, Sequence

from ganrun.data.decode import Located, RawBatch
from ganrun.errors import UserError

TOLD = 10
"""So many samples that are passed over are named."""
logger = logging.getLogger(__name__)


class CorruptSamplePolicy:
    """Puts the sample before a damaged one of its shard in its place.

    What replaces it depends on the shard alone, so that every slot shows as many samples as without damage, and the
    same ones on any number of workers.

    Args:
        share: of the samples shown that may be passed over; 0: none.
        epoch: samples of an epoch; the share is of all epochs that were begun.
    """

    def __init__(self, share: float, epoch: int) -> None:
        self.share, self.epoch = share, epoch
        self.shown = self.skipped = 0

    def batch(self, samples: Sequence[Located], decode: Callable[[Sequence[Located]], RawBatch]) -> RawBatch:
        """The samples decoded.

        Raises:
            UserError: one is damaged and must not be passed over, or more are than may be.
        """
        self.shown += len(samples)
        try:
            return decode(samples)
        except UserError:
            if not self.share:
                raise
        return decode([self._readable(sample, decode) for sample in samples])

    def _readable(self, sample: Located, decode: Callable[[Sequence[Located]], RawBatch]) -> Located:
        """The sample, or the first before it in its shard that is not damaged."""
        shard, key, _ = sample
        keys = [each for each, _ in shard.samples]
        fault, at = "", keys.index(key)  # Its text alone: an error holds frames, and these hold shards.
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
        raise UserError(f"{fault}; and so is every sample of its shard")

    def _count(self, fault: str) -> None:
        self.skipped += 1
        if self.skipped <= TOLD:
            logger.warning("a sample is passed over: %s", fault)
        # Of whole epochs, since the damaged ones of an epoch may all come at its beginning.
        samples = self.epoch * math.ceil(self.shown / self.epoch)
        if self.skipped > self.share * samples:
            raise UserError(
                f"{fault}; it is damaged sample number {self.skipped}, more than data.damaged_share: {self.share} "
                f"of {samples:,}: mend the data set, or allow more"
            )
