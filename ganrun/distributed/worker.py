"""One worker of a run, from the config to its end. Needs a process group if there are several; knows no Ray."""

import contextlib
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.distributed as dist

from ganrun import checkpoint
from ganrun.data.cache import ShardCache, cache_folder
from ganrun.data.decode import RawBatch
from ganrun.data.index import DataSet, open_data
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
    else:  # Workers of one machine see all its GPUs; NCCL and current_stream() mean this thread's.
        torch.cuda.set_device(device)
    patience = config.run.patience_seconds
    folder = RunFolder(open_storage(f"{config.run.storage}/{config.run.name}", patience))
    data = open_data(config.data.shards, patience)
    play = Play(build_game(config, device), config, Slots(config.slots, rank, workers))
    start, files = _begin(folder, play.slots)
    progress, unfit = _restore(play, folder, start, files)
    stream = _stream(play, data)
    scores = open_storage(config.run.storage, patience)
    evaluation = Evaluation(config, data, scores) if config.evaluate.every_images else None
    host = WorkerHost(play, folder, data, line, start.attempt, progress, evaluation)
    if host.first:
        left_over = stream.order.left_over
        host.event("start", images=play.images, workers=workers, left_over=left_over, **start._asdict())
        if unfit:
            host.event("start_from", where=config.run.start_from, unfit=unfit)
            line.say("note", text=f"run.start_from: {len(unfit)} tensors did not fit: {', '.join(unfit)}")
        line.say("started", images=play.images, workers=workers, faults=start.damaged)
    try:
        finished = train(play, _timed(stream, host), host)
    except Exception as error:
        if isinstance(error, UserError | RunError):
            host.event("failed", images=play.images, message=str(error))
        with contextlib.suppress(RunError):  # A checkpoint that is under way is worth the wait; what went wrong, more.
            host.finish(None)
        raise
    finally:
        stream.close()
    host.finish("finish" if finished else "stop")
    if host.first:
        line.say("finished" if finished else "stopped", images=play.images)


class Start(NamedTuple):
    """What a start of the workers begins with."""

    attempt: int
    checkpoint: str | None
    """Its name; None before the first."""
    damaged: list[str]
    """What is wrong with newer ones."""


def _begin(folder: RunFolder, slots: Slots) -> tuple[Start, checkpoint.Files]:
    """A new attempt, and the checkpoint to go on from: rank 0 decides for all, and has read it for that."""
    found: list[Start | None] = [None]
    files: checkpoint.Files = {}
    if slots.rank == 0:
        attempt = folder.begin_attempt()
        name, files, damaged = checkpoint.newest_whole(folder)
        found = [Start(attempt, name, damaged)]
    if slots.workers > 1:
        dist.broadcast_object_list(found, 0)
    assert found[0] is not None
    return found[0], files


def _restore(
    play: Play, folder: RunFolder, start: Start, files: checkpoint.Files
) -> tuple[checkpoint.Progress, list[str]]:
    """Puts the play where it left off, or gives it the weights of `run.start_from` and names what did not fit."""
    if start.checkpoint:
        files = files or checkpoint.read(folder.storage, f"checkpoints/{start.checkpoint}")
        return checkpoint.restore(play, files), []
    if play.config.run.start_from:
        return checkpoint.Progress(), checkpoint.begin_from(play, play.config.run.start_from)
    return checkpoint.Progress(), []


def _stream(play: Play, data: DataSet) -> Stream:
    """Batches from where the play is."""
    config, slots = play.config, play.slots
    sizes = tuple(shard.samples for shard in data.index.shards)
    order = Order(sizes, slots.total, config.run.seed, config.data.shuffle_shards)
    cache = ShardCache(cache_folder(), config.data.cache_mib * 2**20) if config.data.cache_mib else None
    decoders = max(2, int(config.cluster.cpus_per_worker))
    return Stream(data, config.data, order, slots.owned, play.images, play.device, cache, decoders)


def _timed(stream: Stream, host: WorkerHost) -> Callable[[], list[RawBatch]]:
    def next_batches() -> list[RawBatch]:
        begun = time.monotonic()
        batches = stream.next()
        host.wait_seconds += time.monotonic() - begun
        return batches

    return next_batches
