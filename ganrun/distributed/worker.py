"""One worker of a run, from the config to its end. Needs a process group if there are several; knows no Ray."""

import contextlib
import logging
from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.distributed as dist

from ganrun import checkpoint
from ganrun.data.cache import ShardCache, cache_folder
from ganrun.data.index import DataSet, open_data
from ganrun.data.order import Order
from ganrun.data.stream import Stream
from ganrun.distributed.host import WorkerHost
from ganrun.distributed.line import Line
from ganrun.errors import RunError, UserError
from ganrun.evaluation.evaluation import Evaluation
from ganrun.evaluation.points import PointEvaluation
from ganrun.evaluation.reals import Reals
from ganrun.features import open_extractor
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
    with _warnings_told(line) if rank == 0 else contextlib.nullcontext():
        folder = RunFolder(open_storage(f"{config.run.storage}/{config.run.name}", patience))
        data = open_data(config.data.shards, patience)
        play = Play(build_game(config, device), config, Slots(config.slots, rank, workers))
        start, files = _begin(folder, play.slots)
        progress, unfit = _restore(play, folder, start, files)
        stream = _stream(play, data)
        evaluation = _evaluation(config, data) if config.evaluate.every_images else None
        host = WorkerHost(play, folder, stream, line, start.attempt, progress, evaluation)
        if host.first:
            left_over = stream.order.left_over
            host.event("start", images=play.images, workers=workers, left_over=left_over, **start._asdict())
            if unfit:
                host.event("start_from", where=config.run.start_from, unfit=unfit)
                line.say("note", text=f"run.start_from: {len(unfit)} tensors did not fit: {', '.join(unfit)}")
            line.say("started", images=play.images, workers=workers, faults=start.damaged)
        finished = _train(play, host)
        if host.first:
            line.say("finished" if finished else "stopped", images=play.images)


def _train(play: Play, host: WorkerHost) -> bool:
    """Plays to the end, whether that is the run's or one that was asked for, and waits for what is being written."""
    try:
        finished = train(play, host.next_batches, host)
    except Exception as error:
        if isinstance(error, UserError | RunError):
            host.event("failed", images=play.images, message=str(error))
        with contextlib.suppress(RunError):  # A checkpoint that is under way is worth the wait; what went wrong, more.
            host.finish(None)
        raise
    finally:
        host.stream.close()
    host.finish("finish" if finished else "stop")
    return finished


class _Telling(logging.Handler):
    """Says to the driver what is logged."""

    def __init__(self, line: Line) -> None:
        super().__init__(logging.WARNING)
        self.line = line

    def emit(self, record: logging.LogRecord) -> None:
        self.line.say("note", text=record.getMessage())


@contextlib.contextmanager
def _warnings_told(line: Line) -> Iterator[None]:
    """What ganrun warns of meanwhile is shown on the driver's terminal."""
    logger, telling = logging.getLogger("ganrun"), _Telling(line)
    logger.addHandler(telling)
    try:
        yield
    finally:
        logger.removeHandler(telling)


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


def _evaluation(config: Config, data: DataSet) -> Evaluation | PointEvaluation:
    settings = config.evaluate
    if config.data.fields["image"].kind == "point":
        return PointEvaluation(data.index, settings.samples)
    extractor = open_extractor(settings.extractor, settings.extractor_weights)
    reals = Reals(data, settings.samples, config.data.fields, config.data.damaged_share)
    return Evaluation(
        extractor,
        reals,
        settings.samples,
        settings.metrics,
        open_storage(config.run.storage, config.run.patience_seconds),
    )
