"""One worker of a run, from config to end. Needs a process group if there are several workers; knows no Ray."""

import contextlib
import logging
import traceback
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple, NoReturn

import torch
import torch.distributed as dist

from ganrun.config.imports import describe, import_modules, place_of
from ganrun.config.load import check_names
from ganrun.config.run_spec import RunSpec
from ganrun.config.tunable import scheduled
from ganrun.data.cache import open_cache
from ganrun.data.index import DataSet, open_data
from ganrun.data.order import Order
from ganrun.data.scored import open_scored
from ganrun.data.stream import Stream
from ganrun.errors import PROGRAM_FAULTS, DivergedError, RunError, UserError
from ganrun.evaluation.evaluator import Evaluator
from ganrun.evaluation.paired_samples import PairedSamples, open_pairs
from ganrun.evaluation.point_evaluator import PointEvaluator
from ganrun.evaluation.real_images import RealImages
from ganrun.evaluation.score import build_scores
from ganrun.games.build import condition_of
from ganrun.games.game import Game
from ganrun.models.extractors import open_extractor
from ganrun.run_folder.run_folder import RunFolder
from ganrun.slots import Slots
from ganrun.storage import open_storage
from ganrun.telemetry import messages, records
from ganrun.training.collapse import CollapseDetector
from ganrun.training.cuda_graph import captured_rounds
from ganrun.training.loop import train
from ganrun.training.new_state import new_state
from ganrun.training.player_step import has_bf16
from ganrun.training.state import TrainingState
from ganrun.worker.channel import Channel, warnings_to_channel
from ganrun.worker.flight_recorder import move_records, recorded
from ganrun.worker.gpus import use_gpu, warn_of_mixed_gpus
from ganrun.worker.host import WorkerHost
from ganrun.worker.initialise import initialise
from ganrun.worker.resume import AttemptStart, begin_attempt, current_config, load_first_weights
from ganrun.worker.transitions import Drain, DrainedError, Rollback, ScheduleStep, Transition

logger = logging.getLogger(__name__)


def run_worker(
    config: RunSpec,
    rank: int,
    workers: int,
    device: torch.device,
    channel: Channel,
    command: messages.Exploit | None = None,
    restart: messages.Restart | None = None,
) -> None:
    """Train as one of `workers` until the run ends or is asked to stop, and report which to the driver.

    Args:
        config: the resolved run; with a `tune` section, that of a trial.
        rank: rank of this worker.
        workers: number of workers.
        device: device of the networks.
        channel: channel to the driver.
        command: pending exploit of a trial; ignored if its checkpoint includes it.
        restart: reason of a restart of the workers, on rank 0; None for the first start.

    Raises:
        DrainedError: the workers were drained, and have saved.
        UserError: the data is corrupt or does not match the config.
        RunError: the run cannot continue.
    """
    if device.type == "cpu":
        torch.set_num_threads(max(1, int(config.cluster.cpus_per_worker)))
    else:
        use_gpu(device)
    with warnings_to_channel(channel) if rank == 0 else contextlib.nullcontext():
        if config.train.precision == "bf16" and not has_bf16(device):
            logger.warning(
                "train.precision: bf16, but this %s does not compute in it: float32 is used", device.type.upper()
            )
        setup, slots = _set_up(config, channel, restart), Slots(config.slots, rank, workers)
        warn_of_mixed_gpus(device, slots)
        transition = _attempt(config, device, slots, setup, command)
        while transition:
            if isinstance(transition, Drain):
                _exit_drained(workers)
            transition = _attempt(config, device, slots, setup, transition)


def _exit_drained(workers: int) -> NoReturn:
    """Exit this worker once rank 0 has written everything: Ray ends all workers when the first one exits."""
    if workers > 1:
        dist.broadcast(torch.zeros(1), 0)
    raise DrainedError


class _Setup(NamedTuple):
    """Objects shared by all attempts of a worker."""

    folder: RunFolder
    data: DataSet
    """The samples that are trained on."""
    evaluator: Evaluator | PointEvaluator | None
    pairs: PairedSamples | None
    channel: Channel
    restart: messages.Restart | None

    def initialiser(self, config: RunSpec, slots: Slots, device: torch.device, begun: bool) -> Callable[[Game], None]:
        """Return the function that sets weights by data; it does nothing in a run that has begun."""
        about = (config.data, config.objective.target, config.run.seed, self.data, slots, device)
        return lambda game: None if begun else initialise(game, *about)


