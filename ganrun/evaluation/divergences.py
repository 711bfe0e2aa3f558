"""Divergences between the density of the data, a known mixture, and that of a generator, by Monte Carlo.

    KL(p_data || p_g)  = E_data log p_data(x) - log p_g(x)       `kl`: infinite where p_g misses a mode
    KL(p_g || p_data)  = E_g log p_g(x) - log p_data(x)          `reverse_kl`: infinite where p_g leaves the data
    JS(p_data, p_g)    = KL(p_data || m) / 2 + KL(p_g || m) / 2  `jensen_shannon`, m = (p_data + p_g) / 2: at most log 2

The last is what G minimises against the optimal D: max over D of V(G, D) = 2 JS - log 4 (Goodfellow et al. 2014,
arXiv:1406.2661, theorem 1).

A generator that states its density (a likelihood model, or a `log_prob` of its own) is compared exactly, but for the
error of the mean, which is stated. The distribution of others is taken to be that of their n points. Both it and the
mixture are smoothed by a normal whose deviation is half that of the mixture's modes, which gives the points a density
too. Smoothing lowers divergences (data processing); few points raise them.

Shapes: n points, N numbers of each, M modes.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ganrun.evaluation.generated_images import BATCH, GeneratedImages
from ganrun.evaluation.modes import Mixture, known_mixture
from ganrun.evaluation.ranks import place_in
from ganrun.evaluation.score import Features, Score, ScoreSubject, Sums
from ganrun.rng import KeyedNoise

SMOOTHING = 0.5
"""Deviation of the smoothing normal over that of a mode."""
LOOKED_AT = 2_000
"""Most points, of the data and of the generator each, at which an estimated density is computed."""
ROWS = 512
"""Points whose density is computed at once."""


@dataclass(frozen=True)
class Densities:
    """Densities of the data and of a generator at points float64 [n, N] as networks see them.

    Attributes:
        data, model: log-densities in nats, [n].
        smoothing: deviation of the normal that smooths both; 0: they are exact.
    """

    data: Callable[[Tensor], Tensor]
    model: Callable[[Tensor], Tensor]
    smoothing: float


def scored_mixture(subject: ScoreSubject) -> Mixture | None:
    """Return the mixture that the real points of a score were drawn from; None if it is unknown."""
    return None if subject.reals is None else known_mixture(subject.reals.data.index)


def densities_of(generated: GeneratedImages, of: Mixture, target: str, samples: int) -> Densities:
    """Return the densities of a mixture and of a generator, exact or estimated by its first `samples` points."""
    points = None if generated.game.log_prob else _points(generated, samples)
    return _densities(generated, of, target, points)


def _densities(generated: GeneratedImages, of: Mixture, target: str, points: Tensor | None) -> Densities:
    """Return the densities; `points` of the generator, float64 [n, N], are needed where it states none."""
    centres, deviation = _centres(of, generated.device), of.sd / of.scale
    log_prob = generated.game.log_prob
    if log_prob is not None:
        noise, networks = generated.noise(0, 1).under("divergence"), generated.networks

        def model(x: Tensor) -> Tensor:
            assert log_prob is not None
            return log_prob(networks, {target: x[:, :, None, None].to(noise.dtype)}, noise).double()

        return Densities(lambda x: log_mixture(x, centres, deviation), model, 0.0)
    assert points is not None
    width = SMOOTHING * deviation
    smooth = math.hypot(deviation, width)
    return Densities(lambda x: log_mixture(x, centres, smooth), lambda x: log_mixture(x, points, width), width)


def log_mixture(x: Tensor, centres: Tensor, deviation: float) -> Tensor:
    """Return log 1/M sum_m N(x; centre_m, deviation^2 I) of points [n, N] and centres [M, N], [n]."""
    constant = math.log(len(centres)) + centres.shape[1] * math.log(deviation * math.sqrt(2 * math.pi))
    x, centres = x / deviation, centres / deviation
    lengths = centres.square().sum(1) / 2
    # -|x - c|^2 / 2 = x c - |c|^2 / 2 - |x|^2 / 2
    found = [torch.logsumexp(torch.addmm(-lengths, rows, centres.T), dim=1) for rows in torch.split(x, ROWS)]
    return torch.cat(found) - x.square().sum(1) / 2 - constant


class Divergence(Score):
    """One of the divergences, with its standard error. It looks at no image but its own.

    Args:
        name: name of the score.
        of: (comparison) -> numbers whose means, added, are the divergence.
    """

    def __init__(self, name: str, of: Callable[["Comparison"], tuple[Tensor, ...]]) -> None:
        self.name, self.of = name, of
        self._subject: ScoreSubject | None = None

    def unavailable(self, subject: ScoreSubject) -> str | None:
        """Return the reason for which the score cannot be computed; None if it can."""
        of = scored_mixture(subject)
        if of is None or not isinstance(subject.generated, GeneratedImages):
            return "it needs the density of the data, which points of a known mixture have; leave it out"
        if not of.sd:
            return "the data is a single point, which has no density; leave it out"
        return None

    def start(self, subject: ScoreSubject) -> Sums:
        """Return the points of this rank's chunks among all, [samples, N]."""
        self._subject = subject
        assert isinstance(subject.generated, GeneratedImages)
        rank, ranks = place_in(subject.group)
        return {"points": _points(subject.generated, subject.samples, rank, ranks)}

    def result(self, sums: Sums, features: Features | None) -> dict[str, float]:
        """Return the divergence in nats, and the standard error of the mean that it is."""
        assert self._subject is not None
        with torch.no_grad():
            parts = self.of(Comparison(self._subject, sums["points"]))
        error = math.sqrt(sum(float(part.var(correction=0)) / len(part) for part in parts))
        return {self.name: float(sum(part.mean() for part in parts)), f"{self.name}_deviation": error}

    def about(self, subject: ScoreSubject) -> str:
        """Return how the densities were had."""
        generated, of = subject.generated, scored_mixture(subject)
        assert isinstance(generated, GeneratedImages)
        assert of is not None
        if generated.game.log_prob is not None:
            return f"Monte Carlo, n={subject.samples}, {generated.game.log_prob_is} density"
        width, looked_at = SMOOTHING * of.sd, min(subject.samples, LOOKED_AT)
        return (
            f"estimate of densities smoothed by a normal of deviation {width:g}, n={subject.samples} points, at "
            f"{looked_at} of them"
        )


