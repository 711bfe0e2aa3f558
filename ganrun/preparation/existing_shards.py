"""Reads shards that exist: to index them where they are, or to check them against their index."""

import hashlib
from dataclasses import dataclass
from typing import Any

from tqdm import tqdm

from ganrun.data.index import INDEX_NAME, Index, Shard
from ganrun.data.shard import open_shard
from ganrun.errors import UserError
from ganrun.preparation.convert_image import Rule
from ganrun.preparation.convert_samples import SampleCounts, convert_all
from ganrun.preparation.process_pool import parallel_map
from ganrun.preparation.sources import ShardsSource
from ganrun.preparation.write_index import PackedShard, finish
from ganrun.storage import INDEX_BYTES, check_rights, open_storage

_UNFIT = "transparent, turned, animated, of 16 bits or no plain RGB or grey, which training does not read"


@dataclass(frozen=True)
class Examiner:
    """Reads shards whole and decodes every image; travels to the worker processes."""

    source: ShardsSource
    rule: Rule
    advice: str

    def __call__(self, shard: str | Shard) -> PackedShard:
        """A shard by its name, or as the index says it is.

        Raises:
            UserError: it is damaged, is not as the index says, or an image is unreadable.
        """
        name = shard if isinstance(shard, str) else shard.name
        try:
            data = open_storage(self.source.uri).read(name)
        except OSError as error:
            raise UserError(f"{self.source.uri}/{name}: {error.strerror or error}; {self.advice}") from error
        if isinstance(shard, Shard):
            open_shard(data, shard, f"{self.source.uri}/{name}")
        counts = SampleCounts([0] * self.rule.channels)
        samples = 0
        for item, picture in convert_all(self.source.samples(name, data), self.rule, counts, self.advice):
            if not picture.kept:
                raise UserError(f"{item.where}: {_UNFIT}; {self.advice}")
            samples += 1
        return PackedShard(Shard(name, samples, len(data), hashlib.sha256(data).hexdigest()), counts)


def index_in_place(source: ShardsSource, rule: Rule, made: dict[str, Any], workers: int) -> Index:
    """Writes an index beside the shards, which stay as they are.

    Raises:
        UserError: a shard is damaged, or an image is unreadable or unlike the others; no index is written.
    """
    place = open_storage(source.uri)
    check_rights(place, "SOURCE")
    examiner = Examiner(source, rule, "give a DEST to copy the data set, mended")
    results = parallel_map(examiner, source.names, workers)
    made_shards = list(tqdm(results, "reading", len(source.names), unit=" shards", disable=None))
    return finish(place, source, rule, made, made_shards)


def verify(uri: str, workers: int) -> Index:
    """Reads a finished data set again: sizes, hashes, counts, and every image.

    Raises:
        UserError: the first thing that is not as the index says.
    """
    index = Index.from_json(open_storage(uri).read(INDEX_NAME, INDEX_BYTES), f"{uri}/{INDEX_NAME}")
    source = ShardsSource(uri, tuple(shard.name for shard in index.shards), index.classes)
    examiner = Examiner(source, Rule(index.image_size, index.channels), "restore the shard, or make the data set again")
    results = parallel_map(examiner, index.shards, workers)
    for _ in tqdm(results, "verifying", len(index.shards), unit=" shards", disable=None):
        pass
    return index
