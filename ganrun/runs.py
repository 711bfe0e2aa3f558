"""List, show, plot and delete runs. Reads their folders only, so it works without Ray and while a run trains."""

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, replace
from pathlib import Path

from ganrun.cli import command
from ganrun.errors import RunError, UserError
from ganrun.run_folder import cleanup, report
from ganrun.run_folder.curve import read_curve
from ganrun.run_folder.status import RunStatus, is_run, read_config, read_status
from ganrun.run_folder.time_breakdown import trials_time_breakdown
from ganrun.storage import Folder, Storage, expand_user, open_storage
from ganrun.telemetry.series import DISTANCES

EXAMPLES = """examples:
  ganrun runs list runs                                  all runs in a storage, newest first
  ganrun runs show runs/quickstart                       state of a run, and the command to resume it
  ganrun runs curve runs/quickstart > curve.jsonl        losses and scores over all attempts, as JSON lines
  ganrun runs curve runs/quickstart --plot curve.png     the same as a plot
  ganrun runs delete runs/quickstart                     asks first; refuses while the run is training
  ganrun runs gc runs                                    files left by crashes; --yes deletes them

STORAGE is run.storage of a config, RUN is run.storage/run.name."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return command.run(command.parse(_parser(), arguments), _main)


def _parser() -> argparse.ArgumentParser:
    parser = command.parser("runs", __doc__, EXAMPLES)
    verbs = parser.add_subparsers(metavar="{list,show,curve,delete,gc}", required=True)
    for verb, place, act, text in (
        ("list", "STORAGE", _list, "list the runs in a storage, newest first"),
        ("show", "RUN", _show, "show the state of a run"),
        ("curve", "RUN", _curve, "print losses and scores over all attempts of a run as JSON lines, or plot them"),
        ("delete", "RUN", _delete, "delete a run and all its checkpoints"),
        ("gc", "STORAGE_OR_RUN", _gc, "list, and with --yes delete, files left by crashes"),
    ):
        sub = verbs.add_parser(verb, help=text, description=text[0].upper() + text[1:] + ".")
        sub.set_defaults(act=act)
        sub.add_argument("place", metavar=place, help=_PLACES[place])
        command.add_output_options(sub, default=argparse.SUPPRESS)
        if verb in ("list", "show"):
            sub.add_argument(
                "--json", action="store_true", help="print one JSON object; times are seconds since the epoch"
            )
        elif verb == "curve":
            sub.add_argument("--plot", metavar="FILE", help="plot to a .png file instead")
        else:
            sub.add_argument("--yes", action="store_true", help=_YES[verb])
    return parser


_PLACES = {
    "STORAGE": "folder or URI that holds runs: run.storage of their configs",
    "RUN": "folder or URI of a run: run.storage/run.name",
    "STORAGE_OR_RUN": "folder or URI that holds runs, or of one run",
}
_YES = {"delete": "do not ask for confirmation", "gc": "delete the listed files (default: list only)"}


def _main(options: argparse.Namespace) -> int:
    return int(options.act(open_storage(options.place), options))


def _list(storage: Storage, options: argparse.Namespace) -> int:
    runs = [run for place in _runs_in(storage) if (run := _tolerantly_read(place))]
    runs.sort(key=lambda run: run.active, reverse=True)
    if options.json:
        print(json.dumps({"storage": storage.uri, "runs": [asdict(run) for run in runs]}))
    elif runs:
        print(report.table(runs, storage.now()))
    else:
        itself = f"; it is a run itself, see ganrun runs show {options.place}" if is_run(storage) else ""
        print(f"{storage.uri}: no runs{itself}", file=sys.stderr)
    return command.OK


def _show(storage: Storage, options: argparse.Namespace) -> int:
    run = read_status(storage)
    if run.trials:
        run = replace(run, spent=trials_time_breakdown(storage))
    _say_faults(run.faults)
    print(json.dumps(asdict(run)) if options.json else report.describe_run(run, storage.now()))
    return command.OK


def _curve(storage: Storage, options: argparse.Namespace) -> int:
    config = read_config(storage)
    curve, faults = read_curve(storage)
    _say_faults(faults)
    if options.plot is None:
        for line in curve:
            print(json.dumps(line))
        return command.OK
    plot = Path(expand_user(options.plot))
    if plot.suffix.lower() != ".png":
        raise UserError(f"--plot {plot}: unsupported ending; give a .png file")
    if not curve:
        raise RunError(f"{storage.uri}: nothing to plot yet; the first tick comes after train.tick_images images")
    from ganrun.run_folder.plot import draw_curve

    title = f"{storage.uri.rpartition('/')[2]}: {curve[-1]['images']:,} of {config['train']['total_images']:,} images"
    if any(distance.key in line for line in curve for distance in DISTANCES):
        title += f"; {report.distance_name(config)}"
    plot.parent.mkdir(parents=True, exist_ok=True)
    plot.write_bytes(draw_curve(curve, title))
    print(plot)
    return command.OK


def _delete(storage: Storage, options: argparse.Namespace) -> int:
    read_config(storage)
    cleanup.refuse_if_running(storage)
    size = report.format_bytes(sum(entry.bytes for entry in storage.objects().values()))
    if not options.yes:
        if options.quiet:
            raise UserError("--quiet: nobody would see the question whether to delete the run; add --yes")
        _ask(storage, size)
    if foreign := cleanup.delete_run(storage):
        print(f"kept in {storage.uri}, not written by ganrun: {', '.join(foreign)}", file=sys.stderr)
    print(f"deleted {storage.uri}, {size}")
    return command.OK


def _ask(storage: Storage, size: str) -> None:
    """Ask for the name of the run as confirmation.

    Raises:
        UserError: stdin is closed.
        RunError: another answer.
    """
    name = storage.uri.rpartition("/")[2]
    print(f"{storage.uri}: {len(storage.list('checkpoints'))} checkpoints, {size}", file=sys.stderr)
    print(f"type {name} to delete all of it: ", end="", flush=True, file=sys.stderr)
    answer = sys.stdin.readline()
    if not answer:
        raise UserError("stdin is closed, so nobody can confirm; use --yes to delete without confirmation")
    if answer.strip() != name:
        raise RunError(f"{answer.strip()!r} is not {name!r}; nothing was deleted")


def _gc(storage: Storage, options: argparse.Namespace) -> int:
    places = [storage] if is_run(storage) else _runs_in(storage)
    count = total = 0
    for place in places:
        try:
            cleanup.refuse_if_running(place)
            found = cleanup.delete_orphans(place) if options.yes else cleanup.orphans(place)
        except (RunError, OSError) as error:
            _say_passed_over(place, error)
            continue
        for orphan in found:
            print(f"{place.uri}/{orphan.name}  {report.format_bytes(orphan.bytes)}  {orphan.reason}")
        count, total = count + len(found), total + sum(orphan.bytes for orphan in found)
    summary = f"{count} orphan{'s' * (count != 1)}, {report.format_bytes(total)}" if count else "no orphans"
    print(summary + ("; nothing deleted, use --yes" if count and not options.yes else " deleted" * bool(count)))
    return command.OK


def _runs_in(storage: Storage) -> Iterator[Storage]:
    """Yield the runs directly below a storage. Other folders are skipped."""
    if isinstance(storage, Folder) and not storage.path.is_dir():
        raise UserError(f"{storage.uri}: no such folder; give run.storage of a config")
    for name in storage.list():
        place = open_storage(f"{storage.uri}/{name}")
        try:
            if is_run(place):
                yield place
        except (RunError, OSError) as error:
            _say_passed_over(place, error)


def _tolerantly_read(place: Storage) -> RunStatus | None:
    """Read the status of a run. If that fails, warn and return None, so that the other runs are still listed."""
    try:
        run = read_status(place)
    except (RunError, OSError) as error:
        _say_passed_over(place, error)
        return None
    _say_faults(run.faults)
    return run


def _say_passed_over(place: Storage, error: Exception) -> None:
    text = str(error) if isinstance(error, RunError) else f"{place.uri}: {error}"
    print(f"skipped: {text}", file=sys.stderr)


def _say_faults(faults: Iterable[str]) -> None:
    for fault in faults:
        print(fault, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