def _points(generated: GeneratedImages, samples: int, rank: int = 0, ranks: int = 1) -> Tensor:
    """Return generated points, float64 [samples, N], zeros for those of other ranks."""
    first = generated.images(0, min(BATCH, samples)).flatten(1)
    points = torch.zeros(samples, first.shape[1], dtype=torch.float64, device=generated.device)
    for start in range(rank * BATCH, samples, ranks * BATCH):
        made = generated.images(start, min(BATCH, samples - start)).flatten(1)
        points[start : start + len(made)] = made
    return points


def _centres(of: Mixture, device: torch.device) -> Tensor:
    return torch.from_numpy((of.centres - of.offset) / of.scale).to(device)


class Comparison:
    """Both log-densities, of the data and of the generator, at points of either.

    Args:
        subject: what is scored; `Divergence.unavailable` has found nothing against it.
        points: of the generator, float64 [samples, N].
    """

    def __init__(self, subject: ScoreSubject, points: Tensor) -> None:
        generated, of, reals = subject.generated, scored_mixture(subject), subject.reals
        assert isinstance(generated, GeneratedImages)
        assert of is not None
        assert reals is not None
        self.device, self.centres = generated.device, _centres(of, generated.device)
        self.densities = _densities(generated, of, reals.target, points)
        self.points = points[:LOOKED_AT] if self.densities.smoothing else points
        self.deviation = math.hypot(of.sd / of.scale, self.densities.smoothing)
        self.noise = KeyedNoise(generated.seed, 0, 0, 0, self.device, torch.float64).under("divergence")

    def at_data(self) -> tuple[Tensor, Tensor]:
        """Return log p_data and log p_g at as many points of the data, [n] each."""
        shares = self.noise.uniform(len(self.points), name="mode")
        chosen = self.centres[(shares * len(self.centres)).long()]
        return self._at(chosen + self.deviation * self.noise.normal(*chosen.shape, name="data"))

    def at_model(self) -> tuple[Tensor, Tensor]:
        """Return log p_data and log p_g at points of the generator, [n] each."""
        noise = self.noise.normal(*self.points.shape, name="smoothing")
        return self._at(self.points + self.densities.smoothing * noise)

    def _at(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.densities.data(x), self.densities.model(x)


def kl() -> Divergence:
    """Build KL(p_data || p_g)."""
    return Divergence("kl", lambda compared: (_log_ratio(*compared.at_data()),))


def reverse_kl() -> Divergence:
    """Build KL(p_g || p_data)."""
    return Divergence("reverse_kl", lambda compared: (-_log_ratio(*compared.at_model()),))


def jensen_shannon() -> Divergence:
    """Build the Jensen-Shannon divergence."""
    return Divergence("jensen_shannon", _jensen_shannon)


def _log_ratio(data: Tensor, model: Tensor) -> Tensor:
    return data - model


def _jensen_shannon(compared: Comparison) -> tuple[Tensor, Tensor]:
    (data, model), (data_there, model_there) = compared.at_data(), compared.at_model()
    # log m = log(p_data + p_g) - log 2
    at_data = torch.logaddexp(data, model) - math.log(2)
    at_model = torch.logaddexp(data_there, model_there) - math.log(2)
    return (data - at_data) / 2, (model_there - at_model) / 2
