"""Population of trials: reports, exploits, and the lineage of each trial.

The exploit step of population-based training is truncation selection (Jaderberg et al. 2017, arXiv:1711.09846): a
trial in the bottom quantile copies weights and hyper-parameters of a trial drawn from the top quantile. Trials are
compared after the same number of images: interval k is decided when all trials have reported it.
"""

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import NamedTuple, assert_never

from ganrun.config.schema import Config
from ganrun.config.tunable import Values, value_of
from ganrun.telemetry.messages import SearchEnded, SearchRecord, TrialExploit, TrialReport
from ganrun.tuning.explore import explored, first_values, stream

NEVER = 10**12 - 1
"""Number of images that no run reaches."""


class Segment(NamedTuple):
    """Part of a lineage: the trial and its values from `images` on."""

    images: int
    trial: str
    values: Values


@dataclass(frozen=True)
class Standing:
    """A trial with its newest report and its best report with a score."""

    trial: str
    last: TrialReport | None
    best: TrialReport | None
    exploits: int


class Population:
    """State of all trials of a search: a pure function of the config and the lines of search.jsonl.

    Args:
        search: config with a `tune` section.
    """

    def __init__(self, search: Config) -> None:
        assert search.tune is not None
        self.tune, self.seed, self.total_images = search.tune, search.run.seed, search.train.total_images
        self._given = {key: value_of(search, key) for key in self.tune.mutations}
        self.trials = [f"{number:02d}" for number in range(self.tune.population)]
        self.first = {trial: first_values(self.tune, self.seed, self._given, trial) for trial in self.trials}
        self.values = dict(self.first)
        """Current hyper-parameters of each trial."""
        self.reports: dict[str, dict[int, TrialReport]] = {trial: {} for trial in self.trials}
        """Reports by trial and interval, without those that an exploit discarded."""
        self.told: list[TrialReport] = []
        """All reports in order of arrival, with discarded ones."""
        self.exploits: list[TrialExploit] = []
        self.decided = 0
        """Newest decided interval."""

    @property
    def intervals(self) -> int:
        """Number of intervals of a whole trial."""
        return self.total_images // self.tune.perturb_every_images

    def handle(self, record: SearchRecord) -> None:
        """Apply a line of search.jsonl, new or read back."""
        match record:
            case TrialReport():
                self.reports[record.trial][record.interval] = record
                self.told.append(record)
            case TrialExploit():
                self.exploits.append(record)
                self.values[record.trial] = record.after
                self.decided = max(self.decided, record.interval)
                kept = self.reports[record.trial]
                self.reports[record.trial] = {at: kept[at] for at in kept if at <= record.interval}
            case SearchEnded():
                pass
            case _:
                assert_never(record)

    def interval_of(self, images: int) -> int:
        """Return the number of whole intervals in `images`."""
        return images // self.tune.perturb_every_images

    def reported(self, trial: str) -> int:
        """Return the newest interval that a trial has reported."""
        return max(self.reports[trial], default=0)

    def has_finished(self, trial: str) -> bool:
        """Return True if the trial has reported its last interval."""
        return self.reported(trial) >= self.intervals

    def best(self) -> TrialReport | None:
        """Return the best report with a score and a checkpoint, or None. Of equal ones, the first trial's."""
        reports = [each for trial in self.trials for each in self.reports[trial].values() if each.checkpoint]
        return min((each for each in reports if math.isfinite(self.loss(each))), key=self.loss, default=None)

    def loss(self, report: TrialReport | None) -> float:
        """Return the score as a loss: lower is better in either mode, infinite without a score."""
        if report is None or report.score is None or not math.isfinite(report.score):
            return math.inf
        return -report.score if self.tune.mode == "max" else report.score

    def decide(self, failed: Collection[str] = (), finished: Collection[str] = ()) -> list[TrialExploit]:
        """Return the exploits of the next interval, once all trials have reported it.

        Failed trials rank last. A trial whose report was lost when the search was killed will not report the interval
        any more and is left out.
        """
        interval = self.decided + 1
        if self.tune.method != "population" or interval >= self.intervals:
            return []
        at = {trial: self.reports[trial].get(interval) for trial in self.trials}
        silent = {trial for trial in self.trials if at[trial] is None and trial not in failed}
        lost = {trial for trial in silent if trial in finished or self.reported(trial) > interval}
        if silent - lost:
            return []
        self.decided = interval
        at |= dict.fromkeys(failed)
        ranked = sorted(set(self.trials) - lost, key=lambda trial: (self.loss(at[trial]), trial))
        if len(ranked) < 2:
            return []
        cut = max(1, int(self.tune.quantile * len(ranked)))
        top = [trial for trial in ranked[:cut] if math.isfinite(self.loss(at[trial]))]
        found: list[TrialExploit] = []
        for trial in ranked[-cut:] if top else []:
            donor = stream(self.seed, "donor", trial, interval).choice(top)
            report = at[donor]
            assert report is not None
            assert report.checkpoint is not None
            before, number = self.values[trial], len(self.exploits) + len(found) + 1
            after = explored(self.tune, self.seed, self._given, self.values[donor], trial, interval)
            found.append(TrialExploit(number, trial, donor, interval, report.images, report.checkpoint, before, after))
        return found

    def last_exploit(self, trial: str) -> TrialExploit | None:
        """Return the newest exploit by a trial, or None."""
        return next((each for each in reversed(self.exploits) if each.trial == trial), None)

    @property
    def needed_from(self) -> int:
        """Number of images from which on checkpoints may still be copied by an exploit."""
        return self.decided * self.tune.perturb_every_images if self.tune.method == "population" else NEVER

    def lineage(self, trial: str, interval: int | None = None) -> list[Segment]:
        """Return the lineage of a trial's weights, oldest segment first: now, or at the end of `interval`."""
        bound = self.intervals + 1 if interval is None else interval
        segments: list[Segment] = []
        while True:
            # The report of the same interval is of the state before the exploit.
            taken = [each for each in self.exploits if each.trial == trial and each.interval < bound]
            if not taken:
                return [Segment(0, trial, self.first[trial]), *segments]
            segments.insert(0, Segment(taken[-1].images, trial, taken[-1].after))
            trial, bound = taken[-1].donor, taken[-1].interval

    def standings(self) -> list[Standing]:
        """Return all trials, best first by their newest score."""
        found = []
        for trial in self.trials:
            reports = [self.reports[trial][at] for at in sorted(self.reports[trial])]
            scored = [report for report in reports if math.isfinite(self.loss(report))]
            best = min(scored, key=self.loss, default=None)
            taken = sum(exploit.trial == trial for exploit in self.exploits)
            found.append(Standing(trial, reports[-1] if reports else None, best, taken))
        return sorted(found, key=lambda each: (self.loss(each.last), each.trial))
