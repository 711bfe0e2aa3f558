"""Layout of a run's folder: attempts, and pointers to the newest and the best checkpoint.

config.yaml latest.json best.json lease.json checkpoints/ metrics/ events/ samples/
"""

import json
from dataclasses import asdict, dataclass

from ganrun.errors import RunError, UserError
from ganrun.storage import Storage, open_storage
from ganrun.telemetry.records import AttemptReserved, CommandDied, read_record


@dataclass(frozen=True)
class Pointer:
    """Content of `latest.json` or `best.json`: a complete checkpoint, and the attempt that moved the pointer."""

    checkpoint: str
    images: int
    attempt: int
    score: float | None = None


class RunFolder:
    """Attempts and pointers of a run."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage

    def pointer(self, name: str) -> Pointer | None:
        """Return the pointer `latest` or `best`; None before the first checkpoint.

        Raises:
            RunError: the pointer is corrupt. A run that ignored it would start from 0 and overwrite its checkpoints.
        """
        found = self.storage.read_version(f"{name}.json")
        return self._parse(name, found[0]) if found else None

    def move_pointer(self, name: str, pointer: Pointer) -> None:
        """Write the pointer `latest` or `best`.

        Raises:
            RunError: a later attempt owns the run, so that this one must not write.
        """
        fields = {key: value for key, value in asdict(pointer).items() if value is not None}
        data = json.dumps(fields).encode()
        while True:
            found = self.storage.read_version(f"{name}.json")
            moved = self._parse(name, found[0]).attempt if found else 0
            # List attempts too: a newer attempt does not mark a pointer that did not exist when it began.
            if (attempt := max(moved, self._newest_attempt())) > pointer.attempt:
                raise RunError(f"{self.storage.uri}: attempt {pointer.attempt} was overtaken by attempt {attempt}")
            if found is None:
                if self.storage.create(f"{name}.json", data):
                    return
            elif self.storage.replace(f"{name}.json", data, found[1]):
                return

    def begin_attempt(self, rollback_count: int = 0, after: int | None = None) -> int:
        """Reserve a new attempt and return its number. From now on older attempts cannot move the pointers.

        Args:
            rollback_count: number of rollbacks so far, which seeds the noise.
            after: the attempt that the new one must follow; None for the newest.

        Raises:
            RunError: an attempt later than `after` owns the run.
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

    def log_death(self, holder: str) -> None:
        """Write to the newest attempt's events that the process which ran the run is gone. The caller has the lease.

        Args:
            holder: the process, in words.
        """
        died = CommandDied(message=f"{holder}, which ran this run, is gone: killed, or its machine lost or cut off")
        line = json.dumps(died.to_line()) + "\n"
        self.storage.append(f"events/{self._newest_attempt():04d}.jsonl", line.encode())

    def rollback_count(self) -> int:
        """Return the number of rollbacks that the newest attempt recorded; 0 if there is none."""
        attempt = self._newest_attempt()
        if not attempt:
            return 0
        line = self.storage.read(f"events/{attempt:04d}.jsonl").partition(b"\n")[0]
        try:
            reserved = read_record(json.loads(line), (AttemptReserved,))
            return int(reserved.rollback_count) if reserved else 0
        except (ValueError, AttributeError, TypeError, KeyError):
            return 0  # A line of an older ganrun, or corrupt; the checkpoint has the count too.

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
                f"{self.storage.uri}/{name}.json is corrupt ({error}); name in it the folder of checkpoints/ to resume "
                'from, as {"checkpoint": FOLDER, "images": ..., "attempt": ...}, with the values of its manifest.json'
            ) from error


def find_checkpoint(where: str) -> tuple[Storage, str]:
    """Return the storage and the directory of a checkpoint.

    Args:
        where: URI of a run, for its newest checkpoint, or of a checkpoint.

    Raises:
        UserError: `where` is neither.
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
