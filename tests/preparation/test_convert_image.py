"""Conversion of pictures of every format and mode."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ganrun.preparation.convert_image import Rule, convert
from tests.preparation.making import noise


def kinds_of_pictures() -> dict[str, tuple[Image.Image, int, tuple[int, ...]]]:
    """A picture of one value, the channels asked for, and the pixel that must come out."""
    palette = Image.new("P", (8, 8), 1)
    palette.putpalette([0, 0, 0, 10, 20, 30])
    deep = Image.fromarray(np.full((8, 8), 257 * 200, np.uint16))
    return {
        "grey": (Image.new("L", (8, 8), 9), 1, (9,)),
        "grey to colour": (Image.new("L", (8, 8), 9), 3, (9, 9, 9)),
        "colour to grey": (Image.new("RGB", (8, 8), (255, 0, 0)), 1, (76,)),
        "bilevel": (Image.new("1", (8, 8), 1), 1, (255,)),
        "palette": (palette, 3, (10, 20, 30)),
        "16 bit": (deep, 1, (200,)),
        "clear": (Image.new("RGBA", (8, 8), (0, 0, 0, 0)), 3, (255, 255, 255)),
        "half clear": (Image.new("RGBA", (8, 8), (0, 0, 0, 51)), 3, (204, 204, 204)),
        "grey and clear": (Image.new("LA", (8, 8), (0, 0)), 1, (255,)),
    }


@pytest.mark.parametrize("kind", kinds_of_pictures())
def test_every_kind_of_picture_becomes_plain(kind: str, tmp_path: Path) -> None:
    image, channels, expected = kinds_of_pictures()[kind]
    image.save(tmp_path / "one.png")
    for rule in (Rule(8, channels, recolour=True), Rule(5, channels, resize=True, recolour=True)):
        picture = convert(tmp_path / "one.png", rule)
        assert picture.pixels.shape == (rule.size, rule.size, channels)
        assert (picture.pixels == expected).all()
        (tmp_path / "two").write_bytes(picture.data)
        written = Image.open(tmp_path / "two")
        assert written.mode == ("L" if channels == 1 else "RGB")
        assert (np.asarray(written).reshape(picture.pixels.shape) == expected).all()


def test_cmyk_and_animations_become_plain(tmp_path: Path) -> None:
    Image.new("CMYK", (8, 8), (0, 0, 0, 0)).save(tmp_path / "a.jpg")
    assert (convert(tmp_path / "a.jpg", Rule(8, 3)).pixels == 255).all()
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "b.png", save_all=True, append_images=frames[1:])
    picture = convert(tmp_path / "b.png", Rule(8, 3))
    assert (picture.pixels == (255, 0, 0)).all()
    assert not picture.kept


def test_exif_turns_the_picture_upright(tmp_path: Path) -> None:
    image = noise(1)
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "one.png", exif=exif)
    picture = convert(tmp_path / "one.png", Rule(8, 3))
    assert (picture.pixels == np.rot90(np.asarray(image), -1)).all()
    assert not picture.kept
