"""Metrics of a trial as Ray Tune shows them, in its dashboard and in the ResultGrid of a search."""

import math
from dataclasses import dataclass, field
from typing import Any

from ganrun.config.tunable import Values
from ganrun.tuning.population import Population
from ganrun.tuning.reporting import Event, score_of

POSITIONS = ("started", "images", "tick", "exploit", "rollback", "finished", "stopped")
"""Events that say where a trial is; scores and checkpoints may be of an earlier point."""


@dataclass
class TrialMetrics:
    """Images, score and hyper-parameters of a trial, kept up to date from its events.

    Args:
        metric: `tune.metric`, the name of the score.
        values: hyper-parameters, by dotted key.
        images: images shown.
        score: the newest one; NaN if the weights that the trial has now have none.
    """

    metric: str
    values: Values = field(default_factory=dict)
    images: int = 0
    score: float = math.nan

    def result(self, events: list[Event]) -> dict[str, Any]:
        """Return events with the metrics after them: a result for `ray.tune.report`."""
        for event in events:
            self._handle(event)
        position = {"images": self.images, "timesteps_total": self.images}
        return {"events": events, **position, self.metric: self.score, **self.values}

    def _handle(self, event: Event) -> None:
        if event["kind"] in POSITIONS:
            self.images = event["images"]
        if event["kind"] == "exploit":
            self.values, self.score = event["values"], math.nan
        elif event["kind"] in ("score", "score_failed"):
            value = score_of(event, self.metric)
            self.score = math.nan if value is None else value


def metrics_of(population: Population, trial: str) -> TrialMetrics:
    """Return the metrics that a trial of a search goes on with."""
    found = TrialMetrics(population.tune.metric, population.values[trial])
    newest, exploit = population.reported(trial), population.last_exploit(trial)
    report = population.reports[trial].get(newest)
    if report and (exploit is None or exploit.interval < newest):
        found.images, found.score = report.images, math.nan if report.score is None else report.score
    return found
