"""Classification accuracy score: high for good generated images, at chance for wrong labels."""

from types import SimpleNamespace

import pytest

from ganrun.config.schema import FieldConfig
from ganrun.data.index import open_data
from ganrun.evaluation import classifier
from ganrun.evaluation.classifier_accuracy import classification_accuracy_score
from ganrun.evaluation.real_images import RealImages


@pytest.mark.parametrize(("shift", "low", "high"), [(0, 0.5, 1.0), (1, 0.0, 0.2)])
def test_it_is_high_where_images_fit_their_labels(
    shift: int, low: float, high: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(classifier, "STEPS", 100)  # Of 600, which takes a minute.
    reals = RealImages(open_data("package:fashion-mnist-10k"), 500, {"image": FieldConfig(kind="image")})
    images, labels = reals.images(0, 500).double() / 127.5 - 1, reals.labels()
    generated = SimpleNamespace(
        images=lambda start, count: images[start : start + count],
        labels=lambda samples: (labels[:samples] + shift) % 10,
        seed=0,
    )
    assert low <= classification_accuracy_score(generated, reals, 500) <= high  # type: ignore[arg-type]
