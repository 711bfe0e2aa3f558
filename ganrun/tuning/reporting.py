"""Reports of a trial, made from its workers' events."""

from ganrun.telemetry.messages import Event, ScoreTaken, TrialReport, WorkersStarted
from ganrun.telemetry.records import CheckpointWritten, Exploited, ScoreFailed
from ganrun.tuning.population import Population


def score_of(event: ScoreTaken | ScoreFailed, metric: str) -> float | None:
    """Return the value of `tune.metric` in an event of a score, or None if it has none or failed."""
    if isinstance(event, ScoreFailed):
        return None
    return event.value if metric == "distance" else event.values.get(metric)


class TrialReporter:
    """Maker of a trial's reports: each a score and the first checkpoint from there on, in either order of arrival.

    Events before a pending exploit is carried out are of a state that will be discarded: they make no report.

    Args:
        population: its population, with its reports and exploits.
        trial: name of the trial.
    """

    def __init__(self, population: Population, trial: str) -> None:
        self.population, self.trial = population, trial
        self._begin(0)

    def _begin(self, behind: int) -> None:
        self.behind = behind
        """Number of the last exploit that it has carried out."""
        self._scored: list[tuple[int, float | None]] = []
        """(images, score) not yet reported. The next score may come before the checkpoint is written."""
        self._saved: list[tuple[int, str]] = []
        """(images, checkpoint) since the last report. The next checkpoint may come before the score of the last."""

    @property
    def up_to_date(self) -> bool:
        """True if it has carried out every exploit that was decided."""
        last = self.population.last_exploit(self.trial)
        return last is None or self.behind >= last.number

    def handle(self, event: Event) -> TrialReport | None:
        """Take an event of the workers. Return the report that it completes, or None."""
        match event:
            case WorkersStarted():
                self._begin(event.exploit)
            case Exploited():
                self._begin(event.number)
            case CheckpointWritten() if self.up_to_date:
                self._saved.append((event.images, event.checkpoint))
                return self._whole()
            case ScoreTaken() | ScoreFailed() if self.up_to_date:
                return self._score(event.images, score_of(event, self.population.tune.metric))
            case _:
                pass  # Not ours.
        return None

    def _score(self, images: int, value: float | None) -> TrialReport | None:
        interval = self.population.interval_of(images)
        if interval == 0 and 0 not in self.population.reports[self.trial]:
            return TrialReport(self.trial, 0, images, value, None)
        if interval > self.population.reported(self.trial):
            self._scored.append((images, value))
        return self._whole()

    def _whole(self) -> TrialReport | None:
        """Return a report of the newest score with a checkpoint. Older scores get none."""
        interval_of = self.population.interval_of
        for images, score in reversed(self._scored):
            if found := [(at, name) for at, name in self._saved if at >= images]:
                self._scored = [each for each in self._scored if interval_of(each[0]) > interval_of(images)]
                self._saved = [each for each in self._saved if each[0] >= found[0][0]]
                return TrialReport(self.trial, interval_of(images), images, score, found[0][1])
        return None
