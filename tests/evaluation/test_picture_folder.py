"""`ganrun evaluate --images`: which pictures of a folder are scored, and in which order."""

import pytest
from PIL import Image

from ganrun.errors import UserError
from ganrun.evaluate import _pictures
from ganrun.evaluation.picture_folder import PictureFolder
from ganrun.preparation.convert_image import decode


def save(path, shade):
    path.parent.mkdir(exist_ok=True)
    Image.new("L", (4, 4), shade).save(path)


def test_pictures_in_sub_folders_and_of_other_formats_are_scored_and_the_rest_named(tmp_path):
    for shade, name in enumerate(("b.png", "a.bmp", "cats/c.tif", "d.webp")):
        save(tmp_path / name, 50 * shade)
    (tmp_path / "notes.txt").write_text("none")
    found, left_out = _pictures(str(tmp_path))
    assert [path.name for path in found] == ["a.bmp", "b.png", "c.tif", "d.webp"]
    assert left_out == ["1 .txt (notes.txt)"]
    for channels in (1, 3):
        images = PictureFolder(str(tmp_path), found, decode, 4, channels, 0).images(0, 4)
        assert images.shape == (4, channels, 4, 4)
        assert images[:3, 0, 0, 0].add(1).mul(127.5).round().tolist() == [50, 0, 100]
    (tmp_path / "a.bmp").write_bytes(b"BM")
    with pytest.raises(UserError, match=r"a\.bmp cannot be read as a picture"):
        PictureFolder(str(tmp_path), found, decode, 4, 1, 0).images(0, 1)


def test_the_order_of_a_flat_folder_is_that_of_the_names(tmp_path):
    for name in ("b", "B", "a-1", "a", "a1", "10", "9"):
        save(tmp_path / f"{name}.png", 0)
    assert _pictures(str(tmp_path)) == (sorted(tmp_path.iterdir()), [])


def test_one_picture_is_too_few(tmp_path):
    with pytest.raises(UserError, match="--images one: 1 picture, but a score needs at least 2"):
        PictureFolder("one", [tmp_path / "a.png"], decode, 4, 1, 0)
