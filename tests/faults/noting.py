"""Named in `run.imports`, it has each worker write down the key of every sample that it is given, and take its time.

On a local cluster a worker's home is a folder of its host, beside which are the notes: `notes/RUN/ATTEMPT-RANK`.
"""

import json
import os
import time
from pathlib import Path
from typing import Any

from ganrun.data.decode import RawBatch
from ganrun.worker import worker
from ganrun.worker.host import WorkerHost

ROUND_SECONDS = 0.1
"""A round of the small run takes hundredths: too short beside a checkpoint's writing to be like a real one."""


class NotingHost(WorkerHost):
    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        home = Path(os.environ["HOME"])
        folder, self.name = home.parent / "notes" / self.spec.run.name, home.name
        folder.mkdir(parents=True, exist_ok=True)
        self.notes = (folder / f"{self.attempt:04d}-{self.state.slots.rank}").open("a", buffering=1)
        self.given = self.state.images

    def next_batches(self) -> list[RawBatch]:
        time.sleep(ROUND_SECONDS)
        batches = super().next_batches()
        for slot, batch in zip(self.state.slots.owned, batches, strict=True):
            keys = batch.get("text", [])  # A data set may have none.
            note = {"host": self.name, "time": time.time(), "images": self.given, "slot": slot, "keys": keys}
            self.notes.write(json.dumps(note) + "\n")
        self.given += self.state.batch_size
        return batches


worker.WorkerHost = NotingHost  # type: ignore[misc]
