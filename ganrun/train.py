"""Train a GAN from a YAML file. The same command resumes the run."""

import argparse
import contextlib
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ganrun.api.callable_module import make_callable
from ganrun.cli import command, preflight
from ganrun.cli.completion import add_config
from ganrun.cli.progress import ProgressDisplay
from ganrun.cli.signals import stop_on_signals
from ganrun.config import python_values
from ganrun.config.load import load_config
from ganrun.config.run_spec import RunSpec
from ganrun.config.schema import Config
from ganrun.data.index import open_data
from ganrun.errors import RunError
from ganrun.run_folder import run_config
from ganrun.run_folder.lease import take_lease
from ganrun.run_folder.report import format_score
from ganrun.run_folder.run_folder import RunFolder
from ganrun.run_folder.totals import read_history
from ganrun.storage import open_storage
from ganrun.telemetry import protocol
from ganrun.telemetry.messages import Event
from ganrun.telemetry.push import Pusher
from ganrun.telemetry.state import RunHistory, RunState
from ganrun.telemetry.trackers import TrackedRun
from ganrun.telemetry.tracking import Tracking

if TYPE_CHECKING:  # With torch.
    from ganrun.api.run import Run

EXAMPLES = """examples:
  ganrun train configs/quickstart.yaml                       on this machine, with a local Ray
  ganrun train configs/quickstart.yaml cluster.workers=2     with two workers
  ganrun train configs/quickstart.yaml run.name=lower optimizer.generator.learning_rate=1e-4
  ganrun train configs/quickstart.yaml --dry-run             print the whole config, and stop
  RAY_ADDRESS=auto ganrun train configs/quickstart.yaml      on the Ray cluster of this machine

Run it again to resume. Ctrl-C saves a checkpoint and exits."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = command.parser("train", __doc__, EXAMPLES)
    add_config(parser, "YAML file of the run, or a name of ganrun configs")
    parser.add_argument("--dry-run", action="store_true", help="print the resolved config as YAML and stop")
    parser.add_argument(
        "--validate", action="store_true", help="check config, data, storage, hardware, play a tiny round, and stop"
    )
    parser.add_argument("--wait", action="store_true", help="wait while another process holds the run")
    return command.run(command.parse(parser, arguments, intermixed=True), _main)


def train(config: "str | Path | Mapping[str, Any] | Config", *, wait: bool = False, **overrides: Any) -> "Run":
    """Train a run to its end, as `ganrun train` does, and return it. The same call resumes it.

    Args:
        config: YAML file, name of a shipped config, dict of sections, or a Config.
        wait: wait while another process holds the run.
        overrides: dicts of values by section, such as `run={"name": "first"}`, or values by dotted key.

    Raises:
        UserError: wrong config, data or storage; all faults at once.
        RunError: the run failed, or another process holds it.
        KeyboardInterrupt: Ctrl-C; a checkpoint is saved first, so that the same call resumes.
    """
    given = load_config(python_values.sections(config), python_values.overrides(overrides))
    uri, ending = _run(given, wait)
    if ending == "stopped":
        raise KeyboardInterrupt
    from ganrun.api.run import Run

    return Run(uri)


def _main(options: argparse.Namespace) -> int:
    config = load_config(options.config, options.overrides, resolve=not options.dry_run)
    if options.dry_run:
        print(config.to_yaml(), end="")
        return command.OK
    if options.validate:
        return _validate(options.config, config)
    uri, ending = _run(config, options.wait)
    print("run folder:", file=sys.stderr, flush=True)
    print(uri)
    return command.INTERRUPTED if ending == "stopped" else command.OK


def _checked(config: Config) -> tuple[Config, RunFolder]:
    """Check a config against this machine. Return it without a search, and the folder of its run."""
    protocol.address()  # Raises if GANRUN_SIDECAR is wrong.
    config = config.model_copy(update={"tune": None})
    preflight.check(config)
    return config, RunFolder(open_storage(config.run.uri))


def _validate(name: str, config: Config) -> int:
    from ganrun.training import tiny_round

    spec = run_config.settle(*_checked(config))
    print(f"data: {preflight.describe_data(spec.data, spec.evaluate)}")
    if given := [f"{name}={text}" for name, text in spec.cluster.env.items()]:
        print(f"workers: their environment gets {' '.join(given)}")
    print(tiny_round.play(spec, open_data(spec.data.shards)))
    print(f"{name}: config, data, storage, hardware and game are in order")
    return command.OK


def _run(config: Config, wait: bool) -> tuple[str, str]:
    """Train. Return the URI of the run's folder, and `finished` or `stopped`."""
    config, folder = _checked(config)
    with stop_on_signals() as stop:
        lease = take_lease(folder.storage, stop, wait, lambda text: print(text, file=sys.stderr, flush=True))
        try:
            spec = run_config.settle(config, folder)
            run_config.write_config(spec, folder)
            ending = _train(spec, folder, stop)
        finally:
            lease.release()
    if lease.lost:
        raise RunError(f"{folder.storage.uri}: the lease could not be kept, so the workers were stopped; run it again")
    return folder.storage.uri, ending


