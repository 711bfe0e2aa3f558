"""One pass of scores over generated images: chunks, sums over the ranks, results."""

import functools
import logging
import math
import traceback
from collections.abc import Callable, Mapping

import torch
import torch.distributed as dist
from torch import Tensor

from ganrun.errors import UserError
from ganrun.evaluation.score import Features, Score, ScoreBatch, ScoreSubject, Sums
from ganrun.telemetry.series import RESERVED_COLUMNS

logger = logging.getLogger(__name__)


class ScorePass:
    """Scores that look at the same generated images once.

    A score that fails is logged and NaN: a fault in it must not end a run.

    Args:
        scores: the scores by registered name.
        subject: what is scored.

    Raises:
        UserError: a score cannot be computed of this subject, or begins with sums of another type.
    """

    def __init__(self, scores: Mapping[str, Score], subject: ScoreSubject) -> None:
        self.scores, self.subject = scores, subject
        for name, score in scores.items():
            if reason := score.unavailable(subject):
                raise UserError(f"metrics: {name} cannot be computed: {reason}")
        self._failed: set[str] = set()
        self.sums: dict[str, Sums] = {}
        for name in scores:
            if (sums := self._start(name)) is not None:
                self.sums[name] = sums
        for name, sums in self.sums.items():
            for key, value in sums.items():
                if not isinstance(value, Tensor) or value.dtype != torch.float64:
                    kind = value.dtype if isinstance(value, Tensor) else type(value).__name__
                    raise UserError(f"metrics: {name}: start() returns {key!r} as {kind}; sums are tensors of float64")
        self._labels = subject.generated.labels(subject.samples)

    def watch(self, images: Callable[[int, int], Tensor]) -> Callable[[int, int], Tensor]:
        """Return `images` with every chunk that it makes shown to the scores."""

        def watched(start: int, count: int) -> Tensor:
            made = images(start, count)
            if running := self.sums.keys() - self._failed:
                generated, labels = self.subject.generated, self._labels
                labels = None if labels is None else labels[start : start + count]
                later = functools.partial(generated.later, start, made)
                batch = ScoreBatch(made, labels, generated.given(start, count), generated.truth(start, count), later)
                for name in running:
                    self._update(name, batch)
            return made

        return watched

    @property
    def about(self) -> dict[str, str]:
        """What the values are of, by the name of the score, where that does not say it."""
        found = {name: self.scores[name].about(self.subject) for name in self.sums}
        return {name: text for name, text in found.items() if text}

    def add_over_ranks(self) -> None:
        """Add the sums over the ranks. Collective."""
        if self.subject.group is None:
            return
        for sums in self.sums.values():
            for key in sorted(sums):
                dist.all_reduce(sums[key], group=self.subject.group)

    def results(self, features: Features | None) -> dict[str, float]:
        """Return the values of all scores by name."""
        found: dict[str, float] = {}
        for name, score in self.scores.items():
            if name not in self.sums:
                found[name] = math.nan
                continue
            try:
                values = score.result(self.sums[name], features if score.needs else None)
                if taken := [key for key in values if key in found or key in RESERVED_COLUMNS]:
                    raise ValueError(f"result() returns {taken[0]!r}, a name that is taken")
                found |= {key: float(value) for key, value in values.items()}
            except Exception as error:
                self._report(name, error)
                found[name] = math.nan
        return found

    def _start(self, name: str) -> Sums | None:
        """Return the sums of a score at zero; None if it fails, on this rank or on another."""
        score, group, sums = self.scores[name], self.subject.group, None
        try:
            sums = score.start(self.subject)
        except UserError:
            raise
        except Exception as error:
            if group is not None and not score.starts_alone:
                raise  # Other ranks may wait for this one.
            self._report(name, error)
        if group is None or not score.starts_alone:
            return sums
        failed = torch.tensor(float(sums is None), device=self.subject.generated.device)
        dist.all_reduce(failed, group=group)
        return None if failed else sums

    @torch.no_grad()
    def _update(self, name: str, batch: ScoreBatch) -> None:
        try:
            self.scores[name].update(self.sums[name], batch)
        except Exception as error:
            self._report(name, error)
            self._failed.add(name)
            for value in self.sums[name].values():
                value.fill_(math.nan)  # So that every rank has no value.

    @staticmethod
    def _report(name: str, error: Exception) -> None:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        where = "" if isinstance(error, ValueError) else f"{type(error).__name__} in {frame.filename}:{frame.lineno}: "
        logger.warning("%s could not be computed: %s%s", name, where, error)
