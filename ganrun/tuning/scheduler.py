"""Scheduler of Ray Tune for a search: which trial runs, and which continues from a copy of which."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import ray
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.schedulers import FIFOScheduler

from ganrun.config.run_spec import RunSpec
from ganrun.errors import UserError
from ganrun.storage import Storage
from ganrun.telemetry.messages import (
    ENDINGS,
    TRIAL_STATES,
    Command,
    Event,
    Failed,
    Finished,
    ReleaseCheckpoints,
    SearchRecord,
    TrialFailed,
    TrialReport,
    WorkersStarted,
)
from ganrun.tuning.population import Population
from ganrun.tuning.records import append_records, point_best
from ganrun.tuning.reporting import TrialReporter
from ganrun.tuning.trainable import exploit_command, write_trial_config

PENDING, RUNNING, PAUSED, FINISHED, FAILED = TRIAL_STATES
ENDED = (FINISHED, FAILED)


class SearchObserver(Protocol):
    """Observer of a search: terminal and sidecar."""

    def handle(self, trial: str, event: Event | TrialFailed) -> None:
        """Take an event of a trial."""

    def record(self, record: SearchRecord) -> None:
        """Take a new line of search.jsonl."""

    def observe(self, states: dict[str, str]) -> None:
        """Take the state of each trial."""

    def write_line(self, text: str) -> None:
        """Print a line for the user."""


@dataclass
class SearchTrial:
    """Scheduler's view of a trial.

    Attributes:
        reporting: maker of its reports.
        tune_trial: Ray Tune's trial, or None if it has not made one yet.
        ending: FINISHED or FAILED if it does not run again before an exploit revives it, else empty.
    """

    reporting: TrialReporter
    ending: str
    tune_trial: TuneTrial | None = None

    @property
    def runs(self) -> bool:
        """True while Ray Tune starts or runs it, and until its process has exited."""
        return self.tune_trial is not None and self.tune_trial.status in (TuneTrial.PENDING, TuneTrial.RUNNING)

    @property
    def state(self) -> str:
        """One of TRIAL_STATES."""
        if self.ending or self.runs:
            return self.ending or RUNNING
        return PENDING if self.tune_trial is None else PAUSED


class Scheduler(FIFOScheduler):  # type: ignore[misc]
    """Scheduler that applies truncation selection to the reports of the trials.

    A trial receives an exploit as a command in its mailbox and keeps running. Ray Tune pauses a trial only after its
    workers have exited: to take turns, after a failure, or because the search stops.

    Args:
        config: the resolved search.
        storage: the search's folder.
        population: state of the trials by the records.
        watch: observer of all events.
        send: sends a trial's workers a stop flag and commands.
    """

    def __init__(
        self,
        config: RunSpec,
        storage: Storage,
        population: Population,
        watch: SearchObserver,
        send: Callable[[str, bool, list[Command]], None],
    ) -> None:
        super().__init__()
        self.config, self.storage, self.population, self.watch, self.send = config, storage, population, watch, send
        self.trials = {
            name: SearchTrial(TrialReporter(population, name), FINISHED if population.has_finished(name) else "")
            for name in population.trials
        }
        self.why = ""
        """Reason of the first failure of a trial."""
        self.fault: Exception | None = None
        """Exception that ends the search."""
        self.stopping = self._told_room = False
        self.decide()

    def __getstate__(self) -> dict[str, Any]:
        """Return nothing: Ray Tune pickles its parts, and our state is in search.jsonl."""
        return {}

    def states(self) -> dict[str, str]:
        """Return the state of each trial."""
        return {name: trial.state for name, trial in self.trials.items()}

    def stop(self) -> None:
        """Tell all running trials to save and exit; start no other."""
        self.stopping = True
        for name in self._running():
            self.send(name, True, [])

    def all_over(self) -> bool:
        """Return True if no trial runs and none will."""
        return not self._running() and (self.stopping or not self._waiting())

    def up_next(self) -> str | None:
        """Return the next trial to start: the waiting one furthest behind, if there is room for it, else None."""
        waiting = self._waiting()
        room = bool(waiting) and not self.stopping and len(self._running()) < self._room()
        return waiting[0] if room else None

    def on_trial_add(self, tune_controller: Any, trial: TuneTrial) -> None:
        """Take the trial that Ray Tune made of a suggestion of `TrialQueue`."""
        self.trials[trial.config["trial"]].tune_trial = trial

    def choose_trial_to_run(self, tune_controller: Any) -> TuneTrial | None:
        """Return a paused trial that may resume, or None."""
        name = self.up_next()
        return self.trials[name].tune_trial if name else None

    def on_trial_result(self, tune_controller: Any, trial: TuneTrial, result: dict[str, Any]) -> str:
        """Handle the events of a trial's workers. A trial continues until they have exited."""
        name, events = trial.config["trial"], result["events"]
        try:
            for event in events:
                self.watch.handle(name, event)
                self._act_on(name, event)
            self._make_room()
        except Exception as error:  # Ray Tune would turn it into a string.
            self._end_with(error)
        if not isinstance(events[-1], ENDINGS):
            return str(self.CONTINUE)
        return str(self.STOP if self.trials[name].ending == FINISHED else self.PAUSE)

    def on_trial_error(self, tune_controller: Any, trial: TuneTrial) -> None:
        """Handle the death of a trial's process, which Ray Tune restarts or gives up."""
        try:
            if not trial.should_recover():
                self._failed(trial.config["trial"], "its process died too often")
        except Exception as error:
            self._end_with(error)

    def _end_with(self, error: Exception) -> None:
        self.fault = self.fault or error
        self.stop()

    def _running(self) -> list[str]:
        """Return the trials that Ray Tune runs or starts."""
        return [name for name, trial in self.trials.items() if trial.runs]

    def _waiting(self) -> list[str]:
        waiting = [name for name, trial in self.trials.items() if trial.state in (PENDING, PAUSED)]
        return sorted(waiting, key=lambda name: (self.population.reported(name), name))

    def _make_room(self) -> None:
        """Tell trials that are ahead of a waiting one to save and exit."""
        waiting, running = self._waiting(), self._running()
        if not waiting or self.population.tune.method != "population":
            return
        reported = self.population.reported
        behind = waiting[max(self._room() - len(running), 0) :]
        ahead = [name for name in running if behind and reported(name) > reported(behind[0])]
        for name in ahead[: len(behind)]:
            if self.trials[name].reporting.up_to_date:
                self.send(name, True, [])

    def _room(self) -> int:
        """Return how many trials the cluster has room for; at least one, since Ray may wait for nodes."""
        there: dict[str, float] = ray.cluster_resources()
        cluster = self.config.cluster
        needed = {
            "CPU": self.config.most_cpus,
            "GPU": float(cluster.most_workers * cluster.gpus_per_worker),
        }
        room = min(int(there.get(name, 0) / amount + 1e-6) for name, amount in needed.items() if amount)
        if room < len(self.population.trials) and not self._told_room:
            self._told_room = True
            turns = "they take turns of tune.perturb_every_images, each saved and started anew"
            if self.population.tune.method != "population":
                turns = "the others wait until one ends"
            self.watch.write_line(
                f"{room} of {len(self.population.trials)} trials fit the cluster at once (a trial needs "
                f"{needed['CPU']:g} CPUs, {needed['GPU']:g} GPUs): {turns if room else 'waiting for nodes'}"
            )
        return max(room, 1)

    def _act_on(self, name: str, event: Event) -> None:
        reporting = self.trials[name].reporting
        if report := reporting.handle(event):
            self._report(report)
        match event:
            case WorkersStarted() if not reporting.up_to_date:
                self._send_exploit(name)  # The workers that had received it may have died.
            case Finished() if reporting.up_to_date:
                self.trials[name].ending = FINISHED
                self.decide()
            case Failed(text, wrong_input):
                if wrong_input:
                    raise UserError(f"trial {name}: {text}")
                self._failed(name, text)
            case _:
                pass  # Not ours.

    def _report(self, report: TrialReport) -> None:
        best = self.population.best()
        self._append([replace(report, values=self.population.values[report.trial])])
        if (now := self.population.best()) and now != best:
            point_best(self.storage, now)
        self.decide()

    def decide(self) -> None:
        """Decide exploits, once all trials have reported, and send them."""
        ended = {how: [name for name, trial in self.trials.items() if trial.ending == how] for how in ENDED}
        found = self.population.decide(failed=ended[FAILED], finished=ended[FINISHED])
        # Written before any is sent: a search that is killed now decides the same when it resumes.
        self._append(found)
        for exploit in found:
            self.trials[exploit.trial].ending = ""
            write_trial_config(self.config, self.population, exploit.trial)
            self._send_exploit(exploit.trial)
        best = self.population.best()
        for name in self._running():
            keep = [best.checkpoint] if best and best.checkpoint and best.trial == name else []
            before = f"{self.population.needed_from:012d}"
            self.send(name, False, [ReleaseCheckpoints(before, keep)])

    def _send_exploit(self, name: str) -> None:
        """Send a trial its exploit. One that does not run finds it in search.jsonl."""
        if command := exploit_command(self.config, self.population.last_exploit(name)):
            self.send(name, False, [command])

    def _append(self, records: Sequence[SearchRecord]) -> None:
        if records:
            append_records(self.storage, records)
        for record in records:
            self.population.handle(record)
            self.watch.record(record)

    def _failed(self, name: str, text: str) -> None:
        self.trials[name].ending, self.why = FAILED, self.why or text
        revived = (
            self.population.tune.method == "population" and self.population.decided + 1 < self.population.intervals
        )
        hope = "; after the next comparison it continues from a copy of another" if revived else ""
        self.watch.write_line(f"trial {name} failed{hope}: {text}")
        self.watch.handle(name, TrialFailed(text))
        self.decide()
