"""Bits per dimension: the mean code length of held-out samples under a density, by the number of their numbers.

    -E log2 p(x) / D

of images [C, H, W] of 256 levels with D = C H W, so 8 is what an uncompressed file takes; of points, whose density is
that of the original unit, it may be below 0. Each sample is looked at once, with noise by its chunk, so the value does
not depend on the number of ranks.
"""

import math

import torch
from torch import Tensor

from ganrun.evaluation.generated_images import BATCH, GeneratedImages
from ganrun.evaluation.paired_samples import PairedSamples
from ganrun.evaluation.ranks import place_in
from ganrun.evaluation.real_images import RealImages
from ganrun.evaluation.score import Features, Score, ScoreSubject, Sums


class BitsPerDimension(Score):
    """Bits per dimension of the samples that scores compare with. It looks at no generated image."""

    starts_alone = True

    def unavailable(self, subject: ScoreSubject) -> str | None:
        """Return the reason for which the score cannot be computed; None if it can."""
        generated = subject.generated
        if not isinstance(generated, GeneratedImages) or generated.game.log_prob is None:
            return "it needs a density, as objective.game: likelihood has; leave it out"
        if subject.reals is None:
            return "there are no samples to compute it of"
        return None

    @torch.no_grad()
    def start(self, subject: ScoreSubject) -> Sums:
        """Return the sums over this rank's samples: their number, and bits per dimension to the first two powers."""
        generated, reals = subject.generated, subject.reals
        assert isinstance(generated, GeneratedImages)
        assert reals is not None
        sums = torch.zeros(3, dtype=torch.float64, device=generated.device)
        samples, unit = _samples(reals), float(reals.data.index.made.get("scale", 1.0))
        rank, ranks = place_in(subject.group)
        for start in range(rank * BATCH, reals.samples, ranks * BATCH):
            bits = _bits(generated, samples, start, min(BATCH, reals.samples - start), unit)
            sums += torch.stack([torch.ones_like(bits), bits, bits.square()]).sum(1)
        return {"powers": sums}

    def result(self, sums: Sums, features: Features | None) -> dict[str, float]:
        """Return the mean, and the standard error of it."""
        count, first, second = sums["powers"].tolist()
        mean = first / count
        deviation = math.sqrt(max(second / count - mean**2, 0.0) / count)
        return {"bits_per_dimension": mean, "bits_per_dimension_deviation": deviation}

    def about(self, subject: ScoreSubject) -> str:
        """Return what the value is of, and whether it is a bound."""
        generated, reals = subject.generated, subject.reals
        assert isinstance(generated, GeneratedImages)
        assert reals is not None
        held_out = "held-out" if reals.held_out_by else "training"
        return f"{generated.game.log_prob_is}, n={reals.samples} {held_out} samples"


def _samples(reals: RealImages) -> PairedSamples:
    fields = {name: reals.fields[name] for name in (reals.target,)}
    return PairedSamples(reals.data, reals.samples, fields, reals.target, reals.damaged_share, reals.cache)


def _bits(generated: GeneratedImages, samples: PairedSamples, start: int, count: int, unit: float) -> Tensor:
    """Return bits per dimension of samples from `start`, float64 [count]. Points were divided by `unit`."""
    noise, game = generated.noise(start, count), generated.game
    batch = samples.batch(start, count, generated.device, noise.dtype)
    assert game.log_prob is not None
    nats = game.log_prob(generated.networks, batch, noise.under("bits_per_dimension")).double()
    numbers = batch[samples.target][0].numel()
    bits: Tensor = math.log2(unit) - nats / (numbers * math.log(2))
    return bits
