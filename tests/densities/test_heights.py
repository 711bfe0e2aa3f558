"""Heights of two groups: what travels with ganrun, the fit of a mixture, the histogram with densities."""

import io
import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch.func import functional_call, grad, vmap

from ganrun.config.schema import FieldConfig
from ganrun.data.index import open_data
from ganrun.evaluation.heights import edges_of, shares_of, total_variation
from ganrun.evaluation.modes import MIXTURES, modes, picture
from ganrun.evaluation.paired_samples import PairedSamples
from ganrun.models.mixture import Mixture
from ganrun.preparation.points import draw
from tests.densities.densities import noise_of, nothing, passes_over

OF = MIXTURES["points:heights"]


@pytest.fixture(scope="module")
def heights():
    """The heights of the package, float64 [B, 1, 1, 1] as networks see them."""
    data = open_data("package:heights")
    samples = PairedSamples(data, data.samples, {"image": FieldConfig(kind="point")}, "image")
    return samples.batch(0, data.samples, torch.device("cpu"), torch.float64)["image"]


def test_the_package_has_the_heights_that_prepare_draws(heights):
    expected, _ = draw(OF, 10_000, 0)
    found = np.sort(heights.flatten().numpy())
    np.testing.assert_allclose(found, np.sort(expected.flatten()), atol=1e-6)


def test_em_finds_means_deviations_and_weights_within_three_standard_errors(heights):
    torch.manual_seed(0)
    mixture = Mixture((1, 1, 1), 2).double()
    mixture.initialise(passes_over(heights, 2_500), nothing, 100)
    parameters = {name: each.detach() for name, each in mixture.named_parameters()}

    def nats(values, x):
        return functional_call(_LogProb(mixture), {f"density.{name}": each for name, each in values.items()}, (x,))

    # The information of a sample is the mean of the outer products of its scores.
    scores = vmap(grad(nats), (None, 0))(parameters, heights[:, None])
    flat = torch.cat([scores[name].flatten(1) for name in parameters], dim=1)
    errors = torch.linalg.pinv(flat.T @ flat).diagonal().sqrt()
    found = dict(zip(parameters, errors.split([each.numel() for each in parameters.values()]), strict=True))
    means = (mixture.means.flatten() * OF.scale + OF.offset).tolist()
    deviations, weights = (
        (mixture.variances.flatten().sqrt() * OF.scale).tolist(),
        mixture.logits.softmax(1)[0].tolist(),
    )
    for k, mean in enumerate((162, 178)):
        assert abs(means[k] - mean) < 3 * OF.scale * float(found["means"][k])
        assert abs(deviations[k] / OF.sd - 1) < 3 * float(found["log_deviations"][k])
        assert abs(weights[k] - 0.5) < 3 * 0.5 * float(found["logits"][k])
    assert max(OF.scale * float(each) for each in found["means"]) < 0.4  # cm.


class _LogProb(torch.nn.Module):
    def __init__(self, density):
        super().__init__()
        self.density = density

    def forward(self, x):
        return self.density.log_prob(x, noise_of())[0]


def test_the_shares_of_the_bins_are_those_of_a_large_sample():
    shares = shares_of(edges_of(OF.centres, OF.sd), OF.centres, OF.sd)
    assert shares.sum() == pytest.approx(1)
    points, _ = draw(OF, 200_000, 1)
    distance = total_variation(OF.restored(points)[:, 0], OF.centres, OF.sd)
    assert distance < 2 * math.sqrt(len(shares) / (2 * math.pi * 200_000))


def test_the_distance_of_heights_sees_a_missing_group_and_numbers_that_are_not_finite():
    points, labels = draw(OF, 10_000, 0)
    assert modes(points, OF)["mode_distance"] < 0.05
    one = modes(points[labels == 0], OF)
    assert one["mode_distance"] > 0.3
    points[:5_000] = np.nan
    assert modes(points, OF)["mode_distance"] == pytest.approx(0.5, abs=0.05)


def test_the_picture_of_heights_is_a_histogram_with_the_density_of_the_model():
    points, _ = draw(OF, 500, 0)
    asked = []

    def density(x):
        asked.append(x)
        return np.full(len(x), 0.1)

    plain, both = (picture(points, OF, "heights", {"a": "b"}, each) for each in (None, density))
    assert plain != both
    assert Image.open(io.BytesIO(both)).size == (900, 560)
    assert Image.open(io.BytesIO(both)).text["a"] == "b"
    heights = OF.restored(asked[0])
    assert heights.min() == pytest.approx(162 - 5 * 6.5)
    assert heights.max() == pytest.approx(178 + 5 * 6.5)
