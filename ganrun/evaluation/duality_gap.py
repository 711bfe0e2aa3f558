"""Duality gap: how much the two players of a GAN could still gain against each other.

    gap(G, D) = max over D' of V(G, D') - min over G' of V(G', D)

Grnarova et al. 2019 (arXiv:1811.05512). It is 0 where neither can gain, at an equilibrium, and positive elsewhere. V
is that of `games/minimax.py`. The paper's procedure: each best response is found by k steps of Adam from the player
itself, on one half of the held-out samples, and V is measured on the other half. A response that is worse there than
the player itself is not taken, so the gap is never negative.

The players are copied first: neither weights nor statistics of the run change. G is the scored EMA generator in
evaluation mode. D plays as in training, with batch statistics where it has batch norm.

The two responses do not depend on each other: with several ranks, the first finds D' and the last G'. Batches and noise
are keyed by the step, so the value does not depend on the number of ranks.
"""

import copy
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ganrun.config.schema import EvaluateConfig
from ganrun.config.schema_duality_gap import DualityGapConfig
from ganrun.data.decode import Field, RawBatch, normalised
from ganrun.evaluation.divergences import LOOKED_AT, Densities, densities_of, scored_mixture
from ganrun.evaluation.generated_images import BATCH, GeneratedImages
from ganrun.evaluation.paired_samples import PairedSamples
from ganrun.evaluation.ranks import place_in
from ganrun.evaluation.real_images import RealImages
from ganrun.evaluation.score import Features, Score, ScoreSubject, Sums
from ganrun.games.calls import judge
from ganrun.games.conditions import Batch
from ganrun.games.game import Networks
from ganrun.games.minimax import Minimax
from ganrun.models.slot_statistics import without_batch_stats
from ganrun.models.spectral_norm import SpectralNorm
from ganrun.rng import KeyedNoise, numpy_stream

LEAST = 4
"""Fewest held-out samples: two to respond to, and two to measure on."""
MOST_BYTES = 2**28
"""Most bytes of samples, at a byte a number: they are read once and kept in memory, as each step looks at all parts."""


class DualityGap(Score):
    """Duality gap of a GAN, what each player could gain, and V; of points of a known mixture also the error of D.

    Args:
        settings: section `evaluate.duality_gap`.
    """

    of_networks = on_request = starts_alone = True

    def __init__(self, settings: DualityGapConfig) -> None:
        self.settings, self._classifies, self._about = settings, False, ""

    def unavailable(self, subject: ScoreSubject) -> str | None:
        """Return the reason for which the score cannot be computed; None if it can."""
        generated, reals = subject.generated, subject.reals
        if not isinstance(generated, GeneratedImages) or generated.game.minimax is None:
            return (
                "it needs two players with one value, as objective.game: gan without reconstruction and "
                "feature_matching; leave it out"
            )
        if reals is None or reals.held_out_by is None:
            return "no samples are held out; set evaluate.held_out_share, or evaluate.shards"
        if reals.samples < LEAST:
            return f"there are {reals.samples} held-out samples, and it needs at least {LEAST}; hold out more"
        return None

    def start(self, subject: ScoreSubject) -> Sums:
        """Return V by chunk of the players, with D' and with G', [3, chunks], and sums of D's error, of this rank."""
        rank, ranks = place_in(subject.group)
        duel = _Duel(subject, self.settings)
        self._classifies, self._about = duel.minimax.classifies, duel.about
        values = torch.zeros(3, duel.chunks, dtype=torch.float64, device=duel.device)
        errors = torch.zeros(2, dtype=torch.float64, device=duel.device)
        with without_batch_stats():
            if rank == 0:
                values[0] = duel.values(duel.players)
                values[1] = duel.values(duel.best_response("discriminator"))
                errors += duel.errors(subject)
            if rank == ranks - 1:
                values[2] = duel.values(duel.best_response("generator"))
        return {"values": values, "errors": errors}

    def result(self, sums: Sums, features: Features | None) -> dict[str, float]:
        """Return the gap with its standard error, and what it is made of.

        Raises:
            ValueError: a value is not finite.
        """
        value, raised, lowered = sums["values"]
        if not torch.isfinite(sums["values"]).all():
            raise ValueError("V is not finite; a lower evaluate.duality_gap.learning_rate keeps best responses finite")
        gains = torch.stack([_gain(raised - value), _gain(value - lowered)])
        gaps, at = gains.sum(0), float(value.mean())
        found = {
            "duality_gap": float(gaps.mean()),
            "duality_gap_deviation": float(gaps.std()) / math.sqrt(len(gaps)) if len(gaps) > 1 else math.nan,
            "discriminator_gain": float(gains[0].mean()),
            "generator_gain": float(gains[1].mean()),
            "game_value": at,
        }
        if self._classifies:
            found["game_value_excess"] = at + math.log(4)
        error, count = sums["errors"].tolist()
        return found | ({"discriminator_error": error / count} if count else {})

    def about(self, subject: ScoreSubject) -> str:
        """Return V, how the responses were found, and on what V was measured, once the score has begun."""
        return self._about


