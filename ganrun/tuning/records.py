"""Records of a search: search.jsonl, config.yaml and best.json."""

import json
import time
from collections.abc import Sequence

from ganrun.config.keys import flat
from ganrun.config.load import parse, with_own_defaults
from ganrun.config.run_spec import RunSpec, resolve
from ganrun.config.schema import Config
from ganrun.config.validate_unused import without_unused
from ganrun.errors import RunError, UserError
from ganrun.run_folder.curve import SEARCH_FILE as FILE
from ganrun.run_folder.curve import parse_lines
from ganrun.storage import Storage
from ganrun.telemetry.messages import SEARCH_RECORDS, SearchRecord, TrialReport
from ganrun.telemetry.records import read_record
from ganrun.tuning.population import Population

FREE = (
    "cluster.",
    "telemetry.",
    "checkpoint.",
    "train.total_images",
    "run.patience_seconds",
    "data.shards",
    "data.cache",
)
"""Prefixes of keys that may differ when a search resumes."""


def read_population(config: Config, storage: Storage) -> Population:
    """Return the population after the lines of search.jsonl.

    Raises:
        RunError: a line is corrupt or not of this search.
    """
    population = Population(config)
    for number, line in enumerate(parse_lines(_text(storage), {"time", "kind"}), 1):
        try:
            if record := read_record(line, SEARCH_RECORDS):
                population.handle(record)
        except (KeyError, TypeError) as error:
            raise RunError(
                f"{storage.uri}/{FILE}: line {number} is not of this search ({error!r}); take it out, or choose "
                "another run.name"
            ) from error
    return population


def terminate_last_line(storage: Storage) -> None:
    """Terminate a line that a crash cut off, so that the next one is not lost with it."""
    if (text := _text(storage)) and not text.endswith(b"\n"):
        storage.append(FILE, b"\n")


def _text(storage: Storage) -> bytes:
    try:
        return storage.read(FILE)
    except (FileNotFoundError, NotADirectoryError):
        return b""


def append_records(storage: Storage, records: Sequence[SearchRecord]) -> None:
    """Append lines. A crash may leave only the first ones.

    Raises:
        OSError: the storage refused them.
    """
    now = time.time()
    text = "".join(json.dumps({"time": now, **record.to_line()}) + "\n" for record in records)
    storage.append(FILE, text.encode())


def settle(config: Config, storage: Storage) -> RunSpec:
    """Return the search of a config, with the slots that it was begun with.

    Raises:
        UserError: it differs from the search's own config in what cannot change once it has begun.
    """
    found = storage.read_version("config.yaml")
    if not found or not _text(storage):
        if storage.list("checkpoints"):
            raise UserError(f"run.name: {storage.uri} is a run and no search; choose another run.name")
        return resolve(config)
    before = with_own_defaults(without_unused(parse(found[0], f"{storage.uri}/config.yaml")))
    spec = resolve(config, begun_slots=before.slots)
    old, new = flat(resolve(before)), flat(spec)
    changed = [
        f"{key} was {old.get(key)}, is {new.get(key)}"
        for key in old | new
        if old.get(key) != new.get(key) and not key.startswith(FREE)
    ]
    if changed:
        raise UserError(
            f"{storage.uri} was begun with another config: {'; '.join(changed)}. These cannot change in a search: "
            "change them back, or choose another run.name"
        )
    return spec


def point_best(storage: Storage, best: TrialReport) -> None:
    """Point best.json to a trial's checkpoint. The holder of the lease is the only writer."""
    checkpoint = f"trials/{best.trial}/checkpoints/{best.checkpoint}"
    attempt = int((best.checkpoint or "0").rpartition("-")[2])
    pointer = {"checkpoint": checkpoint, "images": best.images, "attempt": attempt, "score": best.score}
    storage.write("best.json", json.dumps(pointer).encode())
