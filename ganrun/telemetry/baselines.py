"""Scores beside trivial baselines: names of their columns, and whether a run is worse than they are."""

from collections.abc import Mapping
from dataclasses import dataclass

from ganrun.config.score_names import HIGHER_IS_BETTER, PAIRED

AT = "@"
"""Between a score and its baseline in the name of a column: `l1@nearest`."""


@dataclass(frozen=True)
class Comparison:
    """A score of pairs beside its best baseline.

    Attributes:
        score: name of the score.
        value: the run's.
        baseline: name of the best baseline.
        of_baseline: its value.
    """

    score: str
    value: float
    baseline: str
    of_baseline: float

    @property
    def is_worse(self) -> bool:
        """True if the run is worse than the baseline."""
        higher = HIGHER_IS_BETTER[self.score]
        return self.value < self.of_baseline if higher else self.value > self.of_baseline

    def __str__(self) -> str:
        """Return it in words."""
        return f"{self.score} {self.value:.3g} ({self.baseline}: {self.of_baseline:.3g})"


def split(column: str) -> tuple[str, str]:
    """Return score and baseline of a column; the baseline is empty for the run's own value."""
    score, _, baseline = column.partition(AT)
    return score, baseline


def compare(values: Mapping[str, float | None]) -> list[Comparison]:
    """Return the scores of pairs among columns that have finite baselines, each beside the best one.

    The others, such as the Fréchet distance, are not compared: real images, which `nearest` answers with, are best.
    """
    found = []
    for score in PAIRED:
        others = {split(name)[1]: value for name, value in values.items() if name.startswith(score + AT)}
        known = {name: value for name, value in others.items() if value is not None}
        value = values.get(score)
        if value is not None and known:
            best = (max if HIGHER_IS_BETTER[score] else min)(known, key=known.__getitem__)
            found.append(Comparison(score, value, best, known[best]))
    return found
