"""Rounds of a config's game on images in memory, and their number of floating-point operations."""

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from ganrun.config.run_spec import RunSpec
from ganrun.config.schema import ClusterConfig
from ganrun.data.decode import RawBatch
from ganrun.errors import UserError
from ganrun.slots import Slots
from ganrun.training.cuda_graph import CapturedRounds
from ganrun.training.cuda_segment import Segment
from ganrun.training.new_state import new_state
from ganrun.training.state import TrainingState

CPU = torch.device("cpu")
PRODUCTS = [
    f"aten::{name}" for name in ("convolution_backward", "mkldnn_convolution", "_convolution", "mm", "addmm", "bmm")
]
"""Matrix multiplications and convolutions, by the profiler's names; a transposed convolution is `_convolution`."""


def changed(spec: RunSpec, **changes: Any) -> RunSpec:
    """Return the run with other values, `train__precision="bf16"`."""
    for name, value in changes.items():
        section, _, key = name.partition("__")
        updated = getattr(spec, section).model_copy(update={key: value})
        spec = spec.model_copy(update={section: updated})
    return spec


def use_threads(cluster: ClusterConfig) -> None:
    """Set as many threads as a worker would compute with."""
    torch.set_num_threads(max(1, int(cluster.cpus_per_worker)))


def a_batch(spec: RunSpec, size: int) -> RawBatch:
    """Return noise for the images of all fields and for embeddings, and labels if there are classes."""
    data, classes = spec.data, spec.model.classes
    shapes = {name: data.shape(name) for name, field in data.fields.items() if field.kind in ("image", "point")}
    batch: RawBatch = {
        name: torch.randint(0, 256, (size, channels, pixels, pixels), dtype=torch.uint8)
        for name, (channels, pixels) in shapes.items()
    }
    embeddings = [name for name, field in data.fields.items() if field.kind == "embedding"]
    batch |= {name: torch.randn(size, 1, spec.objective.text.size) for name in embeddings}
    if classes:
        batch["label"] = torch.arange(size) % classes
    return batch


def device_of(cluster: ClusterConfig) -> torch.device:
    """Return the device that a worker computes on.

    Raises:
        UserError: it is a GPU, and this machine has none.
    """
    if not cluster.gpus_per_worker:
        return CPU
    if not torch.cuda.is_available():
        raise UserError("cluster.gpus_per_worker: 1, but this machine has no GPU; set it to 0")
    return torch.device("cuda", 0)


def placed(batch: RawBatch, device: torch.device) -> RawBatch:
    """Return a batch on a device."""
    return {name: value.to(device) if isinstance(value, Tensor) else value for name, value in batch.items()}


def waiting(device: torch.device) -> Callable[[], None]:
    """Return a function that waits until a device has done all that it was given."""
    return torch.cuda.synchronize if device.type == "cuda" else lambda: None


def rounds(
    spec: RunSpec,
    slots: Slots | None = None,
    state: TrainingState | None = None,
    device: torch.device = CPU,
    tell: Callable[[str], None] = lambda text: None,
    segment: Callable[[], Segment] | None = None,
) -> tuple[TrainingState, Callable[[], None]]:
    """Return a training state and a function that plays a round as a worker does: captured on a GPU.

    Args:
        spec: the run.
        slots: those of this process; None: one.
        state: the state; None: a new one.
        device: where the images are, too.
        tell: called with a line about the capture.
        segment: makes a segment of captured rounds; None: CUDA graphs.
    """
    slots = slots or Slots(1)
    state = state or new_state(spec, device, slots)
    if spec.train.capture != "off" and (segment or device.type == "cuda"):
        state.play_round = CapturedRounds(state, spec.train.capture, tell, segment).play
    batches = [placed(a_batch(spec, spec.data.batch_size // slots.total), device) for _ in slots.owned]
    return state, lambda: state.round(lambda: batches)


def flops(step: Callable[[], object]) -> float:
    """Count the floating-point operations of a step."""
    with FlopCounterMode(display=False) as counter:
        step()
    return float(counter.get_total_flops())


def product_share(step: Callable[[], object]) -> float:
    """Return the share of a step's time in convolutions and matrix products, as PyTorch computes them here."""
    with profile(activities=[ProfilerActivity.CPU]) as trace:
        step()
    spent = {each.key: each.self_cpu_time_total for each in trace.key_averages()}
    return float(sum(spent.get(name, 0) for name in PRODUCTS) / sum(spent.values()))


def peak_flops(size: int = 1024, repeats: int = 10) -> float:
    """Return FLOP/s of a float32 matrix product, as a product or as a 1x1 convolution, whichever is faster."""
    a, b = torch.randn(size, size), torch.randn(size, size)
    image, kernel = torch.randn(1, size, 32, 32).to(memory_format=torch.channels_last), torch.randn(size, size, 1, 1)
    best = float("inf")
    products: list[Callable[[], Tensor]] = [lambda: a @ b, lambda: torch.conv2d(image, kernel)]
    for product in products:
        for _ in range(repeats):
            begun = time.perf_counter()
            product()
            best = min(best, time.perf_counter() - begun)
    return 2 * size**3 / best
