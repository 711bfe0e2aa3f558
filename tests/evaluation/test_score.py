"""Names of scores, scores that fail without ending a run, and real images that score better than noise."""

import json
import math
import re

import pytest
import torch
from torch import Tensor

from ganrun.config.registry import SCORES
from ganrun.config.schema import FieldConfig
from ganrun.data.index import open_data
from ganrun.errors import UserError
from ganrun.evaluation.evaluation import distance_name
from ganrun.evaluation.evaluator import Evaluator, gpu_chunk
from ganrun.evaluation.feature_scores import frechet
from ganrun.evaluation.feature_statistics import Keep, extract_generated, extract_real
from ganrun.evaluation.frechet import frechet_distance
from ganrun.evaluation.real_images import RealImages
from ganrun.evaluation.score import Features, Score, ScoreBatch
from ganrun.models.extractors import Extractor, efficientnet_lite0
from tests.evaluation.making import clouds, evaluate, sample, statistics_of, tiny_extractor

INCEPTION_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
"""Of torch-fidelity's port of the weights that the published FIDs are measured with."""
EVERYTHING = ("kid", "precision", "recall", "density", "coverage", "inception_score")


def test_a_diverged_generator_scores_nan_and_null(tmp_path) -> None:
    def broken(start: int, count: int) -> Tensor:
        images = sample(start, count)
        images[-1, 0, 0, 0] = math.nan
        return images

    found = evaluate(tmp_path, EVERYTHING, broken, extractor=tiny_extractor(classes=5))
    assert math.isnan(found.value)
    told = json.loads(json.dumps(found.to_json()))
    assert told["value"] is None
    assert told["metrics"] == dict.fromkeys(EVERYTHING)


def test_a_score_tells_where_it_came_from(tmp_path) -> None:
    assert evaluate(tmp_path, images=lambda start, count: sample(start + 10_000, count) * 0.5).to_json() == {
        "name": "Fréchet distance (tiny, n=103)",
        "measure": "frechet_distance",
        "value": pytest.approx(0, abs=1e-9),
        "extractor": "tiny",
        "extractor_sha256": "0" * 64,
        "resize": "bicubic-antialias",
        "held_out": None,
        "samples": 103,
        "seed": 7,
        "about": {},
        "metrics": {},
    }


def test_scores_do_not_depend_on_the_chunks_of_a_device(tmp_path, monkeypatch) -> None:
    """A GPU makes more images at once; only the order of sums differs."""
    extractor = tiny_extractor(classes=5)
    small = evaluate(tmp_path, EVERYTHING, samples=300, extractor=extractor)
    monkeypatch.setattr(Evaluator, "_chunk", lambda evaluator: 256)
    large = evaluate(tmp_path / "again", EVERYTHING, samples=300, extractor=extractor)
    assert large.value == pytest.approx(small.value, rel=1e-9)
    assert large.metrics == pytest.approx(small.metrics, rel=1e-9, nan_ok=True)
    assert [gpu_chunk(3 * size**2) for size in (32, 64, 256, 1024)] == [1344, 320, 64, 64]


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
    assert distance_name(Extractor(extractor, sha256, 8, "", torch.nn.Identity()), samples) == name


def test_class_distances_are_those_of_the_classes_alone() -> None:
    real, fake = clouds(120, 6)
    of_real, of_fake = torch.arange(120) % 3, torch.arange(120) // 40
    classes = ("cat", "dog", "owl")
    features = Features(real, fake, classes=classes, real_labels=of_real, fake_labels=of_fake)
    found = SCORES["class_frechet_distance"]().result({}, features)
    each = [frechet_distance(statistics_of(real[of_real == k]), statistics_of(fake[of_fake == k])) for k in range(3)]
    names = ["class_frechet_distance", *(f"class_frechet_distance/{name}" for name in classes)]
    assert found == {name: pytest.approx(value) for name, value in zip(names, [sum(each) / 3, *each], strict=True)}


