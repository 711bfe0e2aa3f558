"""Cost of one round, sample, checkpoint and tick of a run, counted on this machine, in two processes over gloo where
several workers are needed. Only the CPU seconds depend on the speed of the machine."""

import json
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.multiprocessing.spawn import spawn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from ganrun.benchmarks.rounds import a_batch
from ganrun.config.run_spec import RunSpec
from ganrun.config.schema import DataConfig
from ganrun.data.decode import Decoder
from ganrun.data.fetch import Fetcher
from ganrun.data.index import DataSet
from ganrun.run_folder.lease import Lease
from ganrun.run_folder.run_folder import Pointer, RunFolder
from ganrun.slots import Slots
from ganrun.storage import Storage, open_storage
from ganrun.telemetry.messages import Tick, WorkersStarted
from ganrun.telemetry.run_report import to_json
from ganrun.telemetry.series import GPU_MEMORY_BYTES, LEARNING_RATE, RANK_ROUND_SECONDS
from ganrun.telemetry.state import RunHistory, RunState
from ganrun.training import checkpoint
from ganrun.training.checkpoint import RunProgress, take_snapshot
from ganrun.training.new_state import new_state
from ganrun.training.state import TrainingState
from ganrun.worker.resume import begin_attempt

RANKS, SLOT_IMAGES, DECODED_TOGETHER = 2, 2, 64
"""Images that suffice: all-reduced bytes do not depend on the batch, and operations are counted per image."""


class Round(NamedTuple):
    """Costs of a round for one of two ranks with one slot each."""

    gradient_bytes: dict[str, int]
    """Bytes all-reduced in each turn, by player."""
    turns: dict[str, int]
    """Turns per round, by player."""
    fresh_turns: int
    """Players that take a fresh batch."""
    norm_bytes: int
    """Bytes of batch-norm statistics per slot, gathered once per round."""
    sums: int
    """All-reduces per round."""
    flops: float
    """Floating-point operations per image of a batch."""
    operations: int
    """Operations that compute a tensor: launches on a GPU."""
    tick_bytes: int
    """Bytes of metric sums per slot, gathered at a tick."""


class Stored(NamedTuple):
    """Costs of storage; requests are None for a folder."""

    checkpoint_bytes: int
    checkpoint_requests: int | None
    """Requests of a checkpoint, with moving the pointer and deleting the oldest."""
    resume_requests: int | None
    """Requests of rank 0 to begin an attempt and read the newest checkpoint; other ranks make none."""
    renewal_requests: int | None
    """Requests of a renewal of the lease."""


class PushedState(NamedTuple):
    """Telemetry of a run with `workers` workers."""

    series: int
    push_bytes: int


def small(spec: RunSpec, slots: int = 1) -> RunSpec:
    """Return the run with a few images per slot."""
    data = spec.data.model_copy(update={"batch_size": slots * SLOT_IMAGES, "slots": slots})
    precision = "float64" if spec.train.precision == "float64" else "float32"  # Gradients are float32 under bf16 too.
    train = spec.train.model_copy(update={"precision": precision})
    return spec.model_copy(update={"data": data, "train": train})


def count_round(spec: RunSpec) -> Round:
    """Count the second round of two ranks over gloo, in the hook that DistributedDataParallel calls for each bucket."""
    with tempfile.TemporaryDirectory() as folder:
        spawn(_rank, (small(spec, RANKS), folder), nprocs=RANKS)  # type: ignore[no-untyped-call]
        return Round(**json.loads(Path(folder, "found").read_text()))


def count_stored(spec: RunSpec, state: TrainingState) -> Stored:
    """Count checkpoints written to a temporary folder in `run.storage`."""
    storage = open_storage(f"{spec.run.storage}/.bench-{uuid.uuid4().hex[:12]}")
    folder = RunFolder(storage)
    try:
        lease = Lease(storage, lambda: None)
        before = _requests(storage)
        lease._renew_once()
        renewal = _requests(storage) - before
        size = 0
        attempt = folder.begin_attempt()
        for number in range(spec.checkpoint.keep + 1):
            before = _requests(storage)
            name = f"{number:012d}-{attempt:04d}"
            files = take_snapshot(state.state_dict(), RunProgress(), spec.to_yaml()).files()
            size = checkpoint.write(folder, name, files, {"images": number})
            checkpoint.make_visible(folder, Pointer(name, number, attempt), best=False)
            checkpoint.delete_old(folder, spec.checkpoint.keep)
        written = _requests(storage) - before
        begin_attempt(folder, Slots(1), torch.device("cpu"), None)
        resumed = _requests(storage) - before - written
        lease.release()
    finally:
        open_storage(spec.run.storage).delete(storage.uri.rpartition("/")[2])
    return Stored(size, *((written, resumed, renewal) if storage.traffic else (None, None, None)))


