"""Moving Fashion-MNIST is computed to the bit, and moves as it says."""

import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import ganrun
from ganrun.data import moving_fashion
from ganrun.data.index import Index, PictureField, Shard, open_data
from ganrun.data.moving_fashion import FRAMES, GARMENT, SHARD_NAMES, SPEED, frames, garments, shard
from ganrun.data.shard import open_shard
from ganrun.data.shard_uris import COMPUTED
from ganrun.errors import UserError
from tests.recorded import ganrun as command

INDEX = Path(ganrun.__file__).parent / "data/moving-fashion/index.json"


def make_index() -> bytes:
    """Return the index of all shards; `python -m tests.data.test_moving_fashion` writes it."""
    each = moving_fashion.CLIPS // len(SHARD_NAMES)
    computed = [shard(number) for number in range(len(SHARD_NAMES))]
    shards = [
        Shard(name, each, len(data), hashlib.sha256(data).hexdigest())
        for name, data in zip(SHARD_NAMES, computed, strict=True)
    ]
    further = [extension for extension in FRAMES if extension != "png"]
    made = {"source": COMPUTED, "of": "package:fashion-mnist-10k", "skipped": 0}
    made["members"] = dict.fromkeys(further, moving_fashion.CLIPS)
    pictures = {extension.removesuffix(".png"): PictureField(moving_fashion.SIZE, 1) for extension in further}
    return Index(moving_fashion.SIZE, 1, (), tuple(shards), made, pictures).to_json()


def test_the_index_is_that_of_the_computed_shards():
    assert INDEX.read_bytes() == make_index()


def test_files_are_what_pillow_reads_and_each_garment_is_in_one_clip():
    data = open_data(COMPUTED)
    assert data.samples == moving_fashion.CLIPS == len(garments()) // 2
    assert len({garment.tobytes() for garment in garments()}) > 9_990  # A few are twice in Fashion-MNIST itself.
    samples = open_shard(data.read(7), data.index.shards[7], data.where(7))
    key, members = samples[3]
    found = np.stack([np.asarray(Image.open(io.BytesIO(members[extension]))) for extension in FRAMES])
    assert np.array_equal(found, frames(int(key)))


def test_garments_keep_their_speed_and_stay_inside():
    """A garment is found again where its path says: there alone the frame is nowhere darker than it."""
    for clip in (0, 1_234, 4_999):
        made = frames(clip)
        for garment in (garments()[clip], garments()[clip + moving_fashion.CLIPS]):
            reach = moving_fashion.SIZE - GARMENT + 1
            fits = [
                {
                    (row, column)
                    for row in range(reach)
                    for column in range(reach)
                    if (frame[row : row + GARMENT, column : column + GARMENT] >= garment).all()
                }
                for frame in made
            ]
            assert all(fits)
            paths = [[place] for place in fits[0]]
            for places in fits[1:]:
                steps = [(path, place) for path in paths for place in places if near(path[-1], place)]
                paths = [[*path, place] for path, place in steps]
            assert paths


def near(before, place):
    return all(abs(a - b) <= SPEED for a, b in zip(before, place, strict=True)) and before != place


def test_what_is_not_there_and_what_is_not_copied(tmp_path):
    place = moving_fashion.MovingFashion()
    with pytest.raises(FileNotFoundError):
        place.read("shard-000040.tar")
    with pytest.raises(OSError, match="at most 5"):
        place.read(SHARD_NAMES[0], 5)
    code, _, error = command("prepare", f"shards:{COMPUTED}", tmp_path / "copy")
    assert code == 2
    assert "is computed wherever it is read, so there is nothing to copy" in error
    code, _, error = command("prepare", f"shards:{COMPUTED}", tmp_path / "shown.png", "--show")
    assert code == 0, error
    assert Image.open(tmp_path / "shown.png").width > 500
    with pytest.raises(UserError, match="carries fashion-mnist-10k, fluent-emoji, heights, dirac, moving-fashion"):
        open_data("package:moving")


if __name__ == "__main__":
    INDEX.parent.mkdir(exist_ok=True)
    INDEX.write_bytes(make_index())
