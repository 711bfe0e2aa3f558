"""The score of a run: its averaged generator against its own data, over the run's workers."""

import functools
from collections.abc import Sequence

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from ganrun.data.damaged import Forgiving
from ganrun.data.decode import Decoder, Located, RawBatch
from ganrun.data.fetch import Fetcher
from ganrun.data.index import DataSet
from ganrun.evaluation.score import Score, fake_statistics, frechet_score, real_statistics, reference
from ganrun.evaluation.statistics import Statistics
from ganrun.play import Play
from ganrun.rng import Draw
from ganrun.sections import Config
from ganrun.storage import Storage
from ganrun.tables import EXTRACTORS

BATCH = 64
"""Images in a chunk of work for one rank."""


class Evaluation:
    """Scores a play again and again: the same latents and the same real images each time.

    Args:
        config: of the run.
        data: whose images are the reference: `evaluate.samples` of them, evenly spaced (all, if there are fewer).
        cache: where statistics of real images are kept for all runs.
    """

    def __init__(self, config: Config, data: DataSet, cache: Storage) -> None:
        self.config, self.data, self.cache = config, data, cache
        self._extractor = EXTRACTORS[config.evaluate.extractor]()
        self._decoder = Decoder("image", config.data.fields["image"], data.index)
        self._damaged = Forgiving(config.data.damaged_share, data.index.samples)
        self._starts = np.cumsum([0, *(shard.samples for shard in data.index.shards)])
        fetcher = Fetcher(data)
        self._open = functools.lru_cache(maxsize=2)(lambda number: fetcher.request(number).result())
        self._reference: Statistics | None = None

    def score(self, play: Play) -> Score:
        """The Fréchet distance of the averaged generator; all workers call it together."""
        group = dist.group.WORLD if play.slots.workers > 1 else None
        extractor, first = self._extractor.to(play.device), play.slots.rank == 0
        if self._reference is None:
            self._reference = self._real_statistics(group)

        def sample(start: int, count: int) -> Tensor:
            draw = Draw(play.config.run.seed, 0, 0, start, play.device, play.dtype)
            z = draw.normal(count, play.game.latent_size, purpose="evaluate/z")
            return play.game.sample(play.averaged_networks, z)

        with torch.inference_mode():
            fake = fake_statistics(sample, self.config.evaluate.samples, BATCH, extractor, group)
        # Rank 0's number is everybody's: in its last bits it may differ from processor to processor.
        found = [frechet_score(self._reference, fake, extractor, self.config.run.seed) if first else None]
        if group is not None:
            dist.broadcast_object_list(found, 0)
        assert found[0] is not None
        return found[0]

    def _real_statistics(self, group: dist.ProcessGroup | None) -> Statistics:
        samples = min(self.config.evaluate.samples, self.data.index.samples)

        def read(start: int, count: int) -> Tensor:
            numbers = np.arange(start, start + count) * self.data.index.samples // samples
            return torch.stack([self._image(int(number)) for number in numbers])

        origin: dict[str, str | int] = {
            "data": self.data.index.fingerprint,
            "samples": samples,
            "order": "evenly spaced",
        }
        make = functools.partial(real_statistics, read, samples, BATCH, self._extractor, group)
        return reference(self.cache, origin, make, self._extractor, group)

    def _image(self, number: int) -> Tensor:
        """Image `number` of the data set in the order of its index, uint8 [C, H, W]."""
        shard = int(np.searchsorted(self._starts, number, side="right")) - 1
        opened = self._open(shard)
        located = (opened, *opened.samples[number - int(self._starts[shard])])
        image = self._damaged.batch([located], self._decode)["image"]
        assert isinstance(image, Tensor)
        return image[0]

    def _decode(self, samples: Sequence[Located]) -> RawBatch:
        return {"image": torch.stack([self._decoder.image(*sample) for sample in samples])}
