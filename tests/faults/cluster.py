"""What the drills share: a run on the local cluster, the notes of its workers, and what must hold when it is over."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch

from cluster.local.hosts import STATE, LocalCluster
from ganrun.config.schema import Config
from ganrun.errors import RunError
from ganrun.run_folder.run_folder import RunFolder
from ganrun.storage import open_storage
from tests.faults.history import Note, read_notes, recomputed, standstill, what_counts
from tests.keys import what_order_says
from tests.ranks import latest_tensors

ROOT = Path(__file__).parents[2]
INTERVAL = 240
"""checkpoint.every_images: 20 rounds of 12."""
WAIT = 240
RAYS = "_AutoscalingCoordinatorActor"
"""Ray Train starts one for the whole cluster, which stays."""
OURS = ("RayTrainWorker", "ray::fit", "Mailbox", "TrainController", "ganrun.train")


class Row(NamedTuple):
    """A drill's line of the table."""

    drill: str
    restarts: str
    seconds: float | None
    """Without a round, a fault."""
    images: int


ROWS: list[Row] = []


def table() -> list[str]:
    """What the drills of this session cost, as a table for docs/cluster.md."""
    head = ["| drill | who restarts | seconds without a round | images recomputed |", "|---|---|---|---|"]
    return head + [
        f"| {row.drill} | {row.restarts} | {'-' if row.seconds is None else f'{row.seconds:.0f}'} | {row.images} |"
        for row in ROWS
    ]


def why_no_hosts() -> str | None:
    """Why this machine cannot have hosts of its own, if it cannot."""
    if os.geteuid() or not shutil.which("ip"):
        return "hosts are network namespaces: needs root and iproute2"
    made = subprocess.run(["ip", "netns", "add", f"ganrun-{os.getpid()}"], capture_output=True, text=True, check=False)
    subprocess.run(["ip", "netns", "del", f"ganrun-{os.getpid()}"], capture_output=True, check=False)
    return f"hosts are network namespaces: {made.stderr.strip()}" if made.returncode else None


def free_number() -> int:
    """Of a local cluster, in its name and in its addresses, that no other has."""
    numbers = (100 + (os.getpid() + offset) % 100 for offset in range(100))  # Others may look at the same moment.
    return next(number for number in numbers if not (STATE / f"d{number}").exists())


@contextlib.contextmanager
def cluster_up(hosts: int = 3, cpus: float = 1) -> Iterator[LocalCluster]:
    """A local cluster of its own, beside any others."""
    number = free_number()
    cluster = LocalCluster(f"d{number}")
    cluster.up(hosts, cpus, f"10.78.{number}")
    try:
        yield cluster
    finally:
        cluster.down()


def heal(cluster: LocalCluster) -> None:
    """All hosts are plugged in and up, as before a drill."""
    network = cluster.network
    for host in ["storage", *cluster.hosts()]:
        network.join(host)
    if not network.pids("storage"):
        cluster.start("storage")
    # The head may not have noticed yet whom it lost.
    alive = {host for host in cluster.alive() if network.pids(host)}
    lost = [host for host in cluster.hosts() if host not in alive or "head" not in alive]
    for host in lost:
        network.kill(host)
    if "head" in lost:
        cluster.start(lost.pop(0))
    cluster.start(*lost)


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
        self.folder = RunFolder(open_storage(config.run.uri))
        self.drivers: list[Driver] = []
        self.faults: list[float] = []
        self.visible: list[tuple[int, int]] = []
        """(attempt, images) that latest.json had, one after another."""
        self._over = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()

    def train(self, host: str = "head", *overrides: str) -> Driver:
        """The command of its user, on a host."""
        self.drivers.append(Driver(self.cluster, host, self.yaml, *overrides))
        return self.drivers[-1]

    def end(self) -> None:
        """Nothing of it is in the way of the next drill, whatever the verdict was."""
        self._over.set()
        for driver in self.drivers:
            driver.process.kill()

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
            time.sleep(0.2)

    def fault(self) -> None:
        """It is about to happen."""
        self.faults.append(time.time())

    def notice(self, host: str, seconds: float) -> None:
        """The host learns that it is to be taken away."""
        command = ["python", "cluster/notice.py", "now", f"--seconds={seconds:g}"]
        assert self.cluster.popen(host, command, cwd=ROOT).wait(WAIT) == 0

    def hosts_of_workers(self) -> list[str]:
        """Where they are, by the processes there."""
        return [host for host in self.cluster.hosts() if self.workers(host)]

    def workers(self, host: str) -> list[int]:
        """The process ids of the workers on a host."""
        return [pid for pid, title in self.titles(host) if "RayTrainWorker" in title]

    def titles(self, host: str) -> Iterator[tuple[int, str]]:
        """The processes on a host: id and command line."""
        for pid in self.cluster.network.pids(host):
            with contextlib.suppress(OSError):
                yield pid, Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()

    def hosts_shown(self) -> set[str]:
        """Those on which a worker was shown something."""
        return {note.host for note in self.notes()}

    def worker(self, rank: int) -> int:
        """The process id of the newest attempt's worker of that rank."""
        notes = self.notes()
        newest = max(note.attempt for note in notes)
        host = next(note.host for note in notes if (note.attempt, note.rank) == (newest, rank))
        return self.workers(host)[0]

    def wake(self, pid: int) -> None:
        """One that was stopped goes on, unless it is gone."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)

    def is_saving(self) -> bool:
        """A checkpoint is being written, and not visible yet."""
        latest, there = self.folder.pointer("latest"), self.folder.storage.list("checkpoints")
        return bool(latest and there and max(there) > latest.checkpoint)

    def again(self, host: str = "head") -> None:
        """Run the command until it ends with 0; it may be refused while a dead driver's lease on another host lasts."""
        while (code := (driver := self.train(host)).process.wait(WAIT)) == 1 and "is held by" in driver.said():
            time.sleep(5)
        assert code == 0, driver.said()

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
        history = what_counts(notes)
        assert history == what_order_says(self.config)
        assert all(note.keys == history[note.images, note.slot] for note in notes)
        self._assert_visible()
        assert_equal(latest_tensors(self.config), undisturbed, exact)
        self.assert_nothing_left()
        row = Row(drill, restarts, standstill(notes, self.faults), recomputed(notes, self.config))
        ROWS.append(row)
        print("\n" + table()[-1])
        return row

    def notes(self) -> list[Note]:
        """Of all workers of all attempts, in the order of time."""
        return read_notes(self.cluster.folder / "notes" / self.config.run.name)

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

    def _processes(self) -> list[str]:
        found = [title for host in self.cluster.hosts() for _, title in self.titles(host)]
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
