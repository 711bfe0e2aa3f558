"""Runs the trials of a search side by side, each with workers of its own, and has the worst take over the best.

Each trial is a run as `launch` starts one, and stays up when it takes over another's state: its workers are told to, as
they are told to stop, and read the donor's checkpoint from storage. Ray Tune's own way would stop and start the trial,
needs checkpoints of Ray Tune's beside ours, and compares trials after unequally many images.
"""

import contextlib
import threading
import time
from typing import Any, Protocol

from ganrun import preflight
from ganrun.distributed import launch
from ganrun.distributed.connection import connected, cpus_of
from ganrun.distributed.line import Message
from ganrun.distributed.scores import scoring_cpus
from ganrun.distributed.trial import FAILED, FINISHED, PAUSED, PENDING, RUNNING, Trial
from ganrun.errors import RunError, UserError
from ganrun.records.search import add_lines, point_best
from ganrun.run_folder import RunFolder
from ganrun.search.population import Population, Report
from ganrun.search.trials import trial_config
from ganrun.sections import Config
from ganrun.storage import Storage, open_storage

LISTEN_SECONDS, SETTLE_SECONDS = 0.2, 20.0


class Watch(Protocol):
    """Who is shown what happens."""

    def hear(self, trial: str, message: Message) -> None:
        """A message of a trial's workers; without a trial, a line of search.jsonl."""

    def observe(self, states: dict[str, str]) -> None:
        """The state of each trial."""

    def say(self, text: str) -> None:
        """A line for the user."""