def _gain(difference: Tensor) -> Tensor:
    """Return what a response gains by chunk, [chunks]: nothing if it is worse than the player itself."""
    return difference if difference.mean() > 0 else torch.zeros_like(difference)


class _Duel:
    """Copies of two players, and the held-out samples that they meet on.

    Args:
        subject: what is scored; `DualityGap.unavailable` has found nothing against it.
        settings: section `evaluate.duality_gap`.

    Attributes:
        players: copies of G and D by name.
        half: samples to respond to: those with even numbers. V is measured on those with odd ones.
        batch: samples of a step, and of a chunk of the measurement.
        chunks: number of chunks. All are whole, since D may look at a batch as a whole.
    """

    def __init__(self, subject: ScoreSubject, settings: DualityGapConfig) -> None:
        generated, reals = subject.generated, subject.reals
        assert isinstance(generated, GeneratedImages)
        assert reals is not None
        assert generated.game.minimax is not None
        self.generated, self.settings = generated, settings
        self.minimax: Minimax = generated.game.minimax
        self.device, self.target = generated.device, reals.target
        self.held_out = _read(generated, reals)
        self.half = len(self.held_out[self.target]) // 2
        self.batch = min(BATCH, self.half)
        self.chunks = self.half // self.batch
        self.players = {name: copy.deepcopy(generated.networks[name]) for name in ("generator", "discriminator")}
        self.players["generator"].eval()
        self.players["discriminator"].train()

    @property
    def about(self) -> str:
        """V, how the responses are found, and on what V is measured."""
        steps, rate = self.settings.steps, self.settings.learning_rate
        return (
            f"V = {self.minimax.formula}; EMA generator; k={steps} steps of Adam at {rate:g} on {self.half} held-out "
            f"samples, V on {self.chunks * self.batch} others"
        )

    def best_response(self, name: str) -> Networks:
        """Return the players with one of them, `name`, replaced by its best response to the other."""
        mine, steps, rate = copy.deepcopy(self.players[name]), self.settings.steps, self.settings.learning_rate
        playing, is_discriminator = self.players | {name: mine}, name == "discriminator"
        for network in playing.values():
            network.requires_grad_(network is mine)
        optimizer = torch.optim.Adam(mine.parameters(), rate)
        for step in range(steps):
            optimizer.param_groups[0]["lr"] = rate * (1 - step / steps)
            for module in mine.modules():
                if isinstance(module, SpectralNorm):
                    module.iterate()
            batch, noise = self._batch_of(step), self._noise(step, f"respond/{name}")
            with torch.enable_grad():
                value = self.minimax.value(playing, batch, noise)
                loss = self.minimax.penalties(playing, batch, noise) - value if is_discriminator else value
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            if is_discriminator:
                self.minimax.after_step(mine)
        return playing

    @torch.no_grad()
    def values(self, players: Networks) -> Tensor:
        """Return V on each chunk of the samples to measure on, float64 [chunks]."""
        values = [
            self.minimax.value(players, self._measured(chunk), self._noise(chunk, "measure"))
            for chunk in range(self.chunks)
        ]
        return torch.stack(values).double()

    @torch.no_grad()
    def errors(self, subject: ScoreSubject) -> Tensor:
        """Return the sum over real and generated points of |s(D(x)) - p_data / (p_data + p_g)|, and their number.

        The optimal D of a fixed G is that share (Goodfellow et al. 2014, proposition 1). Zeros where the density of the
        data, or the probability of D, is unknown.
        """
        sums = torch.zeros(2, dtype=torch.float64, device=self.device)
        of = scored_mixture(subject)
        if of is None or not of.sd or not self.minimax.classifies or self.generated.game.condition.fields:
            return sums
        densities = densities_of(self.generated, of, self.target, subject.samples)
        for chunk in range(min(self.chunks, LOOKED_AT // (2 * self.batch))):
            real = self._measured(chunk)[self.target]
            fake = self.generated.images(chunk * self.batch, self.batch)
            for points in (real, fake):
                sums += self._errors(points, densities)
        return sums

    def _errors(self, points: Tensor, densities: Densities) -> Tensor:
        noise = self._noise(0, "measure")
        found = torch.sigmoid(judge(self.players["discriminator"], points, {}, noise).double())
        x = points.flatten(1).double()
        optimal = torch.sigmoid(densities.data(x) - densities.model(x))
        errors = (found - optimal).abs()
        return torch.stack([errors.sum(), torch.ones_like(errors).sum()])

    def _measured(self, chunk: int) -> Batch:
        return self._at([2 * number + 1 for number in range(chunk * self.batch, (chunk + 1) * self.batch)])

    def _batch_of(self, step: int) -> Batch:
        """Return the samples of a step: whole epochs in random order, without the rest of each."""
        epoch, part = divmod(step, self.half // self.batch)
        order = numpy_stream(self.generated.seed, "duality_gap", epoch).permutation(self.half)
        return self._at([2 * int(number) for number in order[part * self.batch : (part + 1) * self.batch]])

    def _at(self, numbers: Sequence[int]) -> Batch:
        chosen: RawBatch = {
            name: [field[number] for number in numbers] if isinstance(field, list) else field[list(numbers)]
            for name, field in self.held_out.items()
        }
        placed = {name: each.to(self.device) if isinstance(each, Tensor) else each for name, each in chosen.items()}
        return normalised(placed, self.generated.dtype)

    def _noise(self, number: int, name: str) -> KeyedNoise:
        generated = self.generated
        noise = KeyedNoise(generated.seed, 0, number, 0, self.device, generated.dtype)
        return noise.under(f"duality_gap/{name}")


def _read(generated: GeneratedImages, reals: RealImages) -> RawBatch:
    """Read the held-out samples with all that a condition is made of, evenly spaced."""
    fields = {name: reals.fields[name] for name in dict.fromkeys((*generated.game.condition.fields, reals.target))}
    first = PairedSamples(reals.data, 1, fields, reals.target, reals.damaged_share, reals.cache).raw([0])
    size = sum(field.nbytes for field in first.values() if isinstance(field, Tensor))
    count = max(LEAST, min(reals.samples, MOST_BYTES // size))
    samples = PairedSamples(reals.data, count, fields, reals.target, reals.damaged_share, reals.cache)
    chunks = [samples.raw(range(start, min(start + BATCH, count))) for start in range(0, count, BATCH)]
    return {name: _joined([chunk[name] for chunk in chunks]) for name in fields}


def _joined(parts: Sequence[Field]) -> Field:
    tensors = [part for part in parts if isinstance(part, Tensor)]
    return torch.cat(tensors) if tensors else [each for part in parts for each in part]


def duality_gap(evaluate: EvaluateConfig) -> DualityGap:
    """Build the score with the settings of the config."""
    return DualityGap(evaluate.duality_gap)
