"""Batches from shards: what the order says, read ahead, and every fault named."""

import hashlib
import io
import tarfile
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from ganrun.config.schema import DataConfig, FieldConfig
from ganrun.data import stream as streams
from ganrun.data.index import DataSet, Index, Shard, open_data
from ganrun.data.order import Order
from ganrun.data.stream import Stream
from ganrun.errors import UserError
from ganrun.storage import Folder
from tests.conftest import SIZES, write_data
from tests.data.test_order import walk
from tests.waiting import WAIT

IMAGE, LABEL = {"image": FieldConfig(kind="image")}, {"label": FieldConfig(kind="label")}


def config_of(batch_size, fields, **options):
    return DataConfig(shards="x", image_size=16, channels=1, batch_size=batch_size, fields=fields, **options)


@pytest.fixture
def opened():
    """Streams to close at the end."""
    streams: list[Stream] = []
    yield streams
    for stream in streams:
        stream.close()


@pytest.fixture
def stream_of(opened):
    def make(data, slots=1, owned=None, batch=2, images=0, window=2, fields=IMAGE, damaged_share=0.0, **options):
        order = Order(tuple(shard.samples for shard in data.index.shards), slots, 1, window)
        config = config_of(batch * slots, fields, damaged_share=damaged_share)
        opened.append(Stream(data, config, order, range(slots) if owned is None else owned, images, **options))
        return opened[-1]

    return make


def stored(folder):
    """(shard, number) -> (pixels [C, H, W], label), read with the standard library and Pillow."""
    samples = {}
    for shard, path in enumerate(sorted(folder.glob("*.tar"))):
        with tarfile.open(path) as tar:
            members = {member.name: tar.extractfile(member).read() for member in tar.getmembers()}
        for number, key in enumerate(sorted({name.partition(".")[0] for name in members})):
            pixels = np.array(Image.open(io.BytesIO(members[f"{key}.png"])))
            pixels = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
            samples[shard, number] = (pixels, int(members[f"{key}.cls"]))
    return samples


def encoded(size=16, mode="L", format="png"):
    file = io.BytesIO()
    Image.new(mode, (size, size), 77).save(file, format)
    return file.getvalue()


