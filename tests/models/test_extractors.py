"""Extractors whose weights are files: Inception in torch-fidelity's format, and TorchScript programs."""

import hashlib
import io
import sys
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from ganrun.errors import UserError
from ganrun.models import extractors as features
from ganrun.models.extractors import Extractor, open_extractor

NAME = "inception-v3-compat"


class Random(FeatureExtractorInceptionV3):
    """With the weights that it begins with, in place of a file's."""

    def load_state_dict(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of the published one's format, with random weights."""
    path = tmp_path_factory.mktemp("weights") / "inception.pth"
    empty = io.BytesIO()
    torch.save({}, empty)
    empty.seek(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = Random("random", ["2048"], empty)
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):  # as trained ones: neither 0 nor 1
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
            module.weight.data.uniform_(0.5, 2, generator=generator)
            module.bias.data.normal_(0, 0.1, generator=generator)
    torch.save(network.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def extractor(weights: Path) -> Extractor:
    return open_extractor(NAME, str(weights))


@pytest.mark.parametrize("size", [32, 299, 320])
def test_features_and_logits_are_torch_fidelitys(extractor: Extractor, weights: Path, size: int) -> None:
    theirs = FeatureExtractorInceptionV3("theirs", ["2048", "logits_unbiased"], str(weights))
    images = torch.randint(0, 256, (3, 3, size, size), dtype=torch.uint8)
    expected, expected_logits = theirs(images)
    ours, logits = extractor.extract(images)
    assert ours.shape == (3, extractor.size)
    assert logits is not None
    assert logits.shape == (3, extractor.classes)
    assert expected.std() > 1e-3
    torch.testing.assert_close(ours, expected, rtol=1e-6, atol=float(1e-6 * expected.abs().max()))
    torch.testing.assert_close(logits, expected_logits, rtol=1e-6, atol=float(1e-6 * expected_logits.abs().max()))


def test_provenance_holds_the_hash_of_the_weights_file(extractor: Extractor, weights: Path) -> None:
    assert extractor.provenance == {
        "extractor": NAME,
        "extractor_sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "resize": "bilinear-tensorflow",
    }


def test_a_hash_that_is_named_must_be_that_of_the_file(weights: Path) -> None:
    with pytest.raises(UserError, match=r"inception\.pth has sha256 .*, expected 0123"):
        open_extractor(NAME, f"{weights}#sha256=0123")
    right = hashlib.sha256(weights.read_bytes()).hexdigest()
    assert open_extractor(NAME, f"{weights}#sha256={right.upper()}").sha256 == right


class Unpickled:
    """What a hostile weights file could hold."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("ran",)


@pytest.mark.parametrize("content", ["hostile", "other", "text", "missing"])
def test_weights_that_are_no_weights_are_refused_and_never_run(content: str, tmp_path: Path, capsys) -> None:
    path = tmp_path / "weights.pth"
    if content == "text":
        path.write_text("<html>not found</html>")
    elif content != "missing":
        torch.save({"fc.weight": Unpickled() if content == "hostile" else torch.zeros(3)}, path)
    with pytest.raises(UserError, match=r"evaluate\.extractor_weights: ") as error:
        open_extractor(NAME, str(path))
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
    assert "ran" not in capsys.readouterr().out


def test_without_torch_fidelity_the_message_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch_fidelity.feature_extractor_inceptionv3", None)
    with pytest.raises(UserError, match=r"pip install 'ganrun\[fid\]'"):
        open_extractor(NAME)


def test_weights_are_downloaded_once_and_checked(weights: Path, tmp_path: Path, monkeypatch) -> None:
    sha256 = hashlib.sha256(weights.read_bytes()).hexdigest()
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(features, "INCEPTION_URL", weights.as_uri())
    monkeypatch.setattr(features, "INCEPTION_SHA256", "0" * 64)
    with pytest.raises(UserError, match=r"cannot download .*get the file by other means"):
        open_extractor(NAME)
    monkeypatch.setattr(features, "INCEPTION_SHA256", sha256)
    assert open_extractor(NAME).sha256 == sha256
    monkeypatch.setattr(features, "INCEPTION_URL", f"file://nowhere/{weights.name}")
    assert open_extractor(NAME).sha256 == sha256


class Brightness(nn.Module):
    """Mean and spread of each channel."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        flat = images.to(torch.float32).flatten(2)
        return torch.cat([flat.mean(2), flat.std(2)], dim=1)


def script(module: nn.Module, path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(module), path)
    return path


def test_a_torchscript_program_is_an_extractor(tmp_path: Path) -> None:
    path = script(Brightness(), tmp_path / "brightness.pt")
    extractor = open_extractor(path.as_uri())
    images = torch.randint(0, 256, (7, 1, 9, 9), dtype=torch.uint8)
    torch.testing.assert_close(extractor(images), Brightness()(images.expand(-1, 3, -1, -1)))
    assert extractor.size == 6
    assert extractor.provenance == {
        "extractor": "brightness.pt",
        "extractor_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "resize": "its own",
    }


class Whole(nn.Module):
    """Gives images, no features."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images


@pytest.mark.parametrize("content", ["missing", "text", "no features"])
def test_a_program_that_is_none_is_one_clear_line(content: str, tmp_path: Path) -> None:
    path = tmp_path / "program.pt"
    if content == "text":
        path.write_text("import os")
    elif content == "no features":
        script(Whole(), path)
    with pytest.raises(UserError, match=r"evaluate\.extractor: ") as error:
        open_extractor(str(path))
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