def test_classes_hit_are_those_that_some_image_is_nearest_to() -> None:
    real = torch.eye(4).repeat(5, 1) * 10
    features = Features(real, real[[1, 3, 5]] + 0.1, classes="abcd", real_labels=torch.arange(20) % 4)
    assert SCORES["classes_hit"]().result({}, features) == {"classes_hit": 2}


@pytest.mark.parametrize(
    ("metric", "reason"),
    [
        ("inception_score", "the extractor tiny has no logits"),
        ("classes_hit", "the data has no classes"),
        ("class_frechet_distance", "the images have no labels"),
        ("modes", "the data are not stacked images"),
    ],
)
def test_a_score_that_the_run_cannot_have_is_refused(tmp_path, metric: str, reason: str) -> None:
    with pytest.raises(UserError, match=f"metrics: {metric} cannot be computed: {reason}"):
        evaluate(tmp_path, (metric,))


def test_a_score_that_fails_is_nan_and_logged(tmp_path, caplog: pytest.LogCaptureFixture) -> None:
    found = evaluate(tmp_path, ("precision", "kid"), samples=4)
    assert math.isnan(found.metrics["precision"])
    assert math.isfinite(found.metrics["kid"])
    assert math.isfinite(found.value)
    assert "5 neighbours need more than 5 samples on each side, got 4 real" in caplog.text


class Brightness(Score):
    """Mean pixel, 0 to 1."""

    def start(self, subject):
        return {"sum": torch.zeros(2, dtype=torch.float64)}

    def update(self, sums, batch: ScoreBatch):
        sums["sum"] += torch.stack([batch.images.double().mean((1, 2, 3)).sum(), torch.tensor(len(batch.images))])

    def result(self, sums, features):
        total, count = sums["sum"].tolist()
        return {"brightness": (total / count + 1) / 2}


class Float(Brightness):
    def start(self, subject):
        return {"sum": torch.zeros(2)}


class Fails(Brightness):
    def update(self, sums, batch):
        raise KeyError("in update")


class FailsAtOnce(Brightness):
    def start(self, subject):
        raise RuntimeError("in start")

    def about(self, subject):
        raise AssertionError("it has not begun")


class Taken(Score):
    def result(self, sums, features):
        return {"images": 1.0}


def test_a_score_of_ones_own_sees_every_image_once(tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(SCORES.data, "brightness", Brightness)
    found = evaluate(tmp_path, ("brightness", "kid"))
    assert found.metrics["brightness"] == pytest.approx(float((sample(0, 103).mean() + 1) / 2), abs=1e-6)


def test_sums_of_another_type_are_refused(tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(SCORES.data, "float", Float)
    with pytest.raises(UserError, match=r"metrics: float: start\(\) returns 'sum' as torch.float32"):
        evaluate(tmp_path, ("float",))


@pytest.mark.parametrize(
    ("score", "reason"),
    [
        (Fails, r"KeyError in .*test_score.py:\d+: 'in update'"),
        (FailsAtOnce, r"RuntimeError in .*test_score.py:\d+: in start"),
        (Taken, "'images', a name that is"),
    ],
)
def test_a_fault_in_a_score_of_ones_own_does_not_end_the_run(tmp_path, monkeypatch, caplog, score, reason) -> None:
    monkeypatch.setitem(SCORES.data, "faulty", score)
    found = evaluate(tmp_path, ("faulty", "kid"))
    assert math.isnan(found.metrics.get("faulty", found.metrics.get("brightness")))
    assert math.isfinite(found.metrics["kid"])
    assert re.search(reason, caplog.text)


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

    def scores(other):
        features = Features(real.features, other.features)
        found = {"frechet_distance": frechet(real.statistics, other.statistics)}
        for name in metrics:
            found |= SCORES[name]().result({}, features)
        return found

    near, far = scores(held_out), scores(noise)
    for name in ("frechet_distance", "kid"):
        assert near[name] * 2 < far[name]
    for name in ("precision", "density", "coverage"):
        assert near[name] > 2 * far[name]
