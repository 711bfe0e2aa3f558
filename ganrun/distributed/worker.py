"""One worker of a run, from the config to its end. Needs a process group if there are several; knows no Ray."""

import time
from collections.abc import Callable

import torch
import torch.distributed as dist

from ganrun import checkpoint
from ganrun.data.decode import RawBatch
from ganrun.data.index import open_data
from ganrun.data.order import Order
from ganrun.data.stream import Stream
from ganrun.distributed.host import WorkerHost
from ganrun.distributed.line import Line
from ganrun.errors import RunError, UserError
from ganrun.evaluation.in_training import Evaluation
from ganrun.games.build import build_game
from ganrun.loop import train
from ganrun.play import Play
from ganrun.run_folder import RunFolder
from ganrun.sections import Config
from ganrun.slots import Slots
from ganrun.storage import open_storage


def work(config: Config, rank: int, workers: int, device: torch.device, line: Line) -> None:
    """Trains as one of `workers` until the run ends or is asked to stop, and tells the driver which.

    Raises:
        UserError: the data is damaged or not what the config says.
        RunError: the run cannot go on.
    """
    if device.type == "cpu":
        torch.set_num_threads(max(1, int(config.cluster.cpus_per_worker)))
    slots = Slots(config.slots, rank, workers)
    storage = open_storage(f"{config.run.storage}/{config.run.name}")
    folder, data = RunFolder(storage), open_data(config.data.shards)
    play = Play(build_game(config, device), config, slots)
    attempt, name, faults = _begin(folder, slots)
    progress, unfit = checkpoint.Progress(), []
    if name:
        progress = checkpoint.restore(play, checkpoint.read(storage, f"checkpoints/{name}"))
    elif config.run.start_from:
        unfit = checkpoint.begin_from(play, config.run.start_from)
    order = Order(
        tuple(shard.samples for shard in data.index.shards),
        slots.total,
        config.run.seed,
        config.data.shuffle_shards,
    )
    stream = Stream(
        data,
        order,
        slots.owned,
        config.data.batch_size // slots.total,
        play.images,
        config.data.fields,
        pin=device.type == "cuda",
    )
    evaluation = Evaluation(config, data, open_storage(config.run.storage)) if config.evaluate.every_images else None
    host = WorkerHost(play, folder, data, line, attempt, progress, evaluation)
    if host.first:
        host.event("start", images=play.images, workers=workers, checkpoint=name, damaged=faults)
        if unfit:
            host.event("start_from", where=config.run.start_from, unfit=unfit)
            line.say("note", text=f"run.start_from: {len(unfit)} tensors did not fit: {', '.join(unfit)}")
        line.say("started", attempt=attempt, images=play.images, workers=workers, faults=faults)
    try:
        finished = train(play, _timed(stream, host), host)
    except (UserError, RunError) as error:
        host.event("failed", images=play.images, message=str(error))
        raise
    finally:
        stream.close()
    if host.unsaved:
        raise RunError(f"{host.unsaved}; the last good checkpoint stays: mend the storage and run the same command")
    if host.first:
        host.event("finish" if finished else "stop", images=play.images)
        line.say("finished" if finished else "stopped", images=play.images)


def _begin(folder: RunFolder, slots: Slots) -> tuple[int, str | None, list[str]]:
    """A new attempt, and the checkpoint to go on from: rank 0 decides for all."""
    found: list[object] = [None]
    if slots.rank == 0:
        attempt = folder.begin_attempt()
        found = [(attempt, *checkpoint.newest_whole(folder))]
    if slots.workers > 1:
        dist.broadcast_object_list(found, 0)
    return found[0]  # type: ignore[return-value]


def _timed(stream: Stream, host: WorkerHost) -> Callable[[], list[RawBatch]]:
    def next_batches() -> list[RawBatch]:
        begun = time.monotonic()
        batches = stream.next()
        host.wait_seconds += time.monotonic() - begun
        return batches

    return next_batches
