"""Search hyper-parameters by population-based training: the worst runs of a population copy the best."""

import argparse
import contextlib
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ganrun.api.callable_module import make_callable
from ganrun.cli import command, preflight
from ganrun.cli.completion import add_config
from ganrun.cli.signals import stop_on_signals
from ganrun.config import python_values
from ganrun.config.load import load_config
from ganrun.config.run_spec import RunSpec
from ganrun.config.schema import Config
from ganrun.errors import RunError, UserError
from ganrun.run_folder import run_config
from ganrun.run_folder.lease import Lease, take_lease
from ganrun.run_folder.run_folder import RunFolder
from ganrun.run_folder.time_breakdown import format_shares, trials_time_breakdown
from ganrun.run_folder.totals import read_history
from ganrun.storage import Storage, open_storage
from ganrun.telemetry import protocol
from ganrun.telemetry.messages import Event, Failed, Note, Restart, SearchRecord, TrialFailed, WorkersStarted
from ganrun.telemetry.push import SearchPusher
from ganrun.telemetry.state import RunHistory, RunState, SearchState
from ganrun.telemetry.trackers import TrackedRun
from ganrun.telemetry.tracking import Tracking
from ganrun.tuning import records, summary
from ganrun.tuning.population import Population
from ganrun.tuning.trial_config import schedule_config, trial_config

if TYPE_CHECKING:  # With torch.
    from ganrun.api.run import Run

EXAMPLES = """examples:
  ganrun tune configs/pbt_quickstart.yaml                           four trials on this machine
  ganrun tune configs/pbt_quickstart.yaml run.name=wider tune.population=8
  ganrun tune configs/pbt_quickstart.yaml run.name=luck tune.method=random
  ganrun tune configs/pbt_quickstart.yaml --dry-run                 print the whole config, and stop
  ganrun train runs/pbt-quickstart/schedule.yaml                    one run with the winner's schedule

Run it again to resume. Ctrl-C saves a checkpoint of each trial and exits."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = command.parser("tune", __doc__, EXAMPLES)
    add_config(parser, "YAML file of the run with a tune section, or a name")
    parser.add_argument("--dry-run", action="store_true", help="print the resolved config as YAML and stop")
    parser.add_argument("--wait", action="store_true", help="wait while another process holds the search")
    return command.run(command.parse(parser, arguments, intermixed=True), _main)


def tune(config: "str | Path | Mapping[str, Any] | Config", *, wait: bool = False, **overrides: Any) -> "list[Run]":
    """Search to the end, as `ganrun tune` does, and return the trials, the best first. The same call resumes it.

    Args:
        config: YAML file, name of a shipped config, dict of sections, or a Config; with a section `tune`.
        wait: wait while another process holds the search.
        overrides: dicts of values by section, such as `tune={"population": 8}`, or values by dotted key.

    Raises:
        UserError: wrong config, data or storage; all faults at once.
        RunError: all trials failed, or another process holds the search.
        KeyboardInterrupt: Ctrl-C; each trial saves a checkpoint first, so that the same call resumes.
    """
    given = load_config(python_values.sections(config), python_values.overrides(overrides))
    uri, ending, population = _run("config" if isinstance(config, Config | Mapping) else str(config), given, wait)
    if ending == "stopped":
        raise KeyboardInterrupt
    from ganrun.api.run import Run

    return [Run(f"{uri}/trials/{standing.trial}") for standing in population.standings()]


def _main(options: argparse.Namespace) -> int:
    config = load_config(options.config, options.overrides, resolve=not options.dry_run)
    if options.dry_run:
        _check_searches(options.config, config)
        print(config.to_yaml(), end="")
        return command.OK
    uri, ending, _ = _run(options.config, config, options.wait)
    print("search folder:", file=sys.stderr, flush=True)
    print(uri)
    return command.INTERRUPTED if ending == "stopped" else command.OK


def _check_searches(name: str, config: Config) -> None:
    if config.tune is None:
        raise UserError(f"{name}: tune: missing; without that section there is nothing to search: ganrun train")


def _run(name: str, config: Config, wait: bool) -> tuple[str, str, Population]:
    """Search. Return the URI of the search's folder, `finished` or `stopped`, and the trials."""
    _check_searches(name, config)
    protocol.address()  # Raises if GANRUN_SIDECAR is wrong.
    preflight.check(config)
    storage = open_storage(config.run.uri)
    with stop_on_signals() as stop, contextlib.ExitStack() as leases:
        held = [_lease(leases, storage, stop, wait)]
        spec = records.settle(config, storage)
        run_config.write_config(spec, RunFolder(storage))
        records.terminate_last_line(storage)
        population = records.read_population(spec, storage)
        # No other command may train a trial meanwhile.
        held += [_lease(leases, open_storage(f"{storage.uri}/trials/{name}"), stop, wait) for name in population.trials]
        ending = _search(spec, storage, population, stop)
    if any(lease.lost for lease in held):
        raise RunError(f"{storage.uri}: the lease could not be kept, so the workers were stopped; run it again")
    return storage.uri, ending, population