class Search:
    """The trials of a search, from the state of its folder on.

    Args:
        config: of the search, resolved. Ray is connected to.
        storage: of its folder.
        population: what its records say.
        watch: is told of everything.
    """

    def __init__(self, config: Config, storage: Storage, population: Population, watch: Watch) -> None:
        self.config, self.storage, self.population, self.watch = config, storage, population, watch
        self.trials = {name: Trial(name, config) for name in population.trials}
        self._told_room = False
        for trial in self.trials.values():
            trial.go_on(population.last_exploit(trial.name))

    def run(self, stop: threading.Event) -> str:
        """Trains until all trials are at their end, or have saved and left; `finished` or `stopped`.

        Args:
            stop: set to have all save and leave.

        Raises:
            UserError: the config is wrong in what only the workers could find.
            RunError: no trial came to its end.
        """
        self._decide()
        while True:
            if not stop.is_set():
                self._start_some()
            self._listen(stop.is_set())
            self.watch.observe({name: trial.state for name, trial in self.trials.items()})
            states = [trial.state for trial in self.trials.values()]
            if not {PENDING, RUNNING, PAUSED} & set(states):
                break
            if stop.is_set() and RUNNING not in states:
                return "stopped"
            time.sleep(LISTEN_SECONDS)
        if FINISHED not in states:
            raise RunError(f"all trials failed; the first: {next(iter(self.trials.values())).why}")
        add_lines(self.storage, [{"kind": "end", "best": (best := self.population.best()) and best.trial}])
        return "finished"

    def settle(self) -> None:
        """Waits a little until Ray Train has put away what it keeps for those that have ended."""
        import ray

        fits = [trial.fit for trial in self.trials.values() if trial.fit is not None and trial.state != RUNNING]
        if fits:
            ray.wait(fits, num_returns=len(fits), timeout=SETTLE_SECONDS)

    def _start_some(self) -> None:
        """As many as there is room for, those that are behind first; who is ahead of one that waits makes room."""
        waiting = [trial for trial in self.trials.values() if trial.state in (PENDING, PAUSED)]
        if not waiting:
            return
        running, room = self._running(), self._room()
        reported = self.population.reported
        waiting.sort(key=lambda trial: (reported(trial.name), trial.name))
        for trial in waiting[: max(room - len(running), 0)]:
            config = trial_config(self.config, trial.name, self.population.values[trial.name])
            trial.start(config)
        if self.population.tune.method == "population":
            behind = waiting[max(room - len(running), 0) :]
            ahead = [each for each in running if behind and reported(each.name) > reported(behind[0].name)]
            for trial in ahead[: len(behind)]:
                trial.leaving = trial.order is None

    def _room(self) -> int:
        """How many trials the cluster has room for, at least one: Ray waits for nodes."""
        import ray

        there: dict[str, float] = ray.cluster_resources()
        cluster = self.config.cluster
        needed = {
            "CPU": cpus_of(self.config, cluster.most_workers) + scoring_cpus(self.config),
            "GPU": float(cluster.most_workers * cluster.gpus_per_worker),
        }
        room = min(int(there.get(name, 0) / amount + 1e-6) for name, amount in needed.items() if amount)
        if room < len(self.trials) and not self._told_room:
            self._told_room = True
            turns = "they take turns of tune.perturb_every_images, each saved and started anew"
            if self.population.tune.method != "population":
                turns = "the others wait until one ends"
            self.watch.say(
                f"{room} of {len(self.trials)} trials fit the cluster at once (a trial needs {needed['CPU']:g} CPUs, "
                f"{needed['GPU']:g} GPUs): {turns if room else 'waiting for nodes'}"
            )
        return max(room, 1)

    def _running(self) -> list[Trial]:
        return [trial for trial in self.trials.values() if trial.state == RUNNING]

    def _listen(self, stop: bool) -> None:
        """Exchanges with all that run: orders for messages."""
        import ray

        running = self._running()
        over = [bool(ray.wait([trial.fit], timeout=0)[0]) for trial in running]
        asked = []
        for trial in running:
            assert trial.scores is not None
            orders, trial.orders = [*trial.orders, *trial.scores.poll()], []
            asked.append(trial.mailbox.collect.remote(stop or trial.leaving, orders))
        for trial, ended, messages in zip(running, over, ray.get(asked), strict=True):
            for message in messages:
                self.watch.hear(trial.name, message)
                assert trial.scores is not None
                trial.scores.hear(message)
                self._heed(trial, message)
            if ended and trial.state == RUNNING:
                self._failed(trial, str(launch.ended(self.config, ray.get(trial.fit))))

    def _heed(self, trial: Trial, message: Message) -> None:
        match message["kind"]:
            case "started":
                trial.taken = False
                trial.tell_order()  # Whoever had it may have died of it.
            case "images":
                trial.images = message["images"]
            case "exploit":
                if trial.order and message["number"] == trial.order.number:
                    trial.taken = True
            case "score" if not trial.order:
                self._scored(trial, message["images"], self._value(message))
            case "score_failed" if not trial.order:
                self._scored(trial, message["images"], None)
            case "checkpoint":
                self._saved(trial, message["images"], message["checkpoint"])
            case "finished" | "stopped":
                done = message["kind"] == "finished" and trial.order is None
                trial.state = FINISHED if done else PAUSED
            case "failed":
                if message["wrong_input"]:
                    raise UserError(f"trial {trial.name}: {message['text']}")
                self._failed(trial, message["text"])

    def _value(self, message: Message) -> float | None:
        metric = self.population.tune.metric
        value: float | None = message["value"] if metric == "distance" else message["values"].get(metric)
        return value

    def _scored(self, trial: Trial, images: int, value: float | None) -> None:
        interval = self.population.interval_of(images)
        if interval == 0 and 0 not in self.population.reports[trial.name]:
            self._report(Report(trial.name, 0, images, value, None))
        elif interval > self.population.reported(trial.name):
            trial.scored = (images, value)
            self._report_if_whole(trial)

    def _saved(self, trial: Trial, images: int, checkpoint: str) -> None:
        if trial.taken and trial.order:
            trial.order, trial.taken = None, False
            config = trial_config(self.config, trial.name, self.population.values[trial.name])
            preflight.write_config(config, RunFolder(open_storage(trial.place)))
        elif trial.order is None:
            trial.saved.append((images, checkpoint))
            self._report_if_whole(trial)

    def _report_if_whole(self, trial: Trial) -> None:
        """A report is due when there are both a score and the first checkpoint from there on."""
        if trial.scored is None:
            return
        images, score = trial.scored
        found = [name for at, name in trial.saved if at >= images]
        if found:
            trial.scored, trial.saved = None, []
            self._report(Report(trial.name, self.population.interval_of(images), images, score, found[0]))

    def _report(self, report: Report) -> None:
        best = self.population.best()
        self._note([{"kind": "report", **report._asdict(), "values": self.population.values[report.trial]}])
        if (now := self.population.best()) and now != best:
            point_best(self.storage, now)
        self._decide()

    def _decide(self) -> None:
        failed, finished = (
            [name for name, trial in self.trials.items() if trial.state == state] for state in (FAILED, FINISHED)
        )
        found = self.population.decide(failed, finished)
        # Written before anyone acts on them: a search that is killed now does the same when it goes on.
        self._note([{"kind": "exploit", **exploit._asdict()} for exploit in found])
        for exploit in found:
            self.trials[exploit.trial].take(exploit)
        best = self.population.best()
        for trial in self._running():
            keep = [best.checkpoint] if best and best.trial == trial.name else []
            trial.orders.append({"kind": "release", "before": f"{self.population.needed_from:012d}", "keep": keep})

    def _note(self, lines: list[dict[str, Any]]) -> None:
        if lines:
            add_lines(self.storage, lines)
        for line in lines:
            self.population.hear(line)
            self.watch.hear("", line)

    def _failed(self, trial: Trial, text: str) -> None:
        trial.state, trial.why = FAILED, text
        revived = (
            self.population.tune.method == "population" and self.population.decided + 1 < self.population.intervals
        )
        hope = "; at the next comparison it takes over another" if revived else ""
        self.watch.say(f"trial {trial.name} failed{hope}: {text}")
        self.watch.hear(trial.name, {"kind": "trial_failed", "text": text})
        self._decide()


def run(config: Config, storage: Storage, population: Population, watch: Watch, stop: threading.Event) -> str:
    """Runs a search on a Ray of its own, or on the cluster that RAY_ADDRESS names; see `Search.run`."""
    assert config.tune is not None
    try:
        with connected(config, config.tune.population):
            search = Search(config, storage, population, watch)
            try:
                return search.run(stop)
            finally:
                search.settle()
    finally:
        with contextlib.suppress(OSError):  # A worker may still be at it; `ganrun runs gc` collects it.
            for trial in population.trials:
                open_storage(f"{storage.uri}/trials/{trial}").delete(".ray")