def _set_up(config: RunSpec, channel: Channel, restart: messages.Restart | None) -> _Setup:
    import_modules(config.run.imports)
    check_names(config)
    patience = config.run.patience_seconds
    folder = RunFolder(open_storage(config.run.uri, patience))
    data = open_data(config.data.shards, patience, crop=config.data.crop)
    evaluator = _open_evaluator(config, data) if config.evaluate.every_images else None
    pairs = open_pairs(condition_of(config), data, config.objective, config.data, config.evaluate, patience)
    trained_on = data.trained_on(config.evaluate.held_out_share, config.data.mirror)
    return _Setup(folder, trained_on, evaluator, pairs, channel, restart)


def _attempt(
    config: RunSpec, device: torch.device, slots: Slots, setup: _Setup, transition: Transition | None
) -> Transition | None:
    """Run one attempt: resume from a checkpoint or begin, train, and return the transition to the next attempt, if any.

    An attempt after a transition keeps no state of the one before: it is built as in a new process.
    """
    start, progress, snapshot = begin_attempt(setup.folder, slots, device, transition)
    exploit = transition if isinstance(transition, messages.Exploit) and start.donor else None
    config = current_config(config, snapshot, setup.folder, exploit)
    state = new_state(config, device, slots, setup.initialiser(config, slots, device, begun=snapshot is not None))
    if snapshot:
        state.load_state_dict(snapshot.state)
    unfit = [] if snapshot else load_first_weights(state, config.run.start_from, config.objective.of)
    del snapshot  # Its tensors are copied.
    if exploit:
        progress, state.rollback_count = replace(progress, exploit=exploit.number), start.rollback_count
    state.rollback_count = max(state.rollback_count, start.rollback_count)
    if isinstance(transition, Rollback):
        state.collapse_detector = CollapseDetector()
    stream = _open_stream(config, state, setup.data)
    parts = (setup.evaluator, setup.pairs)
    host = WorkerHost(config, state, setup.folder, stream, setup.channel, start.attempt, progress, *parts)
    if host.is_rank_0:
        _report_start(host, start, unfit, transition, setup.restart)
    if exploit:
        host.save()  # So that a crash does not bring back the discarded state.
    tell = (lambda text: setup.channel.send(messages.Note(text))) if host.is_rank_0 else lambda text: None
    move_records(setup.folder, start.attempt)
    try:
        with captured_rounds(state, config.train.capture, tell), recorded(setup.folder, start.attempt, slots.rank):
            finished = _train(state, host)
    except DivergedError as error:
        return Rollback(start.attempt, state.rollback_count + 1, str(error))
    if host.transition is None and host.is_rank_0:
        setup.channel.send((messages.Finished if finished else messages.Stopped)(state.images))
    return host.transition


def _report_start(
    host: WorkerHost,
    start: AttemptStart,
    unfit: list[str],
    transition: Transition | None,
    restart: messages.Restart | None,
) -> None:
    """Report the start of the attempt in the events and to the driver."""
    state, begun = host.state, {"images": host.state.images, **start._asdict()}
    if isinstance(transition, Rollback):
        often = f"rollback {transition.rollback_count} of train.max_rollbacks: {state.train.max_rollbacks}"
        message = f"rolled back to {state.images:,} images ({often}), since {transition.why}"
        host.emit_event(records.RolledBack(message=message, **begun))
        return
    if isinstance(transition, ScheduleStep):
        host.emit_event(records.ScheduleStepped(values=scheduled(host.spec, state.images), **begun))
        return
    if transition is None or transition.attempt is None:
        _report_worker_start(host, start, restart)
    if isinstance(transition, messages.Exploit) and start.donor:
        host.emit_event(records.Exploited(number=transition.number, values=transition.values, **begun))
    if unfit:
        host.log_event(records.WeightsUnfit(where=str(host.spec.run.start_from), unfit=unfit))
        text = f"run.start_from: {len(unfit)} tensors did not fit: {', '.join(unfit)}"
        host.channel.send(messages.Note(text))


def _report_worker_start(host: WorkerHost, start: AttemptStart, restart: messages.Restart | None) -> None:
    images, workers = host.state.images, host.state.slots.workers
    before, reason, why = (restart.workers or None, restart.reason, restart.why) if restart else (None, None, None)
    about: dict[str, Any] = {"images": images, "workers": workers, "before": before, "reason": reason}
    failures, left_over = restart.failures if restart else 0, host.stream.order.left_over
    started = records.AttemptStarted(why=why, left_over=left_over, failures=failures, **about, **start._asdict())
    host.log_event(started)
    if before not in (None, workers):
        message = f"{before} workers became {workers} at {images:,} images ({reason})"
        host.log_event(records.Resized(message=message, **about))
    exploit = host.progress.exploit
    host.channel.send(messages.WorkersStarted(faults=start.damaged, exploit=exploit, failures=failures, **about))


