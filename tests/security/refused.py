"""How the stream meets a sample from a stranger."""

import resource

import pytest

from ganrun.config.schema import FieldConfig
from ganrun.data.decode import Decoder
from ganrun.data.index import Index
from ganrun.data.shard import OpenShard
from ganrun.errors import UserError


def refused(extension: str, content: bytes, kind: str = "image", size: int = 16) -> str:
    """What the stream says of a member, at the price of little memory."""
    decoder = Decoder("image" if kind == "image" else "field", FieldConfig(kind=kind), Index(size, 1, (), ()))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError, match=r"x\.tar: (field|image) of sample 'k' is") as fault:
        decoder.batch([(OpenShard("x.tar", []), "k", {extension: memoryview(content)})], None, 1)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KiB
    return str(fault.value)
