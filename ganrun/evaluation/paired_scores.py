"""Scores of conditional runs: G(z, c) beside the real image x that belongs to c.

Each is a mean over images of a number for each pair. Images are clamped to [-1, 1], as they are stored.
Shapes: B pairs, C channels, H and W pixels.
"""

import functools
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from ganrun.config.schema import EvaluateConfig
from ganrun.config.score_names import OF_HORIZONS
from ganrun.errors import UserError
from ganrun.evaluation.score import Features, Score, ScoreBatch, ScoreSubject, Sums
from ganrun.models.given import Given
from ganrun.models.lpips import SMALLEST, Lpips

WINDOW, SIGMA = 11, 1.5
"""Pixels a side and deviation of the Gaussian window of SSIM."""
RANGE = 2.0
"""Of pixels: from -1 to 1."""


def l1(one: Tensor, other: Tensor) -> Tensor:
    """Return the mean absolute differences of images [B, C, H, W] in [-1, 1], [B] in [0, 2]."""
    return (one - other).abs().flatten(1).mean(1)


def psnr(one: Tensor, other: Tensor) -> Tensor:
    """Return the peak signal-to-noise ratios of images [B, C, H, W] in [-1, 1], [B] in dB.

    Equal images have 106 dB, since their mean squared error counts as 1e-10.
    """
    error = (one - other).square().flatten(1).mean(1).clamp(min=1e-10)
    return 10 * (RANGE**2 / error).log10()


def ssim(one: Tensor, other: Tensor) -> Tensor:
    """Return the structural similarities of images [B, C, H, W] in [-1, 1], at least 11 pixels a side, [B] up to 1.

    Wang et al. 2004, "Image quality assessment", eq. 13, with their constants and window; the mean over all windows
    within the image, and over channels.
    """
    channels = one.shape[1]
    at = torch.arange(WINDOW, dtype=one.dtype, device=one.device) - WINDOW // 2
    row = (-at.square() / (2 * SIGMA**2)).exp()
    row = (row / row.sum()).expand(channels, 1, 1, -1)

    def blurred(images: Tensor) -> Tensor:
        return F.conv2d(F.conv2d(images, row, groups=channels), row.transpose(2, 3), groups=channels)

    mean, of_other = blurred(one), blurred(other)
    variance, other_variance = blurred(one**2) - mean**2, blurred(other**2) - of_other**2
    covariance = blurred(one * other) - mean * of_other
    c1, c2 = (0.01 * RANGE) ** 2, (0.03 * RANGE) ** 2
    likeness = (2 * mean * of_other + c1) * (2 * covariance + c2)
    return (likeness / ((mean**2 + of_other**2 + c1) * (variance + other_variance + c2))).flatten(1).mean(1)


class PairedScore(Score):
    """Mean over pairs of a number for each.

    Args:
        name: registered name.
        compare: (images, real images), [B, C, H, W] in [-1, 1] each -> [B].
        smallest: fewest pixels a side.
    """

    def __init__(self, name: str, compare: Callable[[Tensor, Tensor], Tensor], smallest: int = 1) -> None:
        self.name, self.compare, self.smallest = name, compare, smallest

    def unavailable(self, subject: ScoreSubject) -> str | None:
        """Return the reason for which the score cannot be computed; None if it can."""
        truth = subject.generated.truth(0, 1)
        if truth is None or "text" in subject.generated.given(0, 1):  # A sentence has many pictures.
            return "no real image belongs to a generated one; that needs a condition made of pictures, such as source"
        if min(truth.shape[2:]) < self.smallest:
            return f"images of {min(truth.shape[2:])} pixels a side are too small; it takes at least {self.smallest}"
        return None

    def start(self, subject: ScoreSubject) -> Sums:
        """Return the sum and the number of pairs at zero."""
        return {
            name: torch.zeros((), dtype=torch.float64, device=subject.generated.device) for name in ("sum", "pairs")
        }

    def update(self, sums: Sums, batch: ScoreBatch) -> None:
        """Add the pairs of a chunk."""
        assert batch.truth is not None
        values = self.compared(batch.images.float().clamp(-1, 1), batch.truth.float(), batch.given)
        sums["sum"] += values.double().sum()
        sums["pairs"] += len(values)

    def compared(self, images: Tensor, truth: Tensor, given: Given) -> Tensor:
        """Return the numbers of pairs, [B]."""
        return self.compare(images, truth)

    def result(self, sums: Sums, features: Features | None) -> dict[str, float]:
        """Return the mean; NaN if an image was not finite."""
        return {self.name: float(sums["sum"] / sums["pairs"])}