def _train(state: TrainingState, host: WorkerHost) -> bool:
    """Train until the run ends or this attempt does, and wait for pending writes.

    Raises:
        DivergedError: the run diverged and may be rolled back.
    """
    first_round = state.images + state.round_images
    try:
        finished = _train_or_fail(state, host)
    except DivergedError:
        host.end_attempt()
        raise
    except Exception as error:
        fault = _named(error, host, first=state.images <= first_round)
        if isinstance(fault, UserError | RunError):
            trace = "" if fault is error else traceback.format_exc()
            host.log_event(records.RunFailed(images=state.images, message=str(fault), traceback=trace))
        with contextlib.suppress(RunError):  # Raise the original error.
            host.end_attempt(failed=True)
        if fault is error:
            raise
        raise fault from error
    finally:
        host.stream.close()
    if host.transition is None:
        host.finish(records.RunFinished if finished else records.RunStopped)
    else:
        if isinstance(host.transition, ScheduleStep):
            host.finish(None)  # The next attempt resumes from this checkpoint.
        if isinstance(host.transition, Drain) and host.is_rank_0:
            message = f"{host.transition.why}: the workers save at {state.images:,} images and restart"
            reason = host.transition.reason
            host.emit_event(records.DrainBegun(images=state.images, reason=reason, message=message))
        host.end_attempt()
    return finished


def _train_or_fail(state: TrainingState, host: WorkerHost) -> bool:
    """Train. A run that diverges after `train.max_rollbacks` rollbacks fails."""
    try:
        return train(state, host.next_batches, host, host.spec.evaluate, host.spec.checkpoint)
    except DivergedError as error:
        if state.rollback_count < state.train.max_rollbacks:
            raise
        raise RunError(
            f"the run diverged: {error}; it was rolled back as often as train.max_rollbacks: "
            f"{state.train.max_rollbacks} allows; lower optimizer.*.learning_rate, or for a GAN choose another "
            "objective.loss, and run again from the last checkpoint"
        ) from error


def _named(error: Exception, host: WorkerHost, first: bool) -> Exception:
    """Return an error of the user's own code as one that names the place; any other error as it is.

    Args:
        error: the error.
        host: of the loop that it ended.
        first: it was in the first round, in which an error such as that of unfit shapes is one of the code.
    """
    imports, objective, model = host.spec.run.imports, host.spec.objective, host.spec.model
    if isinstance(error, UserError | RunError | OSError) or not place_of(error, imports):
        return error
    text = f"objective.game={objective.game} model.name={model.name}: {describe(error, imports)}"
    if isinstance(error, PROGRAM_FAULTS) or (first and type(error) in (RuntimeError, ValueError)):
        return UserError(f"{text}; its traceback is in {host.folder.storage.uri}/events/{host.attempt:04d}.jsonl")
    return RuntimeError(text)  # Perhaps of the machine, so that Ray restarts the workers.


def _open_stream(config: RunSpec, state: TrainingState, data: DataSet) -> Stream:
    """Open the stream of batches at the position of the training state."""
    slots = state.slots
    order = Order(data.sizes, slots.total, config.run.seed, config.data.shuffle_shards)
    cache = open_cache(config.data.cache_mib)
    decoders = max(2, int(config.cluster.cpus_per_worker))
    return Stream(data, config.data, order, slots.owned, state.images, state.device, cache, decoders)


def _open_evaluator(config: RunSpec, data: DataSet) -> Evaluator | PointEvaluator:
    settings, kept = config.evaluate, open_storage(config.run.storage, config.run.patience_seconds)
    scores = build_scores(settings.metrics, settings)
    cache = open_cache(config.data.cache_mib)
    scored = open_scored(data, settings, settings.samples, config.run.patience_seconds)
    classes = data.index.classes if config.model.classes else None
    fields, target = config.data.fields, config.objective.target
    reals = RealImages(scored, settings.samples, fields, config.data.damaged_share, cache, classes, target)
    if config.target.kind == "point":
        return PointEvaluator(data.index, settings.samples, scores, kept, reals=reals)
    extractor = open_extractor(settings.extractor, settings.extractor_weights)
    return Evaluator(extractor, reals, settings.samples, scores, kept)
