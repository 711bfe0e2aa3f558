"""Images decoded on a GPU: JPEGs, by nvJPEG through torchvision.

Its pixels are not libjpeg's: it rounds otherwise, and widens colours that are stored at half the resolution (4:2:0) by
nearest neighbours, where libjpeg interpolates. A run therefore has one decoder from its begin to its end
(`data.decode` is fixed), and the real images that scores compare with are decoded by libjpeg in every run.
"""

from collections.abc import Sequence
from concurrent.futures import Executor

import torch
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg

from ganrun.config.schema import FieldConfig
from ganrun.data.decode import JPEG, Decoder, Located, jpeg_shape
from ganrun.data.index import Index
from ganrun.data.shard import MirroredSample, OpenShard, Sample
from ganrun.errors import UserError


class GpuDecoder(Decoder):
    """Decodes one field of samples: images on a GPU, all else as `Decoder` does.

    Args:
        name, field, index: as of `Decoder`.
        device: the GPU. On a CPU torchvision decodes with libjpeg.
    """

    def __init__(self, name: str, field: FieldConfig, index: Index, device: torch.device) -> None:
        super().__init__(name, field, index)
        self.device = device

    def _images(self, samples: Sequence[Located], threads: Executor | None, parts: int) -> Tensor:
        """Decode images to [B, C, H, W] on the GPU, cropped and mirrored."""
        border = (self.stored_size - self.size) // 2
        inside = slice(border, border + self.size)
        images = [image[:, inside, inside] for image in self._whole(samples)]
        mirrored = [isinstance(members, MirroredSample) for _, _, members in samples]
        return torch.stack([image.flip(-1) if flip else image for image, flip in zip(images, mirrored, strict=True)])

    def _whole(self, samples: Sequence[Located]) -> list[Tensor]:
        """Decode whole images.

        Raises:
            UserError: one is corrupt, of another shape or no JPEG; names shard and sample.
        """
        # bytearrays, since torch warns of read-only buffers.
        files = [torch.frombuffer(bytearray(self._jpeg(*sample)), dtype=torch.uint8) for sample in samples]
        mode = ImageReadMode.GRAY if self.channels == 1 else ImageReadMode.RGB
        try:
            images: list[Tensor] = decode_jpeg(files, mode, device=self.device)
        except RuntimeError as error:
            if len(samples) > 1:  # Finds the one that cannot be decoded.
                return [image for sample in samples for image in self._whole([sample])]
            shard, key, _ = samples[0]
            raise UserError(
                f"{shard.where}: {self.name} of sample {key!r} is not a readable image: {str(error).splitlines()[0]}; "
                "if the GPU reads none, set data.decode: cpu"
            ) from error
        return images

    def _jpeg(self, shard: OpenShard, key: str, members: Sample) -> memoryview:
        """Return the JPEG of a sample, of the right shape by its header."""
        encoded = self._member(shard, key, members)
        where = f"{shard.where}: {self.name} of sample {key!r}"
        if encoded[:2] != JPEG:
            raise UserError(f"{where} is no JPEG, which data.decode: gpu asks for; set data.decode: cpu")
        try:
            found = jpeg_shape(encoded)
        except ValueError as error:
            raise UserError(f"{where} is not a readable image: {error}") from error
        self._check_shape(found, self.stored_size, shard, key)
        return encoded
