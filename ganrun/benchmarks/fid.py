"""Speed of the Fréchet distance beside torch-fidelity's, on the same features, in turn in one process."""

import copy
import io
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ganrun.benchmarks.comparison import ratio, result
from ganrun.config.run_spec import RunSpec
from ganrun.config.schema import DataConfig
from ganrun.errors import UserError
from ganrun.evaluation.frechet import frechet_distance, gaussian_distance
from ganrun.evaluation.moments import FeatureMoments
from ganrun.models.extractors import Extractor

REPEATS, SIZE, SAMPLES, IMAGES = 5, 2048, 10_000, 16
PEER = "torch-fidelity"
Sides = tuple[Callable[[], object], Callable[[], object]]


def measure(spec: RunSpec) -> dict[str, Any]:
    """Measure distances/s from moments and from features, and images/s of Inception with random weights, both sides.

    Raises:
        UserError: torch-fidelity is not installed.
    """
    try:
        from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
    except ImportError as error:
        raise UserError("bench fid compares with torch-fidelity: pip install 'ganrun[fid]'") from error
    torch.set_num_threads(max(1, int(spec.cluster.cpus_per_worker)))
    real, fake = _features()
    moments = [fid_features_to_statistics(features) for features in (real, fake)]
    tensors = [torch.from_numpy(moment[name]).double() for moment in moments for name in ("mu", "sigma")]
    given: Sides = (
        lambda: gaussian_distance(*tensors),
        lambda: fid_statistics_to_metric(*moments, verbose=False),
    )
    from_features: Sides = (
        lambda: frechet_distance(_statistics_of(real), _statistics_of(fake)),
        lambda: fid_statistics_to_metric(*map(fid_features_to_statistics, (real, fake)), verbose=False),
    )
    peaks: list[float] = []
    ours, theirs = _in_turn(given, lambda: peaks.append(_peak_flops()))
    ours_from, theirs_from = _in_turn(from_features)
    ours_images, theirs_images = _in_turn(_extraction(spec.data))
    rate = statistics.median(ours)
    return result(
        "fid",
        PEER,
        "distances/s",
        ours,
        theirs,
        limit_share=rate * _flops() / max(peaks),
        from_features_ratio=ratio(ours_from, theirs_from),
        extraction_ratio=ratio(ours_images, theirs_images),
        extraction_images_per_second=IMAGES * statistics.median(ours_images),
    )


def describe(result: dict[str, Any]) -> str:
    """Describe the result in words."""
    return (
        f"Fréchet distance of given moments of {SIZE:,} features: {1 / result['ours']:.2f} s; "
        f"{result['peer']}: {1 / result['theirs']:.2f} s\n"
        f"ratio {result['ratio']:.2f}, from {SAMPLES:,} feature vectors {result['from_features_ratio']:.2f}, "
        f"Inception's features of images {result['extraction_ratio']:.2f} "
        f"(medians of {result['repeats']} repeats in turn, spread {result['spread']:.0%})\n"
        f"it reaches {result['limit_share']:.0%} of what a float64 matrix product reaches here"
    )


def _features() -> tuple[Tensor, Tensor]:
    """Return correlated non-negative features like an extractor's, float32 [SAMPLES, SIZE]."""
    generator = torch.Generator().manual_seed(0)
    mix = torch.randn(SIZE, SIZE, generator=generator) / SIZE**0.5
    real, fake = (torch.randn(SAMPLES, SIZE, generator=generator) @ mix for _ in range(2))
    return (real + 0.5).relu(), (1.1 * fake + 0.6).relu()


def _statistics_of(features: Tensor) -> FeatureMoments:
    found = FeatureMoments(SIZE)
    for chunk in torch.split(features, 1000):
        found.update(chunk)
    return found


def _extraction(data: DataConfig) -> Sides:
    """Return both sides of extracting Inception's features from images of the config's size."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    class Random(FeatureExtractorInceptionV3):  # type: ignore[misc]
        """Feature extractor of torch-fidelity with its initial weights."""

        def load_state_dict(self, *_: object) -> None:
            """Skip the download of the weights."""

    empty = io.BytesIO()
    torch.save({}, empty)
    empty.seek(0)
    network = Random("inception", ["2048", "logits_unbiased"], empty)
    layout = copy.deepcopy(network).to(memory_format=torch.channels_last)
    ours = Extractor("inception", "", SIZE, "bilinear-tensorflow", layout, classes=1008)
    size = data.image_size
    images = torch.randint(0, 256, (IMAGES, 3, size, size), dtype=torch.uint8)

    def theirs() -> Tensor:
        with torch.no_grad():
            features: Tensor = network(images)[0]
            return features

    return lambda: ours(images), theirs


def _in_turn(sides: Sides, between: Callable[[], object] = lambda: None) -> tuple[list[float], list[float]]:
    """Return calls/s of each side, REPEATS times in turn, after one warm-up call of each."""
    rates: tuple[list[float], list[float]] = ([], [])
    for repeat in range(REPEATS + 1):
        between()
        for side, found in zip(sides, rates, strict=True):
            begun = time.perf_counter()
            side()
            if repeat:
                found.append(1 / (time.perf_counter() - begun))
    return rates


def _flops() -> float:
    """Return the FLOPs of a distance: two Cholesky factors (n^3 / 3), two products (2 n^3), eigenvalues (4 n^3 / 3)."""
    return 6 * SIZE**3


def _peak_flops() -> float:
    """Return FLOP/s of a float64 matrix product."""
    a = torch.randn(SIZE, SIZE, dtype=torch.float64)
    begun = time.perf_counter()
    a @ a
    return float(2 * SIZE**3 / (time.perf_counter() - begun))
