"""Makes small real runs: finished, crashed and resumed, crashed, and never started."""

import contextlib
import dataclasses
import functools
import json
from pathlib import Path
from typing import Any

import torch

from ganrun.config.schema import Config
from ganrun.run_folder.run_config import settle, write_config
from ganrun.run_folder.run_folder import RunFolder
from ganrun.storage import open_storage
from ganrun.telemetry.messages import Event, Progress
from ganrun.telemetry.records import EVENT_RECORDS, EventRecord
from ganrun.worker.worker import run_worker
from tests.ranks import StopAt, checkpoints_awaited, run_ranks

TOTAL, TICK, SAVED, CRASHED = 120, 24, 48, 84
"""Images: the run's, a tick's, of the checkpoint before the crash, of the crash: a tick at 72 lies between."""


MADE_UP = {
    "attempt": 1,
    "images": 0,
    "workers": 1,
    "time": 1.0,
    "spent": {},
    "message": "something",
    "damaged": [],
    "values": {},
}
"""Values of fields of events that do not matter to a test; those of all other fields are None."""


def event(kind: str, **fields: Any) -> EventRecord:
    """An event of this kind with these fields, and with made-up ones in place of those that are not given."""
    (made,) = (each for each in EVENT_RECORDS if each.kind == kind)
    needed = [each.name for each in dataclasses.fields(made) if each.default is dataclasses.MISSING]
    return made(**{name: MADE_UP.get(name) for name in needed} | fields)


class Crash(StopAt):
    """Channel that kills its worker."""

    def send(self, event: Event) -> None:
        if isinstance(event, Progress) and event.images >= CRASHED:
            raise ConnectionError("the driver is gone")


@functools.cache
def make_runs(data: Path) -> Path:
    """Make runs `finished`, `resumed`, `crashed` and `new` in a storage beside the data: read only."""
    storage = data.parent / "made"
    for name in ("finished", "resumed", "crashed", "new"):
        config = _config(name, storage, data)
        folder = RunFolder(open_storage(str(storage / name)))
        write_config(settle(config, folder), folder)
        if name in ("resumed", "crashed"):
            with contextlib.suppress(ConnectionError), checkpoints_awaited():
                run_worker(config, 0, 1, torch.device("cpu"), Crash())  # type: ignore[arg-type]
        if name in ("finished", "resumed"):
            run_ranks(config, 1, storage / "unused")
    return storage


def write_lease(run: Path, seconds: float) -> None:
    """Write a lease of another process that expires in so many seconds."""
    expires = open_storage(str(run)).now() + seconds
    (run / "lease.json").write_text(json.dumps({"id": "x", "holder": "process 7 on far", "expires": expires}))


def _config(name: str, storage: Path, data: Path) -> Config:
    values = {
        "run": {"name": name, "storage": str(storage)},
        "data": {"shards": str(data), "image_size": 16, "channels": 1, "batch_size": 12, "slots": 2},
        "model": {"width": 4, "latent_size": 8},
        "train": {"total_images": TOTAL, "precision": "float64", "tick_images": TICK},
        "evaluate": {"every_images": TOTAL, "samples": 12},
        "checkpoint": {"every_images": SAVED, "keep": 9},
        "telemetry": {"sample_images": 4},
    }
    return Config.model_validate(values)
