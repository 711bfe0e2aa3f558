"""Shared parts of the checks of smoke.py: rows of its table, small runs, comparisons."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn

from ganrun.benchmarks.comparison import rate
from ganrun.benchmarks.rounds import waiting
from ganrun.config.load import load_config
from ganrun.config.schema import Config
from ganrun.data.index import open_data
from ganrun.data.order import Order
from ganrun.data.stream import Stream
from ganrun.models.normalization import SlotBatchNorm2d
from ganrun.slots import Slots
from ganrun.training.new_state import new_state
from ganrun.training.state import TrainingState

CONFIG = Path(__file__).parent.parent / "configs/quickstart.yaml"
SLOTS = 2 ** max(1, torch.cuda.device_count().bit_length() - 1)
"""At least two; with several GPUs as many as the largest power of two of them."""
ROUNDS, SECONDS = 5, 1.0
CPU = torch.device("cpu")
EXACT, ROUNDED, HALF = 1e-6, 1e-3, 5e-2
"""Tolerances relative to the largest value: float64 summed in another order, float32 likewise, bf16."""


class Row(NamedTuple):
    """Row of the table: check, result, verdict (same, DIFFERS, FAILED, skipped: REASON or empty)."""

    what: str
    found: str
    verdict: str


class SkippedError(Exception):
    """The check cannot run on this machine. The message says why."""


def need_cuda() -> int:
    """Return the number of CUDA devices.

    Raises:
        SkippedError: there is none.
    """
    if not torch.cuda.is_available():
        raise SkippedError("no CUDA device")
    return torch.cuda.device_count()


def settings(precision: str) -> Config:
    """Return the quickstart config; smaller without CUDA."""
    changes = [] if torch.cuda.is_available() else ["model.width=16", "data.batch_size=16"]
    return load_config(CONFIG, [f"data.slots={SLOTS}", f"train.precision={precision}", *changes])


def state_of(precision: str, device: torch.device) -> TrainingState:
    """Return a training state with all slots on one device."""
    return new_state(settings(precision), device, Slots(1))


def stream(config: Config, slots: Slots, device: torch.device) -> Stream:
    """Open the stream of real batches of a rank's slots."""
    data = open_data(config.data.shards)
    order = Order(
        tuple(shard.samples for shard in data.index.shards), SLOTS, config.run.seed, config.data.shuffle_shards
    )
    return Stream(data, config.data, order, slots.owned, 0, device)


def trained(count: int, kind: str) -> list[Tensor]:
    """Return the weights after 5 rounds in float64 on `count` ranks."""
    with tempfile.TemporaryDirectory() as folder:
        if count == 1:
            train(0, 1, kind, folder)
        else:
            spawn(train, (count, kind, folder), nprocs=count)
        return list(load_file(Path(folder, "weights")).values())


def train(rank: int, count: int, kind: str, folder: str) -> None:
    """Train as one rank; rank 0 saves the weights to `folder`."""
    config, slots = settings("float64"), Slots(SLOTS, rank, count)
    device = torch.device("cuda", rank % torch.cuda.device_count()) if kind == "cuda" else CPU
    if kind == "cuda":
        torch.cuda.set_device(device)
    if kind == "cuda" and count > torch.cuda.device_count():
        os.environ["NCCL_MULTI_RANK_GPU_ENABLE"] = "1"
    if count > 1:
        backend = "cpu:gloo,cuda:nccl" if kind == "cuda" else "gloo"
        dist.init_process_group(backend, init_method=f"file://{folder}/rendezvous", rank=rank, world_size=count)
    state, batches = new_state(config, device, slots), stream(config, slots, device)
    for _ in range(ROUNDS):
        state.round(batches.next)
    batches.close()
    if rank == 0:
        networks = state.game.networks.items()
        weights = {
            f"{n}.{key}": value.cpu().contiguous() for n, net in networks for key, value in net.state_dict().items()
        }
        save_file(weights, Path(folder, "weights"))
    if count > 1:
        dist.destroy_process_group()


def batch_of(state: TrainingState) -> dict[str, Tensor | list[str]]:
    """Return a random global batch, uint8 [B, C, S, S], on the device of the state."""
    data, random = settings("float32").data, torch.Generator().manual_seed(0)
    shape = (data.batch_size, data.channels, data.image_size, data.image_size)
    return {"image": torch.randint(0, 256, shape, dtype=torch.uint8, generator=random).to(state.device)}


def losses_of(state: TrainingState) -> list[Tensor]:
    """Return the losses of three rounds, a tensor for each."""
    batch, found = batch_of(state), []
    for _ in range(3):
        state.round(lambda: [batch])
        values, _ = state.recorder.read()
        found.append(torch.tensor([value for name, value in values.items() if name.startswith("loss/")]))
    return found


def gradients(network: nn.Module, inputs: Tensor) -> list[Tensor]:
    """Return the output and the gradients of its mean square."""
    network.zero_grad(set_to_none=True)
    output = network(inputs, None)
    output.square().mean().backward()
    for module in network.modules():
        if isinstance(module, SlotBatchNorm2d):
            module.take_batch_stats(1)  # As after a round: torch.compile recompiles if the record grows.
    return [output.detach(), *(p.grad.clone() for p in network.parameters() if p.grad is not None)]


def same(what: str, of: str, one: list[Tensor], other: list[Tensor], limit: float) -> Row:
    """Compare lists of tensors by their largest difference, relative to the largest value."""
    pairs = [(a.double().cpu(), b.double().cpu()) for a, b in zip(one, other, strict=True)]
    most = max(float((a - b).abs().max()) for a, b in pairs)
    share = most / max(float(b.abs().max()) for _, b in pairs)
    return Row(what, f"{of}: {share:.1e} (at most {limit:.0e})", "same" if share <= limit else "DIFFERS")


def per_second(call: Callable[[], object], device: torch.device) -> float:
    """Measure calls per second over at least `SECONDS`, after two warm-up calls."""
    for _ in range(2):
        call()
    return rate(call, 1, SECONDS, waiting(device))
