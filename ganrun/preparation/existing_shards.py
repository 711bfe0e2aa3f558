"""Reads existing shards, to index them in place or to verify them against their index."""

import hashlib
from dataclasses import dataclass
from typing import Any

from tqdm import tqdm

from ganrun.data.index import INDEX_NAME, Index, Shard
from ganrun.data.shard import open_shard
from ganrun.errors import UserError
from ganrun.preparation.convert_image import Rule
from ganrun.preparation.convert_samples import SampleCounts, convert_all, skip_faults
from ganrun.preparation.process_pool import parallel_map
from ganrun.preparation.shards import ShardsSource
from ganrun.preparation.write_index import PackedShard, finish
from ganrun.storage import INDEX_BYTES, check_rights, open_storage

_UNFIT = "training reads only 8-bit RGB or grey without transparency, rotation or animation"


@dataclass(frozen=True)
class Examiner:
    """Reads whole shards and decodes every image. Pickled to worker processes.

    Attributes:
        source: the shards.
        rule: size and channels that all images must have.
        advice: end of error messages: how to repair the data set.
    """

    source: ShardsSource
    rule: Rule
    advice: str

    def __call__(self, shard: str | Shard) -> PackedShard:
        """Read one shard, given by name or by its entry in an index.

        Raises:
            UserError: the shard is corrupt or differs from its index entry, or an image is unreadable or does not fit.
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
        items = skip_faults(self.source.samples(name, data), counts)
        for item, picture in convert_all(items, self.rule, counts, self.advice):
            if not picture.kept:
                raise UserError(f"{item.where}: needs conversion, {_UNFIT}; {self.advice}")
            samples += 1
        return PackedShard(Shard(name, samples, len(data), hashlib.sha256(data).hexdigest()), counts)


def index_in_place(source: ShardsSource, rule: Rule, made: dict[str, Any], workers: int) -> tuple[Index, list[str]]:
    """Write an index beside existing shards. The shards do not change.

    Returns:
        The index, and a line for each member that looks like a sample and is none.

    Raises:
        UserError: a shard is corrupt, or an image is unreadable or differs from the others in size or channels. No
            index is written.
    """
    place = open_storage(source.uri)
    check_rights(place, "SOURCE")
    examiner = Examiner(source, rule, "give a DEST to write a converted copy")
    results = parallel_map(examiner, source.names, workers)
    made_shards = list(tqdm(results, "reading", len(source.names), unit=" shards", disable=None))
    index = finish(place, source, rule, made, made_shards, source.remarks.embedding)
    return index, [line for each in made_shards for line in each.counts.skipped]


def verify(uri: str, workers: int) -> Index:
    """Check sizes, hashes, counts and every image of a finished data set against its index.

    Raises:
        UserError: the first difference.
    """
    index = Index.from_json(open_storage(uri).read(INDEX_NAME, INDEX_BYTES), f"{uri}/{INDEX_NAME}")
    source = ShardsSource(uri, tuple(shard.name for shard in index.shards), index.classes)
    examiner = Examiner(source, Rule(index.image_size, index.channels), "restore the shard or make the data set again")
    results = parallel_map(examiner, index.shards, workers)
    for _ in tqdm(results, "verifying", len(index.shards), unit=" shards", disable=None):
        pass
    return index
