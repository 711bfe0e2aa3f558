"""Result of scoring: values of all scores, with their provenance."""

import math
from dataclasses import asdict, dataclass, field
from typing import Any

from ganrun.models.extractors import INCEPTION_SHA256, Extractor


@dataclass(frozen=True)
class Evaluation:
    """Main distance of generated images or points, further metrics, and provenance.

    Two evaluations are comparable only if name, samples and provenance are equal.

    Attributes:
        name: full name of the distance, see `distance_name`.
        value: main distance.
        samples: number of generated images.
        seed: seed of their noise.
        metrics: further metrics by name; per class as `class_frechet_distance/CLASS`.
        measure: metric name of `value`.
        extractor: name of the extractor; None for points.
        extractor_sha256: SHA-256 of its weights; None for points.
        resize: its resize filter; None for points.
        about: what a value is of, by its name, where that does not say it: "exact" or which bound it is.
        held_out: setting that kept the real images out of training, see `DataSet.held_out_by`; None: none did.
    """

    name: str
    value: float
    samples: int
    seed: int
    metrics: dict[str, float] = field(default_factory=dict)
    measure: str = "frechet_distance"
    extractor: str | None = None
    extractor_sha256: str | None = None
    resize: str | None = None
    held_out: str | None = None
    about: dict[str, str] = field(default_factory=dict)

    @property
    def provenance(self) -> dict[str, str | None]:
        """Extractor, hash of its weights, resize filter and held-out rule."""
        names = ("extractor", "extractor_sha256", "resize", "held_out")
        return {name: getattr(self, name) for name in names}

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON. Values that are not finite become None."""
        values = self.values()
        return asdict(self) | {"value": values.pop(self.measure), "metrics": values}

    def values(self) -> dict[str, float | None]:
        """Return all numbers by metric; None if not finite."""
        values = {self.measure: self.value, **self.metrics}
        return {name: value if math.isfinite(value) else None for name, value in values.items()}


def distance_name(extractor: Extractor, samples: int) -> str:
    """Return the name of a Fréchet distance. "FID" needs the original Inception weights and 50,000 samples."""
    if extractor.name != "inception-v3-compat" or extractor.sha256 != INCEPTION_SHA256:
        return f"Fréchet distance ({extractor.name}, n={samples})"
    return "FID" if samples == 50_000 else f"FID-{samples}"
