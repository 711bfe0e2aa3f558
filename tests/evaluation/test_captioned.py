"""Pictures with captions below."""

import io

import numpy as np
import torch
from PIL import Image

from ganrun.evaluation.captioned import GAP, LINE, captioned_png


def sheet(captions, columns, size=16, each=2, **options):
    images = torch.linspace(-1, 1, len(captions) * each).view(-1, 1, 1, 1).expand(-1, 3, size, size)
    return np.asarray(Image.open(io.BytesIO(captioned_png(images, captions, columns, **options)))).astype(int)


def test_each_sample_has_its_pictures_above_its_caption():
    found = sheet(["a", "b", "c"], 2, size=32)
    tile, width = 32, 2 * 32
    assert found.shape == (2 * (tile + LINE + 2 * GAP) + GAP, 2 * (width + GAP) + GAP, 3)
    shades = np.linspace(0, 255, 6).round().astype(int)
    for number, (row, column, place) in enumerate((r, c, p) for r in (0, 1) for c in (0, 1) for p in (0, 1)):
        if number == 6:
            break
        top, left = GAP + row * (tile + LINE + 2 * GAP), GAP + column * (width + GAP) + place * tile
        assert (abs(found[top : top + tile, left : left + tile] - shades[number]) <= 1).all()
        below = found[top + tile : top + tile + LINE, left : left + tile]
        assert (below.min() < 128) == (place == 0)  # A letter, at the left.


def test_long_captions_take_lines_and_are_cut_with_an_ellipsis():
    short, two, endless = (sheet([text], 1, size=48, each=1) for text in ("one", "one two three four", "word " * 99))
    assert two.shape[0] - short.shape[0] == LINE * (round((two.shape[0] - short.shape[0]) / LINE))
    assert endless.shape[0] - short.shape[0] == 2 * LINE
    assert sheet(["unbreakable" * 9], 1, size=48, each=1).shape == short.shape
    assert sheet([""], 1, size=48, each=1).shape == short.shape
    assert sheet(["one\ntwo \t three"], 1, size=96, each=1).shape[0] == 96 + LINE + 3 * GAP


def test_small_pictures_are_enlarged_by_whole_factors():
    assert sheet(["a"], 1, size=40, each=1, smallest=96).shape[1] == 3 * 40 + 2 * GAP
