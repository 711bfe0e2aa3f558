"""Pictures of samples."""

import io

import torch
from PIL import Image

from ganrun.evaluation.pictures import small_png


def test_a_small_picture_always_may_be_pushed():
    noise = torch.rand(20, 3, 256, 192, generator=torch.Generator().manual_seed(0)) * 2 - 1
    png = small_png(noise)
    assert len(png) <= 2**20
    assert Image.open(io.BytesIO(png)).size == (4 * 130 + 2, 4 * 130 + 2)


def test_small_images_stay_as_they_are():
    assert Image.open(io.BytesIO(small_png(torch.zeros(4, 1, 16, 24)))).size == (2 * 26 + 2, 2 * 18 + 2)
