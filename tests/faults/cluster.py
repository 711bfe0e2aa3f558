"""What the drills share: a run on the local cluster, the notes of its workers, and what must hold when it is over."""

import contextlib
import itertools
import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch

from cluster.local.hosts import STATE, LocalCluster
from ganrun.errors import RunError
from ganrun.run_folder import RunFolder
from ganrun.sections import Config
from ganrun.storage import open_storage
from tests.keys import History, what_order_says
from tests.ranks import latest_tensors

ROOT = Path(__file__).parents[2]
INTERVAL = 240
"""checkpoint.every_images: 20 rounds of 12."""
WRITTEN_SECONDS = 5
"""A checkpoint that is due is in writing for so long at most."""
WAIT = 240
RAYS = "_AutoscalingCoordinatorActor"
"""Ray Train starts one for the whole cluster, which stays."""
OURS = ("RayTrainWorker", "ray::_fit", "Mailbox", "TrainController", "ganrun.train")


class Row(NamedTuple):
    """A drill's line of the table."""

    drill: str
    restarts: str
    seconds: float
    images: int


ROWS: list[Row] = []


def table() -> list[str]:
    """What the drills of this session cost, as a table for docs/cluster.md."""
    head = ["| drill | who restarts | seconds to the next round | images recomputed |", "|---|---|---|---|"]
    return head + [f"| {row.drill} | {row.restarts} | {row.seconds:.0f} | {row.images} |" for row in ROWS]


@contextlib.contextmanager
def cluster_up(hosts: int = 3, cpus: float = 1) -> Iterator[LocalCluster]:
    """A local cluster of its own, beside any others."""
    number = next(number for number in itertools.count(100) if not (STATE / f"d{number}").exists())
    cluster = LocalCluster(f"d{number}")
    cluster.up(hosts, cpus, f"10.78.{number}")
    try:
        yield cluster
    finally:
        cluster.down()


def heal(cluster: LocalCluster) -> None:
    """All hosts are plugged in and up, as before a drill."""
    for host in ["storage", *cluster.hosts()]:
        cluster.network.join(host)
    if not cluster.network.pids("storage"):
        cluster.start("storage")
    alive = cluster.alive()
    if "head" not in alive:
        alive = set()
        cluster.network.kill("head")
        cluster.start("head")
    lost = [host for host in cluster.hosts()[1:] if host not in alive]
    for host in lost:
        cluster.network.kill(host)
    cluster.start(*lost)


class Note(NamedTuple):
    """A slot's samples of a turn, as the worker wrote it down."""

    attempt: int
    rank: int
    host: str
    time: float
    images: int
    slot: int
    keys: list[str]


class Driver:
    """`ganrun train` on a host."""

    def __init__(self, cluster: LocalCluster, host: str, yaml: Path, *overrides: str) -> None:
        self.host, self.log = host, yaml.with_suffix(f".{time.monotonic_ns()}.log")
        command = [sys.executable, "-m", "ganrun.train", str(yaml), *overrides]
        with self.log.open("w") as log:
            self.process = cluster.popen(host, command, cwd=ROOT, stdout=log, stderr=log)

    def said(self) -> str:
        """All so far."""
        return self.log.read_text()

    def waits_for(self, text: str) -> None:
        """Until it has said that."""
        deadline = time.monotonic() + WAIT
        while text not in self.said():
            assert time.monotonic() < deadline, self.said()
            assert self.process.poll() is None, self.said()
            time.sleep(0.05)

    def ends(self, code: int) -> str:
        """Waits for its end, which must be this one; what it said."""
        assert self.process.wait(WAIT) == code, self.said()
        assert "Traceback" not in self.said(), self.said()
        return self.said()


