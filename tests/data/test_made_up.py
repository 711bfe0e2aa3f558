"""Made-up batches have the fields, shapes and types of those that a stream reads."""

import hashlib
import io
import json

import numpy as np
import pytest
import webdataset
from PIL import Image

from ganrun.config.schema import DataConfig
from ganrun.data.index import Index, Shard, open_data
from ganrun.data.made_up import MadeUpBatches
from ganrun.data.order import Order
from ganrun.data.stream import Stream
from ganrun.errors import UserError

FIELDS = {
    "image": {"kind": "image"},
    "label": {"kind": "label"},
    "name": {"kind": "text"},
    "vector": {"kind": "vector", "extension": "vec.json"},
    "place": {"kind": "point", "extension": "at.json", "channels": 3},
    "grey": {"kind": "image", "extension": "grey.png", "channels": 1},
}


@pytest.fixture
def data(tmp_path):
    """Folder of 8 samples with all fields; the first sample's vector is corrupt."""
    stream = io.BytesIO()
    with webdataset.TarWriter(stream) as tar:
        for number in range(8):
            pictures = []
            for mode in ("RGB", "L"):
                Image.new(mode, (8, 8)).save(encoded := io.BytesIO(), "png")
                pictures.append(encoded.getvalue())
            members = {"png": pictures[0], "grey.png": pictures[1], "cls": b"1", "txt": b"a cat"}
            members |= {"vec.json": b"{" if not number else json.dumps([1.0] * 5).encode(), "at.json": b"[0, 1, 2]"}
            tar.write({"__key__": str(number), **members})
    shard = Shard("0.tar", 8, len(stream.getvalue()), hashlib.sha256(stream.getvalue()).hexdigest())
    (tmp_path / "0.tar").write_bytes(stream.getvalue())
    (tmp_path / "index.json").write_bytes(Index(8, 3, ("a", "b"), (shard,)).to_json())
    return tmp_path


def config_of(folder, **changes):
    values = {"shards": str(folder), "image_size": 8, "batch_size": 2, "slots": 1, "damaged_share": 0.5}
    return DataConfig.model_validate(values | {"fields": FIELDS} | changes)


def test_they_are_as_the_real_ones(data):
    config, found = config_of(data), open_data(str(data))
    stream = Stream(found, config, Order((8,), 1, 0, 1), [0], 0)
    try:
        (real,) = stream.next()
    finally:
        stream.close()
    made_up = MadeUpBatches(config, found).next(2)
    assert made_up.keys() == real.keys()
    for name, field in made_up.items():
        if name == "name":
            assert len(field) == len(real[name]) == 2
        else:
            assert (field.shape, field.dtype, field.stride()) == (
                real[name].shape,
                real[name].dtype,
                real[name].stride(),
            )
    assert np.isin(made_up["label"], [0, 1]).all()


def test_a_vector_that_no_sample_has_is_a_fault(data):
    fields = {"image": {"kind": "image"}, "vector": {"kind": "vector", "extension": "npy"}}
    with pytest.raises(UserError, match=r"0\.tar: sample '0' has no vector"):
        MadeUpBatches(config_of(data, fields=fields), open_data(str(data)))