def data_of(folder, *members, samples=None):
    """A data set of one shard with these (name, bytes), whole and indexed; 16 x 16, grey, classes a and b."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    content = file.getvalue()
    folder.mkdir()
    (folder / "0.tar").write_bytes(content)
    samples = samples or len({name.partition(".")[0] for name, _ in members})
    shard = Shard("0.tar", samples, len(content), hashlib.sha256(content).hexdigest())
    (folder / "index.json").write_bytes(Index(16, 1, ("a", "b"), (shard,)).to_json())
    return open_data(str(folder))


# What is shown.


@pytest.mark.parametrize(("slots", "owned"), [(1, [0]), (6, [0, 1, 2, 3, 4, 5]), (6, [2, 3])])
def test_what_is_shown_is_what_the_order_says(data_folder, stream_of, slots, owned):
    expected, length = stored(data_folder), 40
    stream = stream_of(open_data(str(data_folder)), slots, owned, batch=2, fields=IMAGE | LABEL)
    shown = [stream.next() for _ in range(length)]
    order = Order(SIZES, slots, 1, 2)
    for place, slot in enumerate(owned):
        images = torch.cat([batches[place]["image"] for batches in shown])
        labels = torch.cat([batches[place]["label"] for batches in shown])
        for number, sample in enumerate(walk(order, slot, 0, 2 * length)):
            assert np.array_equal(images[number], expected[sample][0])
            assert labels[number] == expected[sample][1]


def test_colour_is_shown_too(tmp_path, stream_of):
    folder = write_data(tmp_path / "colour", sizes=(5,), image_size=16, channels=3)
    image = stream_of(open_data(str(folder)), batch=1).next()[0]["image"][0]
    assert any(np.array_equal(image, pixels) for pixels, _ in stored(folder).values())


@pytest.mark.parametrize("images", [12, 120, 132, 276])
def test_a_stream_goes_on_where_another_stopped(data_folder, stream_of, images):
    data = open_data(str(data_folder))
    whole, resumed = stream_of(data, slots=6), stream_of(data, slots=6, images=images)
    for _ in range(images // 12):
        whole.next()
    for _ in range(5):
        for expected, found in zip(whole.next(), resumed.next(), strict=True):
            assert torch.equal(found["image"], expected["image"])


def test_a_batch_is_bytes_in_the_shape_of_the_index(data_folder, stream_of):
    (batch,) = stream_of(open_data(str(data_folder)), batch=5, fields=IMAGE | LABEL).next()
    assert batch["image"].shape == (5, 1, 16, 16)
    assert batch["image"].dtype == torch.uint8
    assert batch["label"].shape == (5,)
    assert batch["label"].dtype == torch.int64


def test_only_the_fields_asked_for_are_read(tmp_path, stream_of):
    data = data_of(tmp_path / "data", ("a.png", encoded()))  # has no label, which nobody asks for
    assert stream_of(data, batch=1).next()[0].keys() == {"image"}


@pytest.mark.parametrize(("extension", "format"), [("png", "png"), ("jpg", "jpeg"), ("JPEG", "jpeg"), ("webp", "webp")])
def test_every_image_format_is_read(tmp_path, stream_of, extension, format):
    mode, channels = ("RGB", 3) if format == "webp" else ("L", 1)
    data = data_of(tmp_path / "data", (f"a.{extension}", encoded(mode=mode, format=format)))
    data = DataSet(replace(data.index, channels=channels), data.places)
    image = stream_of(data, batch=1).next()[0]["image"]
    assert image.shape == (1, channels, 16, 16)
    assert abs(int(image[0, 0].float().mean()) - 77) <= 3


# Reading ahead and leaving.


class Watched(Folder):
    """Notes what is read, and may be made to wait."""

    def __init__(self, path):
        super().__init__(path)
        self.shards = []
        self.free = threading.Event()
        self.free.set()

    def read(self, name, limit=None):
        if name.endswith(".tar"):
            self.shards.append(name)
            self.free.wait()
        return super().read(name)


def watched(folder):
    data = open_data(str(folder))
    place = Watched(folder)
    return DataSet(data.index, (place,) * len(data.places)), place


def test_batches_are_read_ahead_and_not_without_end(data_folder, stream_of):
    stream = stream_of(open_data(str(data_folder)), batch=2)
    for _ in range(6_000):
        if stream._slots[0].position >= 2 * 3:
            break
        threading.Event().wait(0.01)
    threading.Event().wait(0.1)
    assert stream._slots[0].position == 2 * 3  # Two that wait, and the one in the reader's hand.


def test_slots_that_meet_in_a_shard_share_it(data_folder, stream_of):
    data, place = watched(data_folder)
    stream = stream_of(data, slots=6, window=5)
    for _ in range(5):
        stream.next()
    assert len(place.shards) == len(set(place.shards))


def test_two_windows_of_shards_and_one_that_is_over_are_all_that_is_held(data_folder, stream_of):
    stream = stream_of(open_data(str(data_folder)), batch=4, window=2)
    for _ in range(60):
        stream.next()
        assert len(stream.fetcher._opened) <= (2 + 1) * 2


@pytest.mark.parametrize("taken", [0, 1, 7])
def test_close_ends_the_threads(data_folder, stream_of, taken):
    stream = stream_of(open_data(str(data_folder)))
    for _ in range(taken):
        stream.next()
    stream.close()
    assert not stream._reader.is_alive()
    stream.close()


def test_close_ends_a_stream_that_failed(tmp_path, stream_of):
    stream = stream_of(data_of(tmp_path / "data", ("a.png", b"no image")), batch=1)
    with pytest.raises(UserError):
        stream.next()
    stream.close()
    assert not stream._reader.is_alive()


def test_close_does_not_wait_for_a_storage_that_does_not_answer(data_folder, stream_of, monkeypatch):
    monkeypatch.setattr(streams, "CLOSE_SECONDS", 0.1)
    data, place = watched(data_folder)
    place.free.clear()
    stream = stream_of(data)
    closing = threading.Thread(target=stream.close, daemon=True)
    closing.start()
    closing.join(WAIT)
    assert not closing.is_alive()
    place.free.set()


# Corrupt shards and samples.


def fault_of(stream, turns=1):
    """The message of the first of the next `turns` turns that fails."""
    for _ in range(turns):
        try:
            stream.next()
        except UserError as error:
            return str(error)
    raise AssertionError("no turn failed")


def corrupted(folder, change):
    """A whole data set of two shards, and then its first one changed."""
    write_data(folder, sizes=(4, 4))
    path = folder / "000000.tar"
    path.write_bytes(change(path.read_bytes()))
    return open_data(str(folder))


def flip(data):
    return data[:700] + bytes([data[700] ^ 1]) + data[701:]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda data: data[:-600], "bytes, but the index says"),
        (lambda data: b"", "0 bytes, but the index says"),
        (flip, "sha256"),
    ],
    ids=["truncated", "empty", "flipped"],
)
def test_a_corrupt_shard_is_named(tmp_path, stream_of, change, reason):
    fault = fault_of(stream_of(corrupted(tmp_path / "data", change)), turns=4)
    assert "data/000000.tar: " in fault
    assert reason in fault


def test_a_missing_shard_is_named(tmp_path, stream_of):
    data = corrupted(tmp_path / "data", lambda data: data)
    (tmp_path / "data/000000.tar").unlink()
    assert "data/000000.tar: cannot be read: No such file" in fault_of(stream_of(data), turns=4)


def test_a_shard_that_is_no_tar_is_named(tmp_path, stream_of):
    (tmp_path / "data").mkdir()
    content = b"this is no tar" * 100
    (tmp_path / "data/0.tar").write_bytes(content)
    index = Index(16, 1, (), (Shard("0.tar", 1, len(content), hashlib.sha256(content).hexdigest()),))
    data = DataSet(index, (Folder(tmp_path / "data"),))
    assert "data/0.tar: not a tar" in fault_of(stream_of(data, batch=1))


def test_a_shard_with_other_samples_than_its_index_is_named(tmp_path, stream_of):
    data = data_of(tmp_path / "data", ("a.png", encoded()), ("b.png", encoded()), samples=3)
    assert "0.tar: 2 samples, but the index says 3" in fault_of(stream_of(data, batch=1))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"no image", "not a readable image"),
        (b"", "not a readable image"),
        (encoded()[:40], "not a readable image"),
        (encoded(size=8), "1x8x8 uint8, but must be 1x16x16"),
        (encoded(mode="RGB"), "3x16x16 uint8, but must be 1x16x16"),
        (encoded(mode="LA"), "2x16x16 uint8, but must be 1x16x16"),
        (encoded(mode="I;16"), "uint16, but must be 1x16x16 (channels x height x width) of 8 bits"),
    ],
    ids=["text", "empty", "truncated", "size", "colour", "alpha", "depth"],
)
def test_a_sample_whose_image_is_not_as_promised_is_named_with_its_shard(tmp_path, stream_of, content, reason):
    fault = fault_of(stream_of(data_of(tmp_path / "data", ("some/key.png", content)), batch=1))
    assert "data/0.tar: " in fault
    assert "'some/key'" in fault
    assert reason in fault


def test_a_sample_without_an_image_is_named(tmp_path, stream_of):
    fault = fault_of(stream_of(data_of(tmp_path / "data", ("key.cls", b"1")), batch=1))
    assert "data/0.tar: sample 'key' has no image (.png or .jpg or .jpeg or .webp), only .cls" in fault


def test_a_sample_without_a_label_is_named(tmp_path, stream_of):
    data = data_of(tmp_path / "data", ("key.png", encoded()))
    fault = fault_of(stream_of(data, batch=1, fields=IMAGE | LABEL))
    assert "data/0.tar: sample 'key' has no label (.cls), only .png" in fault


@pytest.mark.parametrize("content", [b"cat", b"", b"\xff"])
def test_a_label_that_is_no_number_is_named(tmp_path, stream_of, content):
    data = data_of(tmp_path / "data", ("key.png", encoded()), ("key.cls", content))
    fault = fault_of(stream_of(data, batch=1, fields=IMAGE | LABEL))
    assert f"data/0.tar: label of sample 'key' is {content!r}, not an integer" in fault


@pytest.mark.parametrize("label", [b"2", b"-1"])
def test_a_label_that_is_no_class_is_named(tmp_path, stream_of, label):
    data = data_of(tmp_path / "data", ("key.png", encoded()), ("key.cls", label))
    fault = fault_of(stream_of(data, batch=1, fields=IMAGE | LABEL))
    assert f"data/0.tar: label of sample 'key' is {int(label)}, but the index names 2 classes" in fault


def test_a_fault_is_told_again(tmp_path, stream_of):
    stream = stream_of(data_of(tmp_path / "data", ("a.png", b"no image")), batch=1)
    assert fault_of(stream) == fault_of(stream)


def test_batches_before_a_fault_are_shown(tmp_path, stream_of):
    data = data_of(tmp_path / "data", *[(f"{number}.png", encoded()) for number in range(7)], ("7.png", b"no image"))
    order = Order((8,), 1, 1, 2)
    before = [number for _, number in walk(order, 0, 0, 8)].index(7)
    stream = stream_of(data, batch=1)
    for _ in range(before):
        stream.next()
    assert "'7'" in fault_of(stream)
