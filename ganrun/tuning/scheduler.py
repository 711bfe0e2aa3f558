"""What Ray Tune asks of a search: which trial runs next, whether one goes on, and when all is over."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import ray
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher
from ray.tune.stopper import Stopper

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
    """Who is shown what happens."""

    def handle(self, trial: str, event: Event | TrialFailed) -> None:
        """Take an event of a trial."""

    def record(self, record: SearchRecord) -> None:
        """Take a new line of search.jsonl."""

    def observe(self, states: dict[str, str]) -> None:
        """The state of each trial."""

    def write_line(self, text: str) -> None:
        """A line for the user."""


@dataclass
class SearchTrial:
    """A trial as the scheduler knows it.

    Attributes:
        reporting: makes its reports.
        tune_trial: Ray Tune's trial, or None if it has not made one yet.
        ending: FINISHED or FAILED if it does not run again until it takes over another trial, else empty.
    """

    reporting: TrialReporter
    ending: str
    tune_trial: TuneTrial | None = None

    @property
    def runs(self) -> bool:
        """True if Ray Tune runs or starts it; also until its process has left after its end."""
        return self.tune_trial is not None and self.tune_trial.status in (TuneTrial.PENDING, TuneTrial.RUNNING)

    @property
    def state(self) -> str:
        """One of TRIAL_STATES."""
        if self.ending or self.runs:
            return self.ending or RUNNING
        return PENDING if self.tune_trial is None else PAUSED


class Scheduler(FIFOScheduler):  # type: ignore[misc]
    """Hears the trials as Ray Tune hands their reports over, and has the worst take over the best.

    Who takes over another is told so in its mailbox, and goes on; Ray Tune pauses a trial only when its workers have
    left: in turn, since it failed, or since the search is to stop.

    Args:
        config: of the search, resolved.
        storage: of its folder.
        population: what its records say.
        watch: is told of everything.
        send: tells a trial's workers whether to save and leave, and commands.
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
        """What the first one failed of."""
        self.fault: Exception | None = None
        """What ends the search."""
        self.stopping = self._told_room = False
        self.decide()

    def __getstate__(self) -> dict[str, Any]:
        """Nothing of it: Ray Tune keeps a copy of its parts, and ours are in search.jsonl."""
        return {}

    def states(self) -> dict[str, str]:
        """The state of each trial."""
        return {name: trial.state for name, trial in self.trials.items()}

    def stop(self) -> None:
        """Has all that run save and leave, and nobody start."""
        self.stopping = True
        for name in self._running():
            self.send(name, True, [])

    def all_over(self) -> bool:
        """Whether nobody runs and nobody is to."""
        return not self._running() and (self.stopping or not self._waiting())

    def up_next(self) -> str | None:
        """Who is to start: of those that wait, one that is behind most, if there is room for it."""
        waiting = self._waiting()
        room = bool(waiting) and not self.stopping and len(self._running()) < self._room()
        return waiting[0] if room else None

    def on_trial_add(self, tune_controller: Any, trial: TuneTrial) -> None:
        """Ray Tune has made a trial of what `TrialQueue` suggested."""
        self.trials[trial.config["trial"]].tune_trial = trial

    def choose_trial_to_run(self, tune_controller: Any) -> TuneTrial | None:
        """One that is paused and may go on."""
        name = self.up_next()
        return self.trials[name].tune_trial if name else None

    def on_trial_result(self, tune_controller: Any, trial: TuneTrial, result: dict[str, Any]) -> str:
        """Takes what its workers said; a trial goes on until they have left."""
        name, events = trial.config["trial"], result["events"]
        try:
            for event in events:
                self.watch.handle(name, event)
                self._act_on(name, event)
            self._make_room()
        except Exception as error:  # Ray Tune would make a text of it.
            self._end_with(error)
        if not isinstance(events[-1], ENDINGS):
            return str(self.CONTINUE)
        return str(self.STOP if self.trials[name].ending == FINISHED else self.PAUSE)

    def on_trial_error(self, tune_controller: Any, trial: TuneTrial) -> None:
        """Its process has died; Ray Tune starts it again, or has given up."""
        try:
            if not trial.should_recover():
                self._failed(trial.config["trial"], "its process died too often")
        except Exception as error:
            self._end_with(error)

    def _end_with(self, error: Exception) -> None:
        self.fault = self.fault or error
        self.stop()

    def _running(self) -> list[str]:
        """Those that Ray Tune has at work, or starts."""
        return [name for name, trial in self.trials.items() if trial.runs]

    def _waiting(self) -> list[str]:
        waiting = [name for name, trial in self.trials.items() if trial.state in (PENDING, PAUSED)]
        return sorted(waiting, key=lambda name: (self.population.reported(name), name))

    def _make_room(self) -> None:
        """Who is ahead of one that waits saves and leaves."""
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
        """How many trials the cluster has room for, at least one: Ray waits for nodes."""
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
                self._send_exploit(name)  # Whoever had it may have died of it.
            case Finished() if reporting.up_to_date:
                self.over[name] = FINISHED
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
        """Has those take over others that are to, once all have reported."""
        ended = {how: [name for name, trial in self.trials.items() if trial.ending == how] for how in ENDED}
        found = self.population.decide(failed=ended[FAILED], finished=ended[FINISHED])
        # Written before anyone acts on them: a search that is killed now does the same when it goes on.
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
        """Tells it whom to take over; one that does not run finds it in search.jsonl."""
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
        hope = "; at the next comparison it takes over another" if revived else ""
        self.watch.write_line(f"trial {name} failed{hope}: {text}")
        self.watch.handle(name, TrialFailed(text))
        self.decide()


class TrialQueue(Searcher):  # type: ignore[misc]
    """Gives Ray Tune a trial when there is room for it: Ray Tune itself starts all that it has at once."""

    def __init__(self, scheduler: Scheduler) -> None:
        super().__init__()
        self.scheduler = scheduler

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """Return the config of the next trial: its name, and its hyper-parameters to be shown; None: not yet."""
        name = self.scheduler.up_next()
        if name is None or self.scheduler.trials[name].tune_trial:
            return None
        return {"trial": name} | self.scheduler.population.values[name]

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Nothing to learn."""


class SearchEnd(Stopper):  # type: ignore[misc]
    """Tells Ray Tune when the search is over; trials it ends itself."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """No trial ends by its result."""
        return False

    def stop_all(self) -> bool:
        """Whether all is over."""
        return self.scheduler.all_over()
