"""A file of tensors is whole or corrupt, and fits a network or does not: the messages tell the two apart."""

import json
import struct

import pytest
import torch
from safetensors.torch import save

from ganrun.errors import RunError
from ganrun.training.tensor_files import differences, first_of, parse_tensors

TENSORS = {"weight": torch.arange(12.0).view(3, 4), "count": torch.ones((), dtype=torch.int64)}
WHOLE = save(TENSORS)


def forged(header: dict, body: bytes = bytes(16)) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def of(dtype, shape, end=16):
    return forged({"weight": {"dtype": dtype, "shape": shape, "data_offsets": [0, end]}})


DAMAGED = {
    "empty": b"",
    "cut in the length": WHOLE[:5],
    "cut in the header": WHOLE[:40],
    "cut in the tensors": WHOLE[:-1],
    "too long": WHOLE + b"x",
    "length of the header": struct.pack("<Q", 2**62) + WHOLE[8:],
    "header no JSON": WHOLE[:8] + b"#" + WHOLE[9:],
    "control characters": WHOLE[:9] + b"\x1b[2J" + WHOLE[13:],
    "header no object": forged([]),
    "shape larger than the bytes": of("F32", [5]),
    "shape smaller than the bytes": of("F32", [3]),
    "offset beyond the end": of("F32", [4], 99),
    "overflow": of("F32", [2**62, 8]),
    "type that does not exist": of("F99", [4]),
    "type that torch lacks": of("F8_E8M0", [16]),
    "zeros": bytes(100),
}


@pytest.mark.parametrize("data", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_file_is_corrupt_and_named_in_one_line(data):
    with pytest.raises(
        RunError, match=r"^a/b\.safetensors is corrupt: it is no whole safetensors file \(.+\)$"
    ) as error:
        parse_tensors(data, "a/b.safetensors")
    assert str(error.value).isprintable()


def test_a_whole_file_is_read():
    found = parse_tensors(WHOLE, "x")
    assert found.keys() == TENSORS.keys()
    assert all(torch.equal(found[name], TENSORS[name]) for name in found)


def test_what_does_not_fit_is_named_with_both_shapes():
    mine = {"weight": torch.zeros(3, 5), "bias": torch.zeros(3), "count": torch.zeros(())}
    theirs = TENSORS | {"bi\nas": torch.zeros(3)}
    assert differences(theirs, mine) == ["weight is [3, 4], not [3, 5]", "bias is missing", "bi\\nas is unknown"]
    assert differences(TENSORS, TENSORS) == []
    assert first_of(list("abcde")) == "a, b, c, and 2 more"
    assert first_of(list("abc")) == "a, b, c"
