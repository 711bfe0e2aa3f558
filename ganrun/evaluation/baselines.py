"""Trivial answers to the conditions of a run, scored as its generator is: what a run must beat.

Those of the condition itself, such as `input`, and two of the training data: `mean`, the mean real image, and
`nearest`, the real image of the training sample whose condition is nearest. Of points `mean` fills a missing number
with the mean of the known ones of its column. Numbers of a baseline are columns `SCORE@BASELINE`.

Shapes: M scored samples, B of a chunk, N pixels of the pictures of a condition.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional as F

from ganrun.evaluation.feature_statistics import to_uint8
from ganrun.evaluation.generated_images import BATCH, GeneratedImages, ScoredImages
from ganrun.evaluation.paired_samples import TRAINING_SAMPLES, PairedSamples
from ganrun.evaluation.ranks import place_in
from ganrun.evaluation.reference_statistics import read_kept, write_kept
from ganrun.models.given import Given
from ganrun.rng import KeyedNoise
from ganrun.storage import Storage

SEARCH_SIZE = 64
"""Pixels a side at which conditions are compared; larger pictures are averaged down to it."""


@dataclass(frozen=True, kw_only=True)
class BaselineImages(GeneratedImages):
    """Answers of a baseline by number, to the conditions of generated images.

    Attributes:
        answer: (start, condition, count) -> images [count, C, H, W] in [-1, 1].
    """

    answer: Callable[[int, Given, int], Tensor]

    @torch.inference_mode()
    def answered(self, start: int, given: Given, count: int, noise: KeyedNoise) -> Tensor:
        """Return the answers to a condition, [count, C, H, W] in [-1, 1]; their numbers begin at `start`."""
        return self.answer(start, given, count)


def baselines(
    generated: ScoredImages, samples: int, group: dist.ProcessGroup | None = None
) -> dict[str, BaselineImages]:
    """Return the baselines of a run by name; none if no real image belongs to a generated one. Collective."""
    if not isinstance(generated, GeneratedImages) or generated.pairs is None:
        return {}
    condition, training = generated.game.condition, generated.pairs.training
    answers = {name: _of_given(each) for name, each in condition.baselines.items()}
    if training is not None and training.of_points:
        answers["mean"] = _means_of_columns(generated, training)
    elif training is not None and (names := _of_data(generated)):
        mean, nearest = _training_answers(generated, training, samples, group)
        dtype, target = generated.dtype, training.target
        of_data: dict[str, Callable[[int, Given, int], Tensor]] = {
            "mean": lambda start, given, count: mean.expand(count, *mean.shape),
            "nearest": lambda start, given, count: training.at(
                nearest[start : start + count].tolist(), generated.device, dtype
            )[target],
        }
        answers |= {name: of_data[name] for name in names}
    return {name: BaselineImages(**vars(generated), answer=answer) for name, answer in answers.items()}


def baseline_names(generated: ScoredImages) -> tuple[str, ...]:
    """Return the names of the baselines of a run."""
    if not isinstance(generated, GeneratedImages) or generated.pairs is None:
        return ()
    return (*generated.game.condition.baselines, *_of_data(generated))


def _of_data(generated: GeneratedImages) -> tuple[str, ...]:
    """Return the names of the baselines of the training data.

    There are none where nothing is held out: the nearest training sample would be the sample itself.
    """
    condition = generated.game.condition
    held_out = generated.pairs is not None and generated.pairs.training is not None
    return condition.data_baselines if held_out and condition.pictures else ()


def _of_given(answer: Callable[[Given], Tensor]) -> Callable[[int, Given, int], Tensor]:
    return lambda start, given, count: answer(given)


def _means_of_columns(generated: GeneratedImages, training: PairedSamples) -> Callable[[int, Given, int], Tensor]:
    """Return the answer of mean imputation: (start, condition, count) -> points [count, N, 1, 1]."""
    found = [
        training.at(range(start, min(start + BATCH, training.samples)), generated.device, torch.float64)
        for start in _starts(training.samples)
    ]
    mean = torch.cat([batch[training.target] for batch in found]).nanmean(0).to(generated.dtype)
    finish = generated.game.condition.finish
    return lambda start, given, count: finish(given, mean.expand(count, *mean.shape))


def _training_answers(
    generated: GeneratedImages, training: PairedSamples, samples: int, group: dist.ProcessGroup | None
) -> tuple[Tensor, Tensor]:
    """Return the mean training image [C, H, W] in [-1, 1], and int64 [M], the numbers of the nearest training samples.

    Distances are squared differences of pixels in 0..255: whole numbers, so that ranks agree to the last bit. Of
    samples that are equally near the first is taken.
    """
    rank, world = place_in(group)
    condition, device = generated.game.condition, generated.device
    wanted = torch.cat([_pixels(generated, generated.given(at, min(BATCH, samples - at))) for at in _starts(samples)])
    shape = training.at([0], device, generated.dtype)[training.target].shape[1:]
    total = torch.zeros(shape, dtype=torch.int64, device=device)
    nearest = torch.full((samples,), torch.iinfo(torch.int64).max, device=device)
    for start in _starts(training.samples)[rank::world]:
        count = min(BATCH, training.samples - start)
        batch = training.at(range(start, start + count), device, generated.dtype)
        total += to_uint8(batch[training.target]).sum(0, dtype=torch.int64)
        noise = generated.noise(start, count).under("training")
        there = _pixels(generated, condition.of(batch, noise))
        numbers = torch.arange(start, start + count, device=device)
        # Distance and number in one integer, so that the least of all ranks tells both.
        coded = _squared_distances(wanted, there) * TRAINING_SAMPLES + numbers
        nearest = nearest.minimum(coded.min(1).values)
    if group is not None:
        dist.all_reduce(total, group=group)
        dist.all_reduce(nearest, dist.ReduceOp.MIN, group=group)
    mean = (total.double() / training.samples / 127.5 - 1).to(generated.dtype)
    return mean, nearest % TRAINING_SAMPLES


def _starts(samples: int) -> list[int]:
    return list(range(0, samples, BATCH))


def _pixels(generated: GeneratedImages, given: Given) -> Tensor:
    """Return the pictures of conditions as whole numbers in 0..255, averaged down to SEARCH_SIZE, float64 [B, N]."""
    pictures = [given[name] for name in generated.game.condition.pictures]
    small = [F.adaptive_avg_pool2d(each, min(each.shape[-1], SEARCH_SIZE)) for each in pictures]
    return torch.cat([to_uint8(each).flatten(1) for each in small], 1).double()


def _squared_distances(one: Tensor, other: Tensor) -> Tensor:
    """Return the squared distances of rows of whole numbers, float64 [M, N] and [B, N] -> int64 [M, B], exactly.

    Sums stay below 2^53, so float64 makes no error in any order.
    """
    squares = one.square().sum(1, keepdim=True) - 2 * (one @ other.T) + other.square().sum(1)
    return squares.to(torch.int64)


def cache_name(made_of: Mapping[str, Any]) -> str:
    """Return the file name of the numbers of baselines in the cache of all runs, from all that they depend on."""
    text = json.dumps({"kind": "baselines", **made_of}, sort_keys=True, default=str)
    return f".statistics/{hashlib.sha256(text.encode()).hexdigest()}.safetensors"


def read_values(storage: Storage, name: str) -> dict[str, float] | None:
    """Return the kept numbers by column; None if there are none."""
    tensors = read_kept(storage, name)
    return None if tensors is None else {column: float(value) for column, value in tensors.items()}


def write_values(storage: Storage, name: str, values: Mapping[str, float]) -> None:
    """Keep numbers by column for all runs. A failed write is only a warning."""
    write_kept(storage, name, {column: torch.tensor(value, dtype=torch.float64) for column, value in values.items()})
