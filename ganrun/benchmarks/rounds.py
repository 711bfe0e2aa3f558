"""Rounds of a config's game on images in memory, and how much there is to compute in one."""

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from ganrun.config.schema import Config
from ganrun.data.decode import RawBatch
from ganrun.games.build import build_game
from ganrun.slots import Slots
from ganrun.training.state import TrainingState

PRODUCTS = [
    f"aten::{name}" for name in ("convolution_backward", "mkldnn_convolution", "_convolution", "mm", "addmm", "bmm")
]
"""Operations that multiply matrices, by the profiler's names; a transposed convolution is `_convolution` itself."""


def changed(config: Config, **changes: Any) -> Config:
    """The config with other values, `train__precision="bf16"`."""
    for name, value in changes.items():
        section, _, key = name.partition("__")
        updated = getattr(config, section).model_copy(update={key: value})
        config = config.model_copy(update={section: updated})
    return config


def use_threads(config: Config) -> None:
    """As many as a worker would compute with."""
    torch.set_num_threads(max(1, int(config.cluster.cpus_per_worker)))


def a_batch(config: Config, size: int) -> RawBatch:
    """Noise for images, and labels if the game has them."""
    data = config.data
    images = torch.randint(0, 256, (size, data.channels, data.image_size, data.image_size), dtype=torch.uint8)
    batch: RawBatch = {"image": images}
    if config.model.classes:
        batch["label"] = torch.arange(size) % config.model.classes
    return batch


def rounds(config: Config, slots: Slots | None = None) -> tuple[TrainingState, Callable[[], None]]:
    """A game, and what plays a round of it; on one slot if not said otherwise."""
    slots = slots or Slots(1)
    state = TrainingState(build_game(config, torch.device("cpu")), config, slots)
    batches = [a_batch(config, config.data.batch_size // slots.total) for _ in slots.owned]
    return state, lambda: state.round(lambda: batches)


def flops(step: Callable[[], object]) -> float:
    """Floating-point operations of a step."""
    with FlopCounterMode(display=False) as counter:
        step()
    return float(counter.get_total_flops())


def product_share(step: Callable[[], object]) -> float:
    """The share of a step's time that its convolutions and matrix products take, as PyTorch computes them here."""
    with profile(activities=[ProfilerActivity.CPU]) as trace:
        step()
    spent = {each.key: each.self_cpu_time_total for each in trace.key_averages()}
    return float(sum(spent.get(name, 0) for name in PRODUCTS) / sum(spent.values()))


def peak_flops(size: int = 1024, repeats: int = 10) -> float:
    """Floating-point operations a second of a float32 matrix product, by the faster of the machine's two libraries:
    a product as such, and as a 1x1 convolution, which is what networks here are made of."""
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
