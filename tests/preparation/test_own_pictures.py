"""Pictures and masks that a user gives to a run."""

import numpy as np
from PIL import Image

from ganrun.api.pictures import hole_of
from ganrun.preparation.own_pictures import masks_by_name


def test_what_is_transparent_in_a_mask_is_kept(tmp_path):
    layer = np.zeros((4, 6, 4), np.uint8)
    layer[1:3, 2:4] = 255
    layer[0, 0] = (255, 255, 255, 1)  # Hardly seen, but painted.
    layer[3, 5] = (0, 0, 0, 255)
    Image.fromarray(layer).save(tmp_path / "hole.png")
    expected = np.zeros((4, 6), bool)
    expected[1:3, 2:4] = expected[0, 0] = True
    assert np.array_equal(masks_by_name(str(tmp_path / "hole.png"))("any"), expected)
    for picture in (tmp_path / "hole.png", Image.open(tmp_path / "hole.png")):
        assert np.array_equal(hole_of(picture), expected)


def test_a_hole_that_was_erased_from_a_black_mask_is_one(tmp_path):
    layer = np.zeros((4, 6, 4), np.uint8)
    layer[..., 3] = 255
    layer[1:3, 2:4, 3] = 0
    Image.fromarray(layer).save(tmp_path / "hole.png")
    assert np.array_equal(masks_by_name(str(tmp_path / "hole.png"))("any"), layer[..., 3] == 0)
