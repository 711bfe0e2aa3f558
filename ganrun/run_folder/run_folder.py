"""The layout of a run's folder: attempts, and the pointers to its newest and its best checkpoint.

config.yaml latest.json best.json lease.json checkpoints/ metrics/ events/ samples/
"""

import json
from dataclasses import asdict, dataclass

from ganrun.errors import RunError, UserError
from ganrun.storage import Storage, open_storage
from ganrun.telemetry.records import AttemptReserved


@dataclass(frozen=True)
class Pointer:
    """`latest.json` or `best.json`: a complete checkpoint, and the attempt that moved the pointer."""

    checkpoint: str
    images: int
    attempt: int
    score: float | None = None


class RunFolder:
    """The records of a run, by name."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage

    def pointer(self, name: str) -> Pointer | None:
        """Where `latest` or `best` points; None before the first checkpoint.

        Raises:
            RunError: the pointer is corrupt. Without it the run would begin anew over its own checkpoints.
        """
        found = self.storage.read_version(f"{name}.json")
        return self._parse(name, found[0]) if found else None

    def move_pointer(self, name: str, pointer: Pointer) -> None:
        """Points `latest` or `best` elsewhere.

        Raises:
            RunError: a later attempt has the run: this one was cut off and must not write.
        """
        fields = {key: value for key, value in asdict(pointer).items() if value is not None}
        data = json.dumps(fields).encode()
        while True:
            found = self.storage.read_version(f"{name}.json")
            moved = self._parse(name, found[0]).attempt if found else 0
            # The list is for a pointer that the newer attempt found nowhere and so could not make its own.
            if (attempt := max(moved, self._newest_attempt())) > pointer.attempt:
                raise RunError(f"{self.storage.uri}: attempt {pointer.attempt} was overtaken by attempt {attempt}")
            if found is None:
                if self.storage.create(f"{name}.json", data):
                    return
            elif self.storage.replace(f"{name}.json", data, found[1]):
                return

    def begin_attempt(self, rollback_count: int = 0, after: int | None = None) -> int:
        """The number of a new attempt, which no other has. From now on older ones cannot move the pointers.

        Args:
            rollback_count: of its noise.
            after: the attempt that is to go on as the new one; unset, any.

        Raises:
            RunError: a later one than `after` has the run.
        """
        attempt = 1 + (self._newest_attempt() if after is None else after)
        line = json.dumps(AttemptReserved(rollback_count=rollback_count).to_line()) + "\n"
        while not self.storage.create(f"events/{attempt:04d}.jsonl", line.encode()):
            if after is not None:
                raise RunError(f"{self.storage.uri}: attempt {after} was overtaken by attempt {attempt}")
            attempt += 1
        if latest := self.pointer("latest"):
            self.move_pointer("latest", Pointer(latest.checkpoint, latest.images, attempt, latest.score))
        return attempt

    def rollback_count(self) -> int:
        """Of the newest attempt's noise: how often the run was rolled back."""
        attempt = self._newest_attempt()
        if not attempt:
            return 0
        line = self.storage.read(f"events/{attempt:04d}.jsonl").partition(b"\n")[0]
        try:
            fields = json.loads(line)
            return int(fields.get("rollback_count", fields.get("generation", 0)))  # The latter in format 1.
        except (ValueError, AttributeError, TypeError):
            return 0  # The line of an older ganrun, or corrupt; the checkpoint has its own.

    def _newest_attempt(self) -> int:
        names = [name.partition(".")[0] for name in self.storage.list("events")]
        return max((int(name) for name in names if name.isdigit()), default=0)

    def _parse(self, name: str, data: bytes) -> Pointer:
        try:
            pointer = Pointer(**json.loads(data))
            if ".." in pointer.checkpoint.split("/"):
                raise ValueError(f"{pointer.checkpoint!r} is no name of a checkpoint")
            return pointer
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise RunError(
                f"{self.storage.uri}/{name}.json is corrupt ({error}); write into it which of checkpoints/ to go on "
                'from, as {"checkpoint": name of the folder, "images": ..., "attempt": ...} of its manifest.json'
            ) from error


def find_checkpoint(where: str) -> tuple[Storage, str]:
    """The storage of a run, and below it the directory of its newest checkpoint; or of the checkpoint that is given.

    Raises:
        UserError: there is neither.
    """
    place = where.rstrip("/")
    parent, _, name = place.rpartition("/")
    if "manifest.json" in open_storage(place).list():
        return open_storage(parent or "."), name
    storage = open_storage(place)
    latest = RunFolder(storage).pointer("latest")
    if latest is None:
        raise UserError(f"{where}: neither a run with a checkpoint nor a checkpoint; runs are at run.storage/run.name")
    return storage, f"checkpoints/{latest.checkpoint}"