def _train(spec: RunSpec, folder: RunFolder, stop: threading.Event) -> str:
    total, latest = spec.train.total_images, folder.pointer("latest")
    if latest and latest.images >= total:
        print(
            f"nothing left to do: the run has {latest.images:,} of train.total_images: {total:,}",
            file=sys.stderr,
        )
        return "finished"
    display = ProgressDisplay(total)
    display.write_line("starting Ray and the workers ...")
    from ganrun.ray_backend import launch

    try:
        with _watched(spec, folder, display) as handle:
            ending = launch.run(spec, handle, stop)
    finally:
        display.close()
    _summarise(display, folder, ending)
    return ending


@contextlib.contextmanager
def _watched(spec: RunSpec, folder: RunFolder, display: ProgressDisplay) -> Iterator[Callable[[Event], None]]:
    """Yield the handler of events: trackers, a state that is pushed to a sidecar, and the display."""
    before, pushes = RunHistory(), protocol.address() is not None and spec.telemetry.push_seconds > 0
    if pushes or spec.telemetry.trackers:
        with contextlib.suppress(OSError):  # The run itself reports an unreachable storage.
            before = read_history(folder.storage)
    with contextlib.ExitStack() as observers:
        handlers = []
        if spec.telemetry.trackers:
            handlers.append(observers.enter_context(_tracked(spec, folder, before, display)))
        if pushes:
            handlers.append(observers.enter_context(_pushed(spec, before, display)))

        def handle(event: Event) -> None:
            for handler in handlers:
                with contextlib.suppress(Exception):  # A fault of the telemetry must not end the training.
                    handler(event)
            display.handle(event)

        yield handle


@contextlib.contextmanager
def _pushed(spec: RunSpec, before: RunHistory, display: ProgressDisplay) -> Iterator[Callable[[Event], None]]:
    where = protocol.address()
    assert where is not None
    state = RunState(spec.run, spec.train, spec.telemetry, before)
    pusher = Pusher(state, where, protocol.is_default(), spec.telemetry.push_seconds, display.write_line)
    try:
        yield state.handle
    except BaseException as error:
        state.end("failed", str(error) or type(error).__name__)
        raise
    finally:
        pusher.close()


@contextlib.contextmanager
def _tracked(
    spec: RunSpec, folder: RunFolder, before: RunHistory, display: ProgressDisplay
) -> Iterator[Callable[[Event], None]]:
    run = TrackedRun(spec.run.name, folder.storage, spec.model_dump(mode="json"), before.totals)
    tracking, ending = Tracking(spec.telemetry.trackers, {"": run}, display.write_line), "failed"
    try:
        yield tracking.handle
        ending = "stopped"  # Unless the run has told that it finished.
    finally:
        tracking.close(ending)


def _summarise(display: ProgressDisplay, folder: RunFolder, ending: str) -> None:
    """Print the outcome of the run on stderr."""
    latest = folder.pointer("latest")
    images = f"{latest.images:,}" if latest else "0"
    if ending == "finished":
        display.write_line(f"finished: {images} images shown")
    else:
        display.write_line(f"stopped: a checkpoint at {images} images is saved; run the same command to go on")
    if display.scores:
        (first, _, begin), (last, name, end) = display.scores[0], display.scores[-1]
        display.write_line(
            f"score    {name}: {format_score(begin)} at {first:,} images, {format_score(end)} at {last:,} "
            "(lower is better)"
        )
    if display.comparisons:
        display.write_line(f"beside the best trivial baseline: {', '.join(map(str, display.comparisons))}")
    if worse := [each.score for each in display.comparisons if each.is_worse]:
        display.write_line(f"WORSE than a trivial baseline in {', '.join(worse)}: look at the samples (docs/tasks.md)")
    if pictures := folder.storage.list("samples"):
        display.write_line(f"samples  {folder.storage.uri}/samples/{pictures[-1]}")


make_callable(__name__)

if __name__ == "__main__":
    sys.exit(main())
