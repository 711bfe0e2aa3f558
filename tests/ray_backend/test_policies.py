"""Killed anywhere and started again on another number of workers, a run over S3 shows what it would have shown."""

import json
import os
import random
import threading
from pathlib import Path

import torch
from safetensors.torch import load

from ganrun.data.decode import RawBatch
from ganrun.data.stream import Stream
from ganrun.run_folder.run_folder import RunFolder
from ganrun.storage import open_storage
from ganrun.training import checkpoint
from tests.conftest import SIZES, config_of
from tests.keys import FIELDS, upload_with_keys, what_order_says
from tests.ranks import forking, work_unawaited
from tests.waiting import WAIT, until

TOTAL, TURN, SLOTS = 480, 12, 6
ATTEMPTS = ((2, 132), (3, 264), (1, 396), (4, None))
"""(workers, images at which they hold still and wait for the killer); the last ones go to the end."""


def test_killed_and_resumed_on_1_to_4_workers_nothing_is_shown_twice_or_lost(s3, values, data_folder, tmp_path):
    upload_with_keys(data_folder, f"{s3}/data")
    values["data"] |= {"shards": f"{s3}/data", "fields": FIELDS}
    options = {
        "run__storage": f"{s3}/runs",
        "train__total_images": TOTAL,
        "checkpoint__every_images": 60,
        "objective__discriminator_turns": 2,
    }
    undisturbed = config_of(values, run__name="undisturbed", **options)
    disturbed = config_of(values, run__name="disturbed", **options)
    expected, history = Records(tmp_path / "undisturbed"), Records(tmp_path / "disturbed")
    attempt(undisturbed, 1, None, expected, tmp_path)
    dice = random.Random(0)
    for workers, gate in ATTEMPTS:
        attempt(disturbed, workers, gate, history, tmp_path, dice)
    assert history.starts[0] == 0 < history.starts[1] < history.starts[2] < history.starts[3]
    assert expected.final() == history.final() == what_order_says(disturbed)
    assert all(shown == history.final()[position] for _, position, shown in history.all())
    assert_each_once_an_epoch(history.final())
    found, wanted = tensors(disturbed), tensors(undisturbed)
    assert found.keys() == wanted.keys()
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, wanted[name], rtol=0, atol=1e-6)


# What is shown.


def assert_each_once_an_epoch(history):
    lane = sum(SIZES) // SLOTS
    lanes = [[key for images in range(0, TOTAL, TURN) for key in history[images, slot]] for slot in range(SLOTS)]
    for epoch in range(TOTAL // SLOTS // lane):
        shown = [key for keys in lanes for key in keys[epoch * lane : (epoch + 1) * lane]]
        assert len(shown) == len(set(shown)) == lane * SLOTS


class Records:
    """What the ranks of each attempt wrote down: a file a rank."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.starts = folder, []
        folder.mkdir()

    def begin(self, start: int) -> Path:
        """The folder of a new attempt that goes on from so many images."""
        folder = self.folder / str(len(self.starts))
        folder.mkdir()
        self.starts.append(start)
        return folder

    def all(self):
        """(attempt, (images, slot), keys), in the order of attempts."""
        for attempt in range(len(self.starts)):
            for path in (self.folder / str(attempt)).iterdir():
                # A rank that was killed while it wrote leaves a last line without its end.
                for line in path.read_text().split("\n")[:-1]:
                    record = json.loads(line)
                    yield attempt, (record["images"], record["slot"]), record["keys"]

    def final(self):
        """The history that counts: of each attempt what was before the start of the next."""
        history = {}
        for attempt, (images, slot), keys in self.all():
            assert images >= self.starts[attempt]
            if all(images < later for later in self.starts[attempt + 1 :]):
                assert (images, slot) not in history
                history[images, slot] = keys
        return history


# Who shows it.


def attempt(config, workers, gate, records, tmp_path, dice=None):
    """Runs so many workers to the end; or, with a gate, kills them at any moment after a checkpoint became visible."""
    folder = RunFolder(open_storage(config.run.uri))
    start = images_of(folder)
    context = forking()
    record = records.begin(start)
    environment = {name: os.environ[name] for name in os.environ if name.startswith("AWS_")}
    environment["XDG_CACHE_HOME"] = str(tmp_path / "cache")
    rendezvous = str(tmp_path / f"meeting-{config.run.name}-{len(records.starts)}")
    ranks = [
        context.Process(target=show, args=(rank, config, workers, rendezvous, gate, record, environment))
        for rank in range(workers)
    ]
    for rank in ranks:
        rank.start()
    if gate:
        kill(ranks, folder, start, dice)
    for rank in ranks:
        rank.join(WAIT)
        assert rank.exitcode == (-9 if gate else 0)


def kill(ranks, folder, start, dice):
    """SIGKILL: one rank at any moment, and soon the others, as Ray does when it hears of it."""
    until(lambda: images_of(folder) > start or not all(rank.is_alive() for rank in ranks))
    assert all(rank.is_alive() for rank in ranks)
    threading.Event().wait(dice.uniform(0, 0.3))
    for rank in dice.sample(ranks, len(ranks)):
        rank.kill()
        threading.Event().wait(dice.uniform(0, 0.02))


def images_of(folder):
    latest = folder.pointer("latest")
    return latest.images if latest else 0


def show(rank, config, workers, rendezvous, gate, record, environment):
    """A rank that notes the key of every sample it is given."""
    os.environ.update(environment)
    from ganrun.worker import worker

    class Noting(Stream):
        def __init__(self, data, config, command, owned, images, *rest):
            super().__init__(data, config, command, owned, images, *rest)
            self.images, self.owned = images, owned
            self.notes = (record / str(rank)).open("a", buffering=1)

        def next(self) -> list[RawBatch]:
            if self.images == gate:
                threading.Event().wait()
            batches = super().next()
            for slot, batch in zip(self.owned, batches, strict=True):
                note = {"images": self.images, "slot": slot, "keys": batch["text"]}
                self.notes.write(json.dumps(note) + "\n")
            self.images += TURN
            return batches

    worker.Stream = Noting
    work_unawaited(rank, config, workers, rendezvous, None)


def tensors(config):
    """All tensors of the newest checkpoint, which must be that of the run's end."""
    folder = RunFolder(open_storage(config.run.uri))
    name, files, faults = checkpoint.newest_complete(folder)
    assert int(name[:12]) == TOTAL
    assert faults == []
    return {
        f"{file}/{key}": tensor
        for file, data in files.items()
        if file.endswith(".safetensors")
        for key, tensor in load(data).items()
    }
