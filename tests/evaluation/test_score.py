"""Names of scores, metrics that fail without ending a run, and real images that score better than noise."""

import json
import math

import pytest
import torch
from torch import Tensor

from ganrun.config.schema import FieldConfig
from ganrun.data.index import open_data
from ganrun.evaluation.feature_statistics import FeatureStatistics, Keep, extract_generated, extract_real
from ganrun.evaluation.frechet import frechet_distance
from ganrun.evaluation.real_images import RealImages
from ganrun.evaluation.score import Labels, needed, score, score_name
from ganrun.models.extractors import Extractor, efficientnet_lite0
from tests.evaluation.making import clouds, read, sample, statistics_of, tiny_extractor

SAMPLES, BATCH = 103, 8
INCEPTION_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
"""Of torch-fidelity's port of the weights that the published FIDs are measured with."""
EVERYTHING = ("kid", "precision", "recall", "density", "coverage", "inception_score")


def seen(features: Tensor, logits: Tensor | None = None) -> FeatureStatistics:
    return FeatureStatistics(statistics_of(features), features.float(), logits)


def test_a_diverged_generator_scores_nan_and_null() -> None:
    def broken(start: int, count: int) -> Tensor:
        images = sample(start, count)
        images[-1, 0, 0, 0] = math.nan
        return images

    extractor, keep = tiny_extractor(classes=5), needed(EVERYTHING)
    real = extract_real(read, SAMPLES, BATCH, extractor, keep=keep)
    found = score(real, extract_generated(broken, SAMPLES, BATCH, extractor, keep=keep), extractor, 0, EVERYTHING)
    assert math.isnan(found.value)
    told = json.loads(json.dumps(found.to_json()))
    assert told["value"] is None
    assert told["metrics"] == dict.fromkeys(EVERYTHING)


def test_a_score_tells_where_it_came_from() -> None:
    extractor = tiny_extractor()
    reals = extract_real(read, SAMPLES, BATCH, extractor)
    assert score(reals, reals, extractor, seed=7).to_json() == {
        "name": "Fréchet distance (tiny, n=103)",
        "measure": "frechet_distance",
        "value": pytest.approx(0, abs=1e-9),
        "extractor": "tiny",
        "extractor_sha256": "0" * 64,
        "resize": "bicubic-antialias",
        "held_out": None,
        "samples": 103,
        "seed": 7,
        "metrics": {},
    }


@pytest.mark.parametrize(
    ("extractor", "sha256", "samples", "name"),
    [
        ("inception-v3-compat", INCEPTION_SHA256, 50_000, "FID"),
        ("inception-v3-compat", INCEPTION_SHA256, 2_000, "FID-2000"),
        ("inception-v3-compat", "0" * 64, 50_000, "Fréchet distance (inception-v3-compat, n=50000)"),
        ("efficientnet-lite0", INCEPTION_SHA256, 50_000, "Fréchet distance (efficientnet-lite0, n=50000)"),
    ],
)
def test_only_the_real_thing_is_called_fid(extractor: str, sha256: str, samples: int, name: str) -> None:
    assert score_name(Extractor(extractor, sha256, 8, "", torch.nn.Identity()), samples) == name


def test_class_distances_are_those_of_the_classes_alone() -> None:
    real, fake = clouds(120, 6)
    of_real, of_fake = torch.arange(120) % 3, torch.arange(120) // 40
    labels = Labels(("cat", "dog", "owl"), of_real, of_fake)
    found = score(seen(real), seen(fake), tiny_extractor(6), 0, ("class_frechet_distance",), labels).metrics
    each = [
        frechet_distance(statistics_of(real[of_real == k].float()), statistics_of(fake[of_fake == k].float()))
        for k in range(3)
    ]
    names = ["class_frechet_distance", *(f"class_frechet_distance/{name}" for name in labels.classes)]
    assert found == {name: pytest.approx(value) for name, value in zip(names, [sum(each) / 3, *each], strict=True)}


def test_classes_hit_are_those_that_some_image_is_nearest_to() -> None:
    real = torch.eye(4).repeat(5, 1) * 10
    labels = Labels("abcd", torch.arange(20) % 4, None)
    found = score(seen(real), seen(real[[1, 3, 5]] + 0.1), tiny_extractor(4), 0, ("classes_hit",), labels).metrics
    assert found == {"classes_hit": 2}


@pytest.mark.parametrize(
    ("metric", "reason"),
    [
        ("inception_score", "tiny has no logits"),
        ("precision", "5 neighbours need more than 5 samples on each side, got 4 real"),
        ("classes_hit", "the data has no labels"),
    ],
)
def test_what_cannot_be_had_is_nan_and_said(metric: str, reason: str, caplog: pytest.LogCaptureFixture) -> None:
    real, fake = torch.rand(4, 16), torch.rand(9, 16)
    found = score(seen(real), seen(fake), tiny_extractor(), 0, (metric,))  # type: ignore[arg-type]
    assert math.isnan(found.metrics[metric])
    assert math.isfinite(found.value)
    assert reason in caplog.text


def test_noise_scores_worse_than_held_out_images_by_every_metric() -> None:
    extractor, keep = efficientnet_lite0(), Keep(features=True)
    reals = RealImages(open_data("package:fashion-mnist-10k"), 80, {"image": FieldConfig(kind="image")})
    real = extract_real(lambda start, count: reals.images(2 * start, count), 40, 40, extractor, keep=keep)
    held_out = extract_real(lambda start, count: reals.images(40 + start, count), 40, 40, extractor, keep=keep)
    generator = torch.Generator().manual_seed(0)
    noise = extract_generated(
        lambda _, count: torch.rand(count, 1, 32, 32, generator=generator) * 2 - 1, 40, 40, extractor, keep=keep
    )
    metrics = ("kid", "precision", "recall", "density", "coverage")
    near, far = (score(real, other, extractor, 0, metrics).values() for other in (held_out, noise))
    for name in ("frechet_distance", "kid"):
        assert near[name] * 2 < far[name]  # type: ignore[operator]
    for name in ("precision", "density", "coverage"):
        assert near[name] > 2 * far[name]  # type: ignore[operator]