def count_shown(spec: RunSpec, state: TrainingState, workers: Sequence[int]) -> dict[int, PushedState]:
    """Return the state that the driver of `workers` workers with a GPU each pushes after a tick."""
    values = state.recorder.read()[0] | {
        LEARNING_RATE.of(player_step.player.name): 1e-4 for player_step in state.player_steps
    }
    return {each: _shown(spec, values, each) for each in workers}


def _shown(spec: RunSpec, values: dict[str, float], workers: int) -> PushedState:
    state = RunState(spec.run, spec.train, spec.telemetry, RunHistory())
    for rank in range(workers):
        values = values | {RANK_ROUND_SECONDS.of(rank): 1 / (rank + 3), GPU_MEMORY_BYTES.of(rank): 2.0**33 + rank}
    state.handle(WorkersStarted(images=0, workers=workers))
    state.handle(Tick(1, values))
    report = state.report()
    return PushedState(len(report.series), len(to_json(report)))


def sample_seconds(settings: DataConfig, data: DataSet) -> float:
    """Return CPU seconds per sample of fetching, checking, opening and decoding one shard."""
    fields = [Decoder(name, field, data.index) for name, field in settings.fields.items()]
    begun = time.process_time()
    shard = max(range(len(data.index.shards)), key=lambda number: data.index.shards[number].samples)
    opened = Fetcher(data).request(shard).result()
    samples = [(opened, *sample) for sample in opened.samples]
    with ThreadPoolExecutor(1) as threads:
        for start in range(0, len(samples), DECODED_TOGETHER):
            for field in fields:
                field.batch(samples[start : start + DECODED_TOGETHER], threads, 1)
    return (time.process_time() - begun) / len(samples)


def played(spec: RunSpec, slots: Slots) -> TrainingState:
    """Return the training state of a `small` run after a round, so that its optimizers have moments."""
    state = new_state(spec, torch.device("cpu"), slots)
    _round(state, spec)
    return state


def _round(state: TrainingState, spec: RunSpec) -> None:
    batch = a_batch(spec, SLOT_IMAGES)
    state.round(lambda: [batch] * len(state.slots.owned))


def _rank(rank: int, spec: RunSpec, folder: str) -> None:
    """Count a round: the function of each of the two processes."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=RANKS)
    found = _count_of_rank(rank, spec)  # What uses the group is gone before the group: else the process may abort.
    if rank == 0:
        Path(folder, "found").write_text(json.dumps(found._asdict()))
    dist.barrier()
    dist.destroy_process_group()


def _count_of_rank(rank: int, spec: RunSpec) -> Round:
    slots = _Counting(RANKS, rank, RANKS)
    state = played(spec, slots)  # DistributedDataParallel builds its buckets in the first round.
    gradients, buckets = Counter[str](), Counter[str]()
    for player_step in state.player_steps:
        assert player_step.ddp is not None
        player_step.ddp.register_comm_hook(None, _hook(player_step.player.name, gradients, buckets))
    slots.gathered.clear()
    with _Operations() as operations:  # type: ignore[no-untyped-call]
        _round(state, spec)
    turns = {player_step.player.name: player_step.player.turns for player_step in state.player_steps}
    norms, sums = sum(slots.gathered), len(slots.gathered) + buckets.total()
    slots.gathered.clear()
    state.recorder.read()
    return Round(
        gradient_bytes={name: gradients[name] // turns[name] for name in turns},
        turns=turns,
        fresh_turns=sum(
            player_step.player.turns for player_step in state.player_steps if player_step.player.fresh_batch
        ),
        norm_bytes=norms,
        sums=sums,
        flops=operations.flops / SLOT_IMAGES,
        operations=operations.count,
        tick_bytes=sum(slots.gathered),
    )


def _hook(player: str, gradients: Counter[str], buckets: Counter[str]) -> Any:
    def hook(_: object, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:  # type: ignore[name-defined]
        gradients[player] += bucket.buffer().nbytes
        buckets[player] += 1
        return allreduce_hook(dist.distributed_c10d._get_default_group(), bucket)

    return hook


class _Counting(Slots):
    """Slots that record the bytes of a row of each gathered table."""

    @property
    def gathered(self) -> list[int]:
        return self.__dict__.setdefault("_gathered", [])  # type: ignore[no-any-return]

    def table(self, rows: Tensor) -> Tensor:
        self.gathered.append(rows.nbytes // len(rows))
        return super().table(rows)


class _Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counter of operations that compute or copy; views cost no launch.

    It also counts floating-point operations, by torch's formulas: torch's counter fails with `autograd.grad` in a
    forward pass.
    """

    count, flops = 0, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        view = any(each.alias_info for each in func._schema.returns) and not func._schema.is_mutable
        self.count += not view
        if formula := flop_registry.get(func._overloadpacket):
            self.flops += formula(*args, **(kwargs or {}), out_val=found)
        return found


def _requests(storage: Storage) -> int:
    return storage.traffic.requests if storage.traffic else 0
