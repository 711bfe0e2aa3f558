"""Pictures in a folder, as images to be scored: those that `ganrun sample` wrote, or those of any other program."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor
from torchvision.io import ImageReadMode, decode_image, read_file

from ganrun.errors import UserError, counted
from ganrun.models.given import Given

ENDINGS = (".png", ".jpg", ".jpeg", ".webp")
"""Endings of files that torchvision decodes. `decode` is for all others."""
MODES = {1: ImageReadMode.GRAY, 3: ImageReadMode.RGB}


class PictureFolder:
    """Images from files, in their order.

    Args:
        folder: the folder, for messages.
        paths: its pictures.
        decode: decodes a picture of another format, in mode L or RGB; raises ValueError.
        image_size: their height and width in pixels.
        channels: 1 or 3; other pictures are converted.
        seed: seed of the subsets of a score.

    Raises:
        UserError: there are fewer than two pictures.
    """

    device = torch.device("cpu")

    def __init__(
        self,
        folder: str,
        paths: Sequence[Path],
        decode: Callable[[Path], Image],
        image_size: int,
        channels: int,
        seed: int,
    ) -> None:
        self.image_size, self.channels, self.seed = image_size, channels, seed
        self.paths, self.decode = paths, decode
        if len(paths) < 2:
            raise UserError(f"--images {folder}: {counted(len(paths), 'picture')}, but a score needs at least 2")

    def images(self, start: int, count: int) -> Tensor:
        """Return the images numbered from `start`, [count, C, H, W] in [-1, 1].

        Raises:
            UserError: a picture cannot be read, or is of another size.
        """
        # From 0..255 to [-1, 1] and back, to the very pixels of the files.
        return torch.stack([self._read(path) for path in self.paths[start : start + count]]).div(127.5).sub(1)

    def labels(self, samples: int) -> None:
        """Return None: pictures in a folder have no labels."""

    def given(self, start: int, count: int) -> Given:
        """Return nothing: pictures in a folder have no condition."""
        return {}

    def truth(self, start: int, count: int) -> None:
        """Return None: no real image belongs to a picture in a folder."""

    horizons = 0
    """None: nothing follows a picture in a folder."""

    def later(self, start: int, images: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Return nothing: nothing follows a picture in a folder."""
        return []

    def _read(self, path: Path) -> Tensor:
        try:
            ending = path.suffix.lower()
            if ending in ENDINGS and (ending, self.channels) != (".webp", 1):  # torchvision makes no grey of a .webp.
                image: Tensor = decode_image(read_file(str(path)), MODES[self.channels])
            else:
                pixels = np.array(self.decode(path).convert("L" if self.channels == 1 else "RGB"))
                image = torch.from_numpy(np.atleast_3d(pixels)).permute(2, 0, 1)
        except (RuntimeError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"--images: {path} cannot be read as a picture: {reason}") from error
        if image.shape[1:] != (self.image_size, self.image_size):
            size = f"{image.shape[2]}x{image.shape[1]}"
            raise UserError(
                f"--images: {path} has {size} pixels, but the data {self.image_size}x{self.image_size}: "
                "resize the pictures, or make the data again with ganrun.prepare --size"
            )
        return image