class Drill:
    """A run on the cluster, and what befalls it.

    Args:
        cluster: that it is on.
        config: of the run, whose workers write notes.
        folder: for its YAML and the logs of its drivers.
    """

    def __init__(self, cluster: LocalCluster, config: Config, folder: Path) -> None:
        self.cluster, self.config = cluster, config
        self.yaml = folder / f"{config.run.name}.yaml"
        self.yaml.write_text(config.to_yaml())
        self.folder = RunFolder(open_storage(f"{config.run.storage}/{config.run.name}"))
        self.faults: list[float] = []
        self.visible: list[tuple[int, int]] = []
        """(attempt, images) that latest.json had, one after another."""
        self._over = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()

    def train(self, host: str = "head", *overrides: str) -> Driver:
        """The command of its user, on a host."""
        return Driver(self.cluster, host, self.yaml, *overrides)

    def wait_for_images(self, images: int, driver: Driver) -> None:
        """Until the workers are shown that many."""
        self.wait(lambda: self.reached() >= images, driver)

    def wait(self, until: Callable[[], Any], driver: Driver | None = None) -> None:
        """Until something is so; the driver must live till then."""
        deadline = time.monotonic() + WAIT
        while not until():
            said = driver.said() if driver else ""
            assert time.monotonic() < deadline, said
            assert driver is None or driver.process.poll() is None, said
            time.sleep(0.05)

    def fault(self) -> None:
        """It is about to happen."""
        self.faults.append(time.time())

    def hosts_of_workers(self) -> list[str]:
        """Where they are, by the processes there."""
        return [host for host in self.cluster.hosts() if self.workers(host)]

    def host_of(self, rank: int) -> str:
        """Where the newest attempt's worker of that rank is, by its notes."""
        newest = max(note.attempt for note in self.notes())
        return next(note.host for note in self.notes() if (note.attempt, note.rank) == (newest, rank))

    def workers(self, host: str) -> list[int]:
        """The process ids of the workers on a host."""
        return [pid for pid, title in self._titles(host) if "RayTrainWorker" in title]

    # What must hold.

    def verdict(self, drill: str, restarts: str, undisturbed: dict[str, torch.Tensor], exact: bool = True) -> Row:
        """The run is over, and whole; what it cost.

        Args:
            drill: what was done to it.
            restarts: who brought it back.
            undisturbed: the tensors of the run to which nothing happened.
            exact: the same bits, as on one and two ranks; else within 1e-6.
        """
        self._over.set()
        self._watcher.join()
        notes = self.notes()
        history, recomputed = self._history(notes)
        assert history == what_order_says(self.config)
        assert all(note.keys == history[note.images, note.slot] for note in notes)
        self._assert_visible()
        assert_equal(latest_tensors(self.config), undisturbed, exact)
        self.assert_nothing_left()
        seconds = [next(note.time for note in notes if note.time > fault) - fault for fault in self._counted(notes)]
        row = Row(drill, restarts, sum(seconds) / len(seconds), recomputed)
        ROWS.append(row)
        print("\n" + table()[-1])
        return row

    def notes(self) -> list[Note]:
        """Of all workers of all attempts, in the order of time."""
        notes = []
        for path in (self.cluster.folder / "notes" / self.config.run.name).glob("*"):
            attempt, rank = map(int, path.name.split("-"))
            # A worker that was killed while it wrote leaves a last line without its end.
            for line in path.read_text().split("\n")[:-1]:
                notes.append(Note(attempt, rank, **json.loads(line)))
        return sorted(notes, key=lambda note: note.time)

    def reached(self) -> int:
        """The images at the end of the newest turn of which there is a note."""
        return max((note.images for note in self.notes()), default=-1) + self.config.data.batch_size

    def assert_nothing_left(self) -> None:
        """Of the run there are no processes, actors or placement groups any more."""
        deadline = time.monotonic() + 60
        while left := [*self._processes(), *self._actors(), *self._placement_groups()]:
            assert time.monotonic() < deadline, left
            time.sleep(0.5)

    # How.

    def _counted(self, notes: list[Note]) -> list[float]:
        """The faults that were followed by a round."""
        return [fault for fault in self.faults if fault < notes[-1].time]

    def _history(self, notes: list[Note]) -> tuple[History, int]:
        """What counts: of each attempt what was before the start of the next; and the images shown in vain."""
        attempts = sorted({note.attempt for note in notes})
        starts = {each: min(note.images for note in notes if note.attempt == each) for each in attempts}
        history: History = {}
        for note in notes:
            if all(note.images < starts[later] for later in attempts if later > note.attempt):
                assert (note.images, note.slot) not in history
                history[note.images, note.slot] = note.keys
        lost = [
            self._lost([note for note in notes if note.attempt == before], starts[after])
            for before, after in itertools.pairwise(attempts)
        ]
        return history, sum(lost)

    def _lost(self, notes: list[Note], start: int) -> int:
        """Images of an attempt that the next one, from `start` on, showed again: at most those of one interval.

        A little more, if the fault met the checkpoint after it in writing.
        """
        due = start + self.config.checkpoint.every_images
        late = [note.time for note in notes if note.images >= due]
        assert not late or max(late) - min(late) < WRITTEN_SECONDS
        return max(0, max(note.images for note in notes) + self.config.data.batch_size - start)

    def _watch(self) -> None:
        while not self._over.wait(0.25):
            with contextlib.suppress(OSError, RunError):
                latest = self.folder.pointer("latest")
                if latest and (latest.attempt, latest.images) not in self.visible[-1:]:
                    self.visible.append((latest.attempt, latest.images))

    def _assert_visible(self) -> None:
        """latest.json never went back to an older attempt or to fewer images, and is at the end."""
        assert self.visible == sorted(self.visible)
        assert [images for _, images in self.visible] == sorted(images for _, images in self.visible)
        latest = self.folder.pointer("latest")
        assert latest is not None
        assert latest.images == self.config.train.total_images
        assert self.folder.storage.list().count("lease.json") == 0

    def _titles(self, host: str) -> Iterator[tuple[int, str]]:
        for pid in self.cluster.network.pids(host):
            with contextlib.suppress(OSError):
                yield pid, Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()

    def _processes(self) -> list[str]:
        found = [title for host in self.cluster.hosts() for _, title in self._titles(host)]
        return [title for title in found if any(name in title for name in OURS)]

    def _actors(self) -> list[str]:
        there = Counter(each["class_name"] for each in self.cluster.listed("actors") if each["state"] != "DEAD")
        there -= Counter([RAYS])
        return list(there.elements())

    def _placement_groups(self) -> list[str]:
        groups = self.cluster.listed("placement_groups")
        return [each["placement_group_id"] for each in groups if each["state"] != "REMOVED"]


def assert_equal(tensors: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], exact: bool = True) -> None:
    """All tensors of two checkpoints are the same."""
    assert tensors.keys() == expected.keys()
    tolerance = 0 if exact else 1e-6
    for name, tensor in tensors.items():
        torch.testing.assert_close(tensor, expected[name], rtol=0, atol=tolerance, msg=name)
