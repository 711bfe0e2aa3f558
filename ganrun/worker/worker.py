"""One worker of a run, from the config to its end. Needs a process group if there are several; knows no Ray."""

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple, NoReturn

import torch
import torch.distributed as dist

from ganrun.config.schema import Config
from ganrun.config.tunable import scheduled
from ganrun.data.cache import ShardCache, cache_folder
from ganrun.data.index import DataSet, open_data
from ganrun.data.order import Order
from ganrun.data.stream import Stream
from ganrun.errors import DivergedError, RunError, UserError
from ganrun.evaluation.evaluator import Evaluation
from ganrun.evaluation.point_evaluator import PointEvaluation
from ganrun.evaluation.real_images import Reals
from ganrun.games.build import build_game
from ganrun.models.extractors import open_extractor
from ganrun.run_folder.layout import RunFolder
from ganrun.slots import Slots
from ganrun.storage import open_storage
from ganrun.telemetry.collapse import Suspicion
from ganrun.training import checkpoint
from ganrun.training.loop import train
from ganrun.training.player_step import has_bf16
from ganrun.training.state import Play
from ganrun.worker.channel import Line
from ganrun.worker.host import WorkerHost
from ganrun.worker.resume import Start, begin, config_now
from ganrun.worker.transitions import Change, Exploit, Leave, LeftError, Restart, Rollback, Turn

logger = logging.getLogger(__name__)


def work(
    config: Config,
    rank: int,
    workers: int,
    device: torch.device,
    line: Line,
    order: Exploit | None = None,
    restart: Restart | None = None,
) -> None:
    """Trains as one of `workers` until the run ends or is asked to stop, and tells the driver which.

    Args:
        config: of the run; with a `tune` section that of a trial.
        rank: of this worker.
        workers: how many there are.
        device: what it computes on.
        line: to the driver.
        order: of a trial, the exploit that it may not have behind it.
        restart: why workers were started anew, if they were; on rank 0.

    Raises:
        LeftError: the workers were to leave, and have saved.
        UserError: the data is damaged or not what the config says.
        RunError: the run cannot go on.
    """
    if device.type == "cpu":
        torch.set_num_threads(max(1, int(config.cluster.cpus_per_worker)))
    else:  # Workers of one machine see all its GPUs; NCCL and current_stream() mean this thread's.
        torch.cuda.set_device(device)
        torch.backends.cudnn.benchmark = True  # Rounds have the same shapes.
        torch.set_float32_matmul_precision("high")  # TF32, which convolutions have anyway.
    with _warnings_told(line) if rank == 0 else contextlib.nullcontext():
        if config.train.precision == "bf16" and not has_bf16(device):
            logger.warning(
                "train.precision: bf16, but this %s does not compute in it: float32 is used", device.type.upper()
            )
        place, slots = _place(config, line, restart), Slots(config.slots, rank, workers)
        change = _attempt(config, device, slots, place, order)
        while change:
            if isinstance(change, Leave):
                _part(workers)
            change = _attempt(config, device, slots, place, change)


def _part(workers: int) -> NoReturn:
    """Ends this worker when rank 0 has written everything: Ray ends all when the first one goes."""
    if workers > 1:
        dist.broadcast(torch.zeros(1), 0)
    raise LeftError


class _Place(NamedTuple):
    """What all attempts of a worker share."""

    folder: RunFolder
    data: DataSet
    evaluation: Evaluation | PointEvaluation | None
    line: Line
    restart: Restart | None


def _place(config: Config, line: Line, restart: Restart | None) -> _Place:
    patience = config.run.patience_seconds
    folder = RunFolder(open_storage(f"{config.run.storage}/{config.run.name}", patience))
    data = open_data(config.data.shards, patience)
    evaluation = _evaluation(config, data) if config.evaluate.every_images else None
    return _Place(folder, data, evaluation, line, restart)


