"""Pictures and masks that a user gives to a run."""

import numpy as np
from PIL import Image

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