class HoleScore(PairedScore):
    """Mean over pairs of a number for the hole of each, of condition `masked`."""

    def unavailable(self, subject: ScoreSubject) -> str | None:
        """Return the reason for which the score cannot be computed; None if it can."""
        if "mask" not in subject.generated.given(0, 1):
            return "the images have no holes; it needs objective.condition: masked"
        return super().unavailable(subject)

    def compared(self, images: Tensor, truth: Tensor, given: Given) -> Tensor:
        """Return the numbers of the pixels in the holes alone, [B]."""
        holes = given["mask"] > 0
        rows = [
            self.compare(one[hole.expand_as(one)][None], other[hole.expand_as(other)][None])
            for one, other, hole in zip(images, truth, holes, strict=True)
            if hole.any()  # A mask of the data may be black.
        ]
        return torch.cat([*rows, images.new_zeros(0)])


class Rmse(Score):
    """Root mean squared error of the missing numbers of points, of those whose truth is known."""

    def unavailable(self, subject: ScoreSubject) -> str | None:
        """Return the reason for which the score cannot be computed; None if it can."""
        truth = subject.generated.truth(0, 1)
        if truth is None or truth.shape[2:] != (1, 1) or "mask" not in subject.generated.given(0, 1):
            return "no numbers are missing; it needs points with objective.condition: masked"
        return None

    def start(self, subject: ScoreSubject) -> Sums:
        """Return the sum of squared errors and the number of missing numbers at zero."""
        return {
            name: torch.zeros((), dtype=torch.float64, device=subject.generated.device) for name in ("sum", "numbers")
        }

    def update(self, sums: Sums, batch: ScoreBatch) -> None:
        """Add the missing numbers of a chunk."""
        assert batch.truth is not None
        scored = (batch.given["mask"] > 0) & batch.truth.isfinite()
        sums["sum"] += (batch.images - batch.truth)[scored].double().square().sum()
        sums["numbers"] += scored.sum()

    def result(self, sums: Sums, features: Features | None) -> dict[str, float]:
        """Return the error in the unit of the data; NaN if nothing was missing."""
        return {"rmse": float((sums["sum"] / sums["numbers"]).sqrt())}


class HorizonScore(Score):
    """PSNR and SSIM of each frame of a roll-out, of condition `past_frames`: psnr_1, ssim_1, psnr_2, ..."""

    def unavailable(self, subject: ScoreSubject) -> str | None:
        """Return the reason for which the score cannot be computed; None if it can."""
        if not subject.generated.horizons:
            return "no image follows a generated one; it needs objective.condition: past_frames"
        return PairedScore("horizons", ssim, WINDOW).unavailable(subject)

    def start(self, subject: ScoreSubject) -> Sums:
        """Return the sums of both at each horizon, and the number of clips, at zero."""
        names = ["clips", *OF_HORIZONS[: 2 * subject.generated.horizons]]
        return {name: torch.zeros((), dtype=torch.float64, device=subject.generated.device) for name in names}

    def update(self, sums: Sums, batch: ScoreBatch) -> None:
        """Add the clips of a chunk."""
        assert batch.truth is not None
        for horizon, (images, truth) in enumerate([(batch.images, batch.truth), *batch.later()], 1):
            images = images.float().clamp(-1, 1)
            sums[f"psnr_{horizon}"] += psnr(images, truth.float()).double().sum()
            sums[f"ssim_{horizon}"] += ssim(images, truth.float()).double().sum()
        sums["clips"] += len(batch.images)

    def result(self, sums: Sums, features: Features | None) -> dict[str, float]:
        """Return the means; NaN if an image was not finite."""
        return {name: float(value / sums["clips"]) for name, value in sums.items() if name != "clips"}


class LpipsScore(PairedScore):
    """LPIPS with AlexNet, see models/lpips.py.

    Args:
        evaluate: section `evaluate`, which may name its weights.
    """

    def __init__(self, evaluate: EvaluateConfig) -> None:
        super().__init__("lpips", self._distance, SMALLEST)
        self.where, self._network = evaluate.lpips_weights, functools.cache(self._load)

    def unavailable(self, subject: ScoreSubject) -> str | None:
        """Return the reason for which the score cannot be computed; None if it can."""
        if reason := super().unavailable(subject):
            return reason
        try:
            self._network(subject.generated.device)  # Once for all scores of a run.
        except UserError as error:
            return str(error)
        return None

    def _load(self, device: torch.device) -> Lpips:
        return Lpips("alexnet", self.where).to(device)

    def _distance(self, one: Tensor, other: Tensor) -> Tensor:
        distances: Tensor = self._network(one.device)(one, other)
        return distances


def l1_score() -> Score:
    """Build the score `l1`."""
    return PairedScore("l1", l1)


def psnr_score() -> Score:
    """Build the score `psnr`."""
    return PairedScore("psnr", psnr)


def l1_hole() -> Score:
    """Build the score `l1_hole`."""
    return HoleScore("l1_hole", l1)


def psnr_hole() -> Score:
    """Build the score `psnr_hole`."""
    return HoleScore("psnr_hole", psnr)


def horizons() -> Score:
    """Build the score `horizons`."""
    return HorizonScore()


def ssim_score() -> Score:
    """Build the score `ssim`."""
    return PairedScore("ssim", ssim, WINDOW)