def _attempt(config: Config, device: torch.device, slots: Slots, place: _Place, change: Change | None) -> Change | None:
    """From the newest checkpoint, a donor's, or from nothing, to an end, or to what begins another attempt.

    One after a change has nothing of the one before: it is made as one in a new process would be.
    """
    start, own, files = begin(place.folder, slots, change)
    if start.checkpoint and not files:
        files = checkpoint.read(
            open_storage(start.donor or place.folder.storage.uri), f"checkpoints/{start.checkpoint}"
        )
    exploit = change if isinstance(change, Exploit) and start.donor else None
    config = config_now(config, files, place.folder, exploit)
    play = Play(build_game(config, device), config, slots)
    unfit, progress = _restore(play, files), own
    if exploit:
        progress, play.generation = replace(own, exploit=exploit.number), start.generation
    play.generation = max(play.generation, start.generation)
    if isinstance(change, Rollback):
        play.suspicion = Suspicion()
    stream = _stream(play, place.data)
    host = WorkerHost(play, place.folder, stream, place.line, start.attempt, progress, place.evaluation)
    if host.first:
        _tell(host, start, unfit, change, place.restart)
    if exploit:
        host.save()  # Lest a crash brings back what was given up.
    try:
        finished = _train(play, host)
    except DivergedError as error:
        return Rollback(start.attempt, play.generation + 1, str(error))
    if host.change is None and host.first:
        place.line.say("finished" if finished else "stopped", images=play.images)
    return host.change


def _tell(host: WorkerHost, start: Start, unfit: list[str], change: Change | None, restart: Restart | None) -> None:
    """What begins, as an event and to the driver."""
    play, line = host.play, host.line
    if isinstance(change, Rollback):
        often = f"rollback {change.generation} of train.max_rollbacks: {play.config.train.max_rollbacks}"
        message = f"rolled back to {play.images:,} images ({often}), since {change.why}"
        host.tell("rollback", images=play.images, message=message, **start._asdict())
        return
    if isinstance(change, Turn):
        values = scheduled(play.config, play.images)
        host.tell("schedule", images=play.images, values=values, **start._asdict())
        return
    if change is None or change.attempt is None:
        _tell_of_start(host, start, restart)
    if isinstance(change, Exploit) and start.donor:
        host.tell("exploit", images=play.images, number=change.number, values=change.values, **start._asdict())
    if unfit:
        where = play.config.run.start_from
        host.event("start_from", where=where, unfit=unfit)
        line.say("note", text=f"run.start_from: {len(unfit)} tensors did not fit: {', '.join(unfit)}")


def _tell_of_start(host: WorkerHost, start: Start, restart: Restart | None) -> None:
    play, workers = host.play, host.play.slots.workers
    reason, before, why = restart or (None, None, None)
    about = {"images": play.images, "workers": workers, "before": before, "reason": reason}
    host.event("start", why=why, left_over=host.stream.order.left_over, **about, **start._asdict())
    if before not in (None, workers):
        message = f"{before} workers became {workers} at {play.images:,} images ({reason})"
        host.event("resize", message=message, **about)
    host.line.say("started", faults=start.damaged, exploit=host.progress.exploit, **about)


def _train(play: Play, host: WorkerHost) -> bool:
    """Plays to the end, whether that is the run's or one that was asked for, and waits for what is being written.

    Raises:
        DivergedError: it did, and may be rolled back.
    """
    try:
        finished = _play(play, host)
    except DivergedError:
        host.leave()
        raise
    except Exception as error:
        if isinstance(error, UserError | RunError):
            host.event("failed", images=play.images, message=str(error))
        with contextlib.suppress(RunError):  # A checkpoint that is under way is worth the wait; what went wrong, more.
            host.finish(None)
        raise
    finally:
        host.stream.close()
    if host.change is None:
        host.finish("finish" if finished else "stop")
    else:
        if isinstance(host.change, Turn):
            host.finish(None)  # The next attempt begins with this checkpoint, so it must be there.
        if isinstance(host.change, Leave) and host.first:
            message = f"{host.change.why}: the workers save at {play.images:,} images and start anew"
            host.tell("leave", images=play.images, reason=host.change.reason, message=message)
        host.leave()
    return finished


def _play(play: Play, host: WorkerHost) -> bool:
    """Plays; one that diverged and was rolled back often enough has failed."""
    try:
        return train(play, host.next_batches, host)
    except DivergedError as error:
        if play.generation < play.config.train.max_rollbacks:
            raise
        raise RunError(
            f"the run diverged: {error}; it was rolled back as often as train.max_rollbacks: "
            f"{play.config.train.max_rollbacks} allows; lower optimizer.*.learning_rate or choose another "
            "objective.loss, and run again from the last checkpoint"
        ) from error


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


def _restore(play: Play, files: checkpoint.Files) -> list[str]:
    """Puts the play where it left off, or gives it the weights of `run.start_from` and names what did not fit."""
    if files:
        checkpoint.restore(play, files)
    elif play.config.run.start_from:
        return checkpoint.begin_from(play, play.config.run.start_from)
    return []


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
