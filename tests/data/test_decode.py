"""Fields of every kind, batched alike."""

import io
import json

import numpy as np
import pytest
import torch

from ganrun.config.schema import DataConfig
from ganrun.data.order import Order
from ganrun.data.stream import Stream
from ganrun.errors import UserError
from tests.data.test_stream import data_of, encoded

FIELDS = {
    "image": "image",
    "label": "label",
    "caption": "text",
    "attributes": "vector",
    "features": {"kind": "vector", "extension": "features.npy"},
    "edges": {"kind": "image", "extension": "edges.png"},
    "photo": {"kind": "image", "extension": "photo.png", "channels": 3},
}


def npy(values):
    file = io.BytesIO()
    np.save(file, np.array(values))
    return file.getvalue()


def members(number, **changes):
    contents = {
        "png": encoded(),
        "cls": b"1",
        "txt": f"number {number}, größer".encode(),
        "json": json.dumps([number, 0.5]).encode(),
        "features.npy": npy([1.0, 2.0, number]),
        "edges.png": encoded(),
        "photo.png": encoded(mode="RGB"),
    }
    contents |= {name.replace("_", "."): value for name, value in changes.items()}
    return [(f"{number}.{name}", content) for name, content in contents.items()]


def batch_of(data):
    config = DataConfig(shards="x", image_size=16, batch_size=data.index.samples, fields=FIELDS)
    stream = Stream(data, config, Order((data.index.samples,), 1, 0, 1), [0], 0)
    try:
        return stream.next()[0]
    finally:
        stream.close()


def test_fields_of_every_kind_are_batched(tmp_path):
    batch = batch_of(data_of(tmp_path / "data", *members(0), *members(1), *members(2)))
    assert batch["image"].shape == batch["edges"].shape == (3, 1, 16, 16)
    assert batch["photo"].shape == (3, 3, 16, 16)
    assert batch["label"].tolist() == [1, 1, 1]
    numbers = [int(text.split()[1][0]) for text in batch["caption"]]
    assert sorted(numbers) == [0, 1, 2]
    assert batch["caption"][0].endswith("größer")
    assert batch["attributes"].dtype == torch.float32
    assert batch["attributes"].tolist() == [[number, 0.5] for number in numbers]
    assert batch["features"].tolist() == [[1, 2, number] for number in numbers]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"json": b"[1, 2, 3]"}, "3 numbers, others have 2|2 numbers, others have 3"),
        ({"json": b"no json"}, "attributes of sample '1' is not a list of numbers"),
        ({"json": b'{"a": "x"}'}, "attributes of sample '1' is not a list of numbers"),
        ({"features_npy": npy([[1.0]])}, "features of sample '1' is not a list of numbers.*2 dimensions"),
        ({"photo_png": encoded()}, "photo of sample '1' is 1x16x16 uint8, but must be 3x16x16"),
        ({"edges_png": b"x"}, "edges of sample '1' is not a readable image"),
    ],
)
def test_a_bad_field_is_named_with_its_sample(tmp_path, changes, reason):
    with pytest.raises(UserError, match=reason):
        batch_of(data_of(tmp_path / "data", *members(0), *members(1, **changes)))


def test_an_array_of_objects_is_never_unpickled(tmp_path):
    file = io.BytesIO()
    np.save(file, np.array([print], dtype=object), allow_pickle=True)
    with pytest.raises(UserError, match="features of sample '1' is not a list of numbers"):
        batch_of(data_of(tmp_path / "data", *members(0), *members(1, features_npy=file.getvalue())))


def test_attributes_by_name_are_a_vector_in_the_order_of_their_names(tmp_path):
    batch = batch_of(data_of(tmp_path / "data", *members(0, json=b'{"smiling": true, "age": 30, "beard": false}')))
    assert batch["attributes"].tolist() == [[30, 0, 1]]


def points_of(data, channels=None):
    settings = {"point": {"kind": "point"} | ({"channels": channels} if channels else {})}
    config = DataConfig(shards="x", image_size=16, batch_size=data.index.samples, fields=settings)
    stream = Stream(data, config, Order((data.index.samples,), 1, 0, 1), [0], 0)
    try:
        return stream.next()[0]["point"]
    finally:
        stream.close()


def test_a_point_is_an_image_of_one_pixel(tmp_path):
    data = data_of(tmp_path / "data", *[(f"{number}.json", json.dumps([number]).encode()) for number in range(3)])
    points = points_of(data)
    assert points.shape == (3, 1, 1, 1)
    assert sorted(points.flatten().tolist()) == [0, 1, 2]


def test_a_point_has_as_many_numbers_as_there_are_channels(tmp_path):
    data = data_of(tmp_path / "data", ("0.json", b"[1, 2]"))
    with pytest.raises(UserError, match=r"point of sample '0' has 2 numbers, but .* is 1"):
        points_of(data)
