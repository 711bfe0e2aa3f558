"""When a trial has a report due: of what its workers say, what makes one."""

from ganrun.telemetry.messages import Event, ScoreTaken, TrialReport, WorkersStarted
from ganrun.telemetry.records import CheckpointWritten, Exploited, ScoreFailed
from ganrun.tuning.population import Population


def score_of(event: ScoreTaken | ScoreFailed, metric: str) -> float | None:
    """Return the value of `tune.metric` in an event of a score, or None if it has none or failed."""
    if isinstance(event, ScoreFailed):
        return None
    return event.value if metric == "distance" else event.values.get(metric)


class TrialReporter:
    """Makes the reports of a trial: each of a score and the first checkpoint from there on, whichever is said first.

    What a trial says before it has an exploit behind it is of a state that it is about to give up, and makes none.

    Args:
        population: that it is one of; says what it has reported and whom it is to take over.
        trial: its name.
    """

    def __init__(self, population: Population, trial: str) -> None:
        self.population, self.trial = population, trial
        self._begin(0)

    def _begin(self, behind: int) -> None:
        self.behind = behind
        """Number of the last exploit that it has behind it."""
        self._scored: list[tuple[int, float | None]] = []
        """Images and scores of what is not yet reported: a checkpoint may be written when the next score is there."""
        self._saved: list[tuple[int, str]] = []
        """Checkpoints since that of the last report: the next may be written before the last has its score."""

    @property
    def up_to_date(self) -> bool:
        """Whether it has every exploit behind it that was decided."""
        last = self.population.last_exploit(self.trial)
        return last is None or self.behind >= last.number

    def handle(self, event: Event) -> TrialReport | None:
        """Take an event of the workers and return the report that it makes whole."""
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
        """A report of the newest score that has a checkpoint; older ones will have none."""
        interval_of = self.population.interval_of
        for images, score in reversed(self._scored):
            if found := [(at, name) for at, name in self._saved if at >= images]:
                self._scored = [each for each in self._scored if interval_of(each[0]) > interval_of(images)]
                self._saved = [each for each in self._saved if each[0] >= found[0][0]]
                return TrialReport(self.trial, interval_of(images), images, score, found[0][1])
        return None
