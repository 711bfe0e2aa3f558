"""Trains a game from a YAML file. The same command resumes."""

import argparse
import contextlib
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

from ganrun.cli import entry_point as door
from ganrun.cli import preflight
from ganrun.cli.progress import Display
from ganrun.cli.signals import stop_on_signals
from ganrun.config import load as configs
from ganrun.config.schema import Config
from ganrun.errors import RunError
from ganrun.run_folder.layout import Lease, RunFolder
from ganrun.run_folder.report import figure
from ganrun.run_folder.totals import past
from ganrun.storage import open_storage
from ganrun.telemetry import protocol
from ganrun.telemetry.push import Pusher
from ganrun.telemetry.state import Past, RunState

EXAMPLES = """examples:
  ganrun train configs/quickstart.yaml                       on this machine, with a Ray of its own
  ganrun train configs/quickstart.yaml cluster.workers=2     with two workers
  ganrun train configs/quickstart.yaml run.name=lower optimizer.generator.learning_rate=1e-4
  ganrun train configs/quickstart.yaml --dry-run             print the whole config, and stop
  RAY_ADDRESS=auto ganrun train configs/quickstart.yaml      on the Ray cluster of this machine

Run it again to resume; a run that has all its images says so. Ctrl-C saves a checkpoint and leaves."""


def main(arguments: list[str] | None = None) -> int:
    """The door; returns the exit code."""
    parser = door.parser("train", __doc__, EXAMPLES)
    parser.add_argument("config", metavar="CONFIG", help="YAML file of the run")
    parser.add_argument("overrides", metavar="key=value", nargs="*", help="lay a value over the file's")
    parser.add_argument("--dry-run", action="store_true", help="print the resolved config as YAML and stop")
    parser.add_argument("--validate", action="store_true", help="check config, data, storage and hardware and stop")
    options = parser.parse_intermixed_args(arguments)
    return door.run(lambda: _main(options))


def _main(options: argparse.Namespace) -> int:
    config = configs.load(options.config, options.overrides, resolve=not options.dry_run)
    if options.dry_run:
        print(config.to_yaml(), end="")
        return door.OK
    protocol.address()  # It may be wrong.
    config = preflight.absolute(config.model_copy(update={"tune": None}))
    preflight.check(config)
    folder = RunFolder(open_storage(f"{config.run.storage}/{config.run.name}"))
    if options.validate:
        import torch

        from ganrun.games.build import build_game

        build_game(preflight.settle(config, folder), torch.device("cpu"))
        print(f"{options.config}: config, data, storage and hardware are in order")
        return door.OK
    stop = stop_on_signals()
    lease = Lease(folder.storage, on_loss=stop.set)
    try:
        config = preflight.settle(config, folder)
        preflight.write_config(config, folder)
        code = _train(config, folder, stop)
    finally:
        lease.release()
    if lease.lost:
        raise RunError(f"{folder.storage.uri}: the lease could not be kept, so the workers were stopped; run it again")
    return code


def _train(config: Config, folder: RunFolder, stop: threading.Event) -> int:
    total, latest = config.train.total_images, folder.pointer("latest")
    if latest and latest.images >= total:
        print(
            f"nothing left to do: the run has {latest.images:,} of train.total_images: {total:,}",
            file=sys.stderr,
        )
        print(folder.storage.uri)
        return door.OK
    display = Display(total)
    display.say("starting Ray and the workers ...")
    from ganrun.ray_backend import launch

    try:
        with _pushed(config, folder, display) as hear:
            ending = launch.run(config, hear, stop)
    finally:
        display.close()
    _summarise(display, folder, ending)
    return door.OK if ending == "finished" else door.INTERRUPTED


@contextlib.contextmanager
def _pushed(config: Config, folder: RunFolder, display: Display) -> Iterator[Callable[[dict[str, Any]], None]]:
    """What hears the workers: the display, and unless it is off the state that a sidecar is pushed meanwhile."""
    where, seconds = protocol.address(), config.telemetry.push_seconds
    if where is None or not seconds:
        yield display.hear
        return
    before = Past()
    with contextlib.suppress(OSError):  # Whether the storage is there, the run itself will find.
        before = past(folder.storage)
    state = RunState(config, before)
    pusher = Pusher(state, where, protocol.is_default(), seconds, display.say)

    def hear(message: dict[str, Any]) -> None:
        with contextlib.suppress(Exception):  # Not even our own fault in what is shown may end what is trained.
            state.hear(message)
        display.hear(message)

    try:
        yield hear
    except BaseException as error:
        state.end("failed", str(error) or type(error).__name__)
        raise
    finally:
        pusher.close()


def _summarise(display: Display, folder: RunFolder, ending: str) -> None:
    """In words on stderr what became of the run; its folder as the last line on stdout."""
    latest = folder.pointer("latest")
    images = f"{latest.images:,}" if latest else "0"
    if ending == "finished":
        display.say(f"finished: {images} images shown")
    else:
        display.say(f"stopped: a checkpoint at {images} images is saved; run the same command to go on")
    if display.scores:
        (first, _, begin), (last, name, end) = display.scores[0], display.scores[-1]
        display.say(
            f"score    {name}: {figure(begin)} at {first:,} images, {figure(end)} at {last:,} (lower is better)"
        )
    if pictures := folder.storage.list("samples"):
        display.say(f"samples  {folder.storage.uri}/samples/{pictures[-1]}")
    display.say("run folder:")
    print(folder.storage.uri)


if __name__ == "__main__":
    sys.exit(main())
