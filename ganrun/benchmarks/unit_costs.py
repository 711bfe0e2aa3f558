"""What one round, one sample, one checkpoint, one tick of a run take: counted on this machine, in two processes over
gloo where several workers are needed. The figures do not depend on how fast the machine is, but for the CPU seconds."""

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
from torch.nn.parallel import DistributedDataParallel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from ganrun.config.run_spec import RunSpec
from ganrun.config.schema import DataConfig
from ganrun.data.decode import Decoder, RawBatch
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
"""Enough to count by: what is summed does not depend on the batch, and operations are counted by the image."""


class Round(NamedTuple):
    """A round as one of two ranks sees it, which own a slot each."""

    gradient_bytes: dict[str, int]
    """Summed over ranks in each of a player's turns."""
    turns: dict[str, int]
    """Of each player in a round."""
    fresh_turns: int
    """Those that take a batch of their own."""
    norm_bytes: int
    """Of batch normalisation, a slot's row of the table that is summed once a round."""
    sums: int
    """All-reduces in a round."""
    flops: float
    """Floating-point operations for an image of each batch."""
    operations: int
    """Tensors computed, each a launch on a GPU."""
    tick_bytes: int
    """A slot's row of the table that is summed at a tick."""


class Stored(NamedTuple):
    """What goes to the storage of a run; requests are None where that is a folder."""

    checkpoint_bytes: int
    checkpoint_requests: int | None
    """With the pointer, and the deletion of the oldest."""
    resume_requests: int | None
    """Of rank 0, which begins an attempt and reads the newest checkpoint. Other ranks make none."""
    renewal_requests: int | None
    """Of the lease."""


class PushedState(NamedTuple):
    """What a run with so many workers shows of itself."""

    series: int
    push_bytes: int


def small(spec: RunSpec, slots: int = 1) -> RunSpec:
    """The same networks over a batch of a few images a slot."""
    data = spec.data.model_copy(update={"batch_size": slots * SLOT_IMAGES, "slots": slots})
    precision = "float64" if spec.train.precision == "float64" else "float32"  # bf16 has float32 gradients too.
    train = spec.train.model_copy(update={"precision": precision})
    return spec.model_copy(update={"data": data, "train": train})


def count_round(spec: RunSpec) -> Round:
    """Plays the second round of two ranks over gloo, and counts in the hook that DistributedDataParallel calls with
    each of its buckets."""
    with tempfile.TemporaryDirectory() as folder:
        spawn(_rank, (small(spec, RANKS), folder), nprocs=RANKS)  # type: ignore[no-untyped-call]
        return Round(**json.loads(Path(folder, "found").read_text()))


def count_stored(spec: RunSpec, state: TrainingState) -> Stored:
    """Writes checkpoints to a folder of their own in `run.storage`, which is deleted after."""
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
            size = checkpoint.write(folder, name, files, {})
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
    """What the driver of so many workers, each with a GPU, pushes after a tick."""
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
    """CPU seconds of fetching, checking, walking and decoding a sample, over one shard."""
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
    """The training state of a `small` config after a round, so that its optimizers have their moments."""
    state = new_state(spec, torch.device("cpu"), slots)
    _round(state, spec.data, spec.model.classes)
    return state


def _round(state: TrainingState, data: DataConfig, classes: int) -> None:
    owned = len(state.slots.owned)
    shape = (SLOT_IMAGES, data.channels, data.image_size, data.image_size)
    points = data.fields["image"].kind == "point"
    image = torch.zeros(SLOT_IMAGES, data.channels) if points else torch.randint(0, 256, shape, dtype=torch.uint8)
    batch: RawBatch = {"image": image}
    if classes:
        batch["label"] = torch.arange(SLOT_IMAGES) % classes
    state.round(lambda: [batch] * owned)


def _rank(rank: int, spec: RunSpec, folder: str) -> None:
    """What each of the two processes does."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=RANKS)
    slots = _Counting(RANKS, rank, RANKS)
    state = played(spec, slots)  # In the first round DistributedDataParallel has not made its buckets yet.
    gradients, buckets = Counter[str](), Counter[str]()
    for player_step in state.player_steps:
        assert isinstance(player_step.module, DistributedDataParallel)
        player_step.module.register_comm_hook(None, _hook(player_step.player.name, gradients, buckets))
    slots.gathered.clear()
    with _Operations() as operations:  # type: ignore[no-untyped-call]
        _round(state, spec.data, spec.model.classes)
    turns = {player_step.player.name: player_step.player.turns for player_step in state.player_steps}
    norms, sums = sum(slots.gathered), len(slots.gathered) + buckets.total()
    slots.gathered.clear()
    state.recorder.read()
    found = Round(
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
    if rank == 0:
        Path(folder, "found").write_text(json.dumps(found._asdict()))
    dist.destroy_process_group()


def _hook(player: str, gradients: Counter[str], buckets: Counter[str]) -> Any:
    def hook(_: object, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:  # type: ignore[name-defined]
        gradients[player] += bucket.buffer().nbytes
        buckets[player] += 1
        return allreduce_hook(dist.distributed_c10d._get_default_group(), bucket)

    return hook


class _Counting(Slots):
    """Slots that note the bytes of a row of each table that is gathered."""

    @property
    def gathered(self) -> list[int]:
        return self.__dict__.setdefault("_gathered", [])  # type: ignore[no-any-return]

    def gather(self, rows: Tensor) -> Tensor:
        self.gathered.append(rows.nbytes // len(rows))
        return super().gather(rows)


class _Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts what computes or moves something; what only looks at the same memory otherwise costs no launch.

    And floating-point operations, by torch's formulas; its own counter does not bear `autograd.grad` in a forward pass.
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
