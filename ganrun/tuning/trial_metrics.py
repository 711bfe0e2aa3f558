"""Metrics of a trial as Ray Tune shows them, in its dashboard and in the ResultGrid of a search."""

import math
from dataclasses import dataclass, field
from typing import Any

from ganrun.config.tunable import Values
from ganrun.telemetry.messages import Event, Finished, Progress, ScoreTaken, Stopped, Tick, WorkersStarted
from ganrun.telemetry.records import Exploited, RolledBack, ScoreFailed
from ganrun.tuning.population import Population
from ganrun.tuning.reporting import score_of


@dataclass
class TrialMetrics:
    """Images, score and hyper-parameters of a trial, kept up to date from its events.

    Args:
        metric: `tune.metric`, the name of the score.
        values: hyper-parameters, by dotted key.
        images: images shown.
        score: newest score; NaN if the trial's current weights have none.
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
        match event:
            case WorkersStarted() | Progress() | Tick() | RolledBack() | Finished() | Stopped():
                self.images = event.images
            case Exploited():
                self.images, self.values, self.score = event.images, dict(event.values), math.nan
            case ScoreTaken() | ScoreFailed():
                value = score_of(event, self.metric)
                self.score = math.nan if value is None else value
            case _:
                pass  # Scores and checkpoints may be of an earlier position.


def metrics_of(population: Population, trial: str) -> TrialMetrics:
    """Return the metrics with which a trial resumes."""
    found = TrialMetrics(population.tune.metric, population.values[trial])
    newest, exploit = population.reported(trial), population.last_exploit(trial)
    report = population.reports[trial].get(newest)
    if report and (exploit is None or exploit.interval < newest):
        found.images, found.score = report.images, math.nan if report.score is None else report.score
    return found
