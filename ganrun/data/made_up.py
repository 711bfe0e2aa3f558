"""Made-up batches with the fields, shapes and types of real ones: a trial of a game without reading its data."""

import torch

from ganrun.config.schema import DataConfig, FieldConfig
from ganrun.data.decode import Decoder, Field, RawBatch
from ganrun.data.index import DataSet
from ganrun.data.shard import OpenShard, open_shard
from ganrun.errors import UserError


class MadeUpBatches:
    """Batches of random images, labels, points, vectors and embeddings, and texts of two words.

    Neither config nor index has the length of vectors: for a data set with some, the first shard is read.

    Args:
        config: section `data`.
        data: the data set.

    Raises:
        UserError: the shard that was read is corrupt.
    """

    def __init__(self, config: DataConfig, data: DataSet) -> None:
        self.config, self.classes, self.embedding = config, len(data.index.classes), data.index.embedding
        vectors = {name: field for name, field in config.fields.items() if field.kind == "vector"}
        self._lengths = _lengths(vectors, data) if vectors else {}
        self._random = torch.Generator().manual_seed(0)

    def next(self, count: int) -> RawBatch:
        """Return the next batch of `count` samples."""
        return {name: self._field(name, field, count) for name, field in self.config.fields.items()}

    def _field(self, name: str, field: FieldConfig, count: int) -> Field:
        (channels, size), random = self.config.shape(name), self._random
        match field.kind:
            case "image":
                pixels = torch.randint(0, 256, (count, size, size, channels), dtype=torch.uint8, generator=random)
                return pixels.permute(0, 3, 1, 2)
            case "label":
                return torch.randint(0, max(self.classes, 1), (count,), generator=random)
            case "point":
                return torch.randn(count, channels, 1, 1, generator=random)
            case "embedding" if self.embedding:
                return torch.randn(count, self.embedding.captions, self.embedding.size, generator=random)
            case "vector":
                return torch.randn(count, self._lengths[name], generator=random)
        return ["two words"] * count


def _lengths(vectors: dict[str, FieldConfig], data: DataSet) -> dict[str, int]:
    """Return the length of each vector: that of the first sample that can be decoded."""
    shard, where = data.index.shards[0], data.where(0)
    opened = OpenShard(where, open_shard(data.read(0), shard, where))
    return {name: _length(Decoder(name, field, data.index), opened) for name, field in vectors.items()}


def _length(decoder: Decoder, shard: OpenShard) -> int:
    fault: UserError | None = None
    for key, members in shard.samples:
        try:
            return decoder.vectors([(shard, key, members)]).shape[1]
        except UserError as error:  # data.damaged_share may allow some.
            fault = fault or error
    raise fault or UserError(f"{shard.where}: no sample")