def _lease(leases: contextlib.ExitStack, storage: Storage, stop: threading.Event, wait: bool) -> Lease:
    lease = take_lease(storage, stop, wait, lambda text: print(text, file=sys.stderr, flush=True))
    leases.callback(lease.release)
    return lease


def _search(spec: RunSpec, storage: Storage, population: Population, stop: threading.Event) -> str:
    if all(map(population.has_finished, population.trials)):
        print(f"nothing left to do: each trial has its {spec.train.total_images:,} images", file=sys.stderr)
        return "finished"
    watch = _Watch(spec, population, storage)
    watch.write_line("starting Ray and the workers ...")
    from ganrun.tuning import tuner

    ending = "failed"
    try:
        ending = tuner.run(spec, storage, population, watch, stop)
    finally:
        watch.close(ending)
    if ending == "stopped":
        watch.write_line("stopped: each trial has saved a checkpoint; run the same command to go on")
    else:
        _summarise(spec, storage, population, watch)
    return ending


def _summarise(spec: RunSpec, storage: Storage, population: Population, watch: "_Watch") -> None:
    """Print the table; write the winner's schedule and the plots."""
    from ganrun.tuning.plots import draw_hyperparameters, draw_samples, draw_scores

    watch.write_line(summary.table(population))
    if spent := trials_time_breakdown(storage):
        watch.write_line(f"time     {format_shares(spent)} (starts aside)")
    winner = population.standings()[0].trial
    if population.tune.method != "seeds":
        schedule = schedule_config(spec, population.lineage(winner))
        storage.write("schedule.yaml", schedule.to_yaml().encode())
        watch.write_line(f"schedule {storage.uri}/schedule.yaml (of trial {winner}; ganrun train replays it)")
    pictures = {"scores.png": draw_scores(population), "samples.png": draw_samples(storage, population)}
    if population.tune.mutations:
        pictures["hyperparameters.png"] = draw_hyperparameters(population)
    for name, picture in pictures.items():
        if picture:
            storage.write(name, picture)
            watch.write_line(f"picture  {storage.uri}/{name}")


class _Watch:
    """Observer that informs the user, trackers and, unless it is off, a sidecar."""

    def __init__(self, spec: RunSpec, population: Population, storage: Storage) -> None:
        where, seconds = protocol.address(), spec.telemetry.push_seconds
        self._push: SearchPusher | None = None
        self._tracking: Tracking | None = None
        trials = {name: trial_config(spec, name, population.values[name]) for name in population.trials}
        befores = {name: _history(trial) for name, trial in trials.items()}
        if where is not None and seconds:
            states = {
                name: RunState(trial.run, trial.train, trial.telemetry, befores[name], search=spec.run.name)
                for name, trial in trials.items()
            }
            state = SearchState(spec.run, spec.telemetry)
            self._push = SearchPusher(state, states, where, protocol.is_default(), self.write_line)
        if spec.telemetry.trackers:
            runs = {
                name: TrackedRun(
                    f"{spec.run.name}/{name}",
                    open_storage(trial.run.uri),
                    trial.model_dump(mode="json"),
                    befores[name].totals,
                    spec.run.name,
                    storage,
                )
                for name, trial in trials.items()
            }
            self._tracking = Tracking(spec.telemetry.trackers, runs, self.write_line)

    def handle(self, trial: str, event: Event | TrialFailed) -> None:
        """Take an event of a trial."""
        if self._push:
            self._push.handle(trial, event)
        if self._tracking:
            told = Failed(event.text, wrong_input=False) if isinstance(event, TrialFailed) else event
            self._tracking.handle(told, trial)
        if text := _told(trial, event):
            self.write_line(text)

    def record(self, record: SearchRecord) -> None:
        """Take a new line of search.jsonl."""
        if text := summary.describe_record(record):
            self.write_line(text)

    def observe(self, states: dict[str, str]) -> None:
        """Take the state of each trial."""
        if self._push:
            self._push.state.observe(states)

    def write_line(self, text: str) -> None:
        """Print a line for the user."""
        print(text, file=sys.stderr, flush=True)
        if self._push:
            self._push.state.note(text)

    def close(self, ending: str) -> None:
        """Push the ending and stop pushing."""
        if self._push:
            self._push.close(ending)
        if self._tracking:
            self._tracking.close(ending)


def _told(trial: str, event: Event | TrialFailed) -> str:
    match event:
        case WorkersStarted(images, workers, faults):
            told = "".join(f"; {fault}" for fault in faults)
            return f"{images:>11,} images  trial {trial} starts with {workers} worker{'s' * (workers > 1)}{told}"
        case Restart(why=why) if why:
            return f"trial {trial}: {why}; its workers are started again"
        case Note(text):
            return f"trial {trial}: {text}"
        case _:
            return ""  # Not shown.


def _history(trial: RunSpec) -> RunHistory:
    with contextlib.suppress(OSError):
        return read_history(open_storage(trial.run.uri))
    return RunHistory()


make_callable(__name__)

if __name__ == "__main__":
    sys.exit(main())
