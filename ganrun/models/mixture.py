"""Mixtures of Gaussians with diagonal covariances, fitted by gradient ascent or by expectation maximisation (EM).

    log p(x) = sum_g log sum_k exp(log w_gk + sum_n log N(x_gn; m_gkn, s_gkn^2))

Of points there is one group g of N coordinates, so components are those of whole points. Of images each number is a
group of its own: a mixture per pixel, which knows nothing of other pixels.

Shapes: B batch, G groups, K components, N numbers of a group, D = G N numbers of an image.
"""

import logging
import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ganrun.config.schema import DataConfig, ModelConfig
from ganrun.errors import UserError
from ganrun.models.density import LEVELS, AddOverRanks, Density, Passes, dequantised, quantised
from ganrun.models.logistic_mixture import choose
from ganrun.rng import KeyedNoise

logger = logging.getLogger(__name__)

LEVEL_DEVIATION = 1 / LEVELS / math.sqrt(12)
"""Deviation of the dequantisation noise, the least of a number of an image in [0, 1)."""
FLOOR = 1e-3
"""Least deviation of a component of points, as a share of that of the data."""
LONELY = 1.5
"""Samples of a component at the least deviation, below which it has collapsed on one."""
NAMED = 4
"""Most components whose parameters are logged."""


class Mixture(Density):
    """Images [B, C, S, S], or points [B, N, 1, 1].

    Variances are f^2 + exp(2 r), with f the least deviation: without it a component on a single sample would have an
    infinite likelihood.

    Args:
        shape: of an image, or point.
        components: K.
    """

    floor: Tensor

    def __init__(self, shape: tuple[int, int, int], components: int) -> None:
        super().__init__()
        self.shape, self.components, self.of_points = shape, components, shape[1:] == (1, 1)
        numbers = math.prod(shape)
        groups, size = (1, numbers) if self.of_points else (numbers, 1)
        self.bound = "" if self.of_points else "uniform dequantisation"
        self.logits = nn.Parameter(torch.zeros(groups, components))
        self.means = nn.Parameter(torch.randn(groups, components, size))
        self.log_deviations = nn.Parameter(torch.full((groups, components, size), -1.0))
        self.register_buffer("floor", torch.full((groups, 1, size), FLOOR if self.of_points else LEVEL_DEVIATION))

    @property
    def variances(self) -> Tensor:
        """Variances s^2, [G, K, N]."""
        return self.floor.square() + torch.exp(2 * self.log_deviations)

    def parts(self) -> dict[str, Tensor]:
        """Return weights, means and deviations of a few components of one number."""
        if self.means.numel() > NAMED or self.means.shape[0] > 1 or self.means.shape[2] > 1:
            return {}
        values = {
            "weight": F.softmax(self.logits[0], 0),
            "mean": self.means[0, :, 0],
            "deviation": self.variances[0, :, 0].sqrt(),
        }
        return {f"{name}_{k}": value[k].detach() for name, value in values.items() for k in range(self.components)}

    def log_prob(self, images: Tensor, noise: KeyedNoise, samples: int = 1) -> Tensor:
        """Return log p(x) of points, or the lower bound log q(y) - D log 256 of dequantised images, [B]."""
        nats = torch.logsumexp(self._joint(self._groups(images, noise)), dim=2).sum(1)
        return nats if self.of_points else nats - math.prod(self.shape) * math.log(LEVELS)

    def _groups(self, images: Tensor, noise: KeyedNoise) -> Tensor:
        """Return numbers by group, [B, G, 1, N]."""
        x = images if self.of_points else dequantised(images, noise)
        groups, _, size = self.means.shape
        return x.reshape(len(x), groups, 1, size)

    def _joint(self, x: Tensor) -> Tensor:
        """Return log w_k + log N_k(x) of x [B, G, 1, N], [B, G, K]."""
        variances = self.variances.to(x.dtype)
        squares = (x - self.means.to(x.dtype)).square() / variances
        normal = -0.5 * (squares + variances.log() + math.log(2 * math.pi)).sum(3)
        return F.log_softmax(self.logits.to(x.dtype), dim=1) + normal

    def sample(self, count: int, noise: KeyedNoise) -> Tensor:
        """Draw images or points, [count, C, H, W]."""
        groups, _, size = self.means.shape
        component = choose(noise.uniform(count, groups, name="mixture/component"), self.logits.expand(count, -1, -1))
        index = component[:, :, None, None].expand(-1, -1, 1, size)
        mean, variance = (
            each.expand(count, -1, -1, -1).gather(2, index)[:, :, 0] for each in (self.means, self.variances)
        )
        x = (mean + variance.sqrt() * noise.normal(count, groups, size, name="mixture/x")).view(count, *self.shape)
        return x if self.of_points else quantised(x)

    def initialise(self, passes: Passes, add_over_ranks: AddOverRanks, em_passes: int = 0) -> None:
        """Spread the components over the data, then fit them by `em_passes` steps of EM.

        Raises:
            UserError: there are more components than samples.
        """
        self._spread(passes, add_over_ranks)
        self.fit_em(passes, add_over_ranks, em_passes)

    @torch.no_grad()
    def _spread(self, passes: Passes, add_over_ranks: AddOverRanks) -> None:
        """Set components of equal weight at the quantiles of the data's normal, or at random points of it."""
        groups, components, size = self.means.shape
        sums = torch.zeros(2 * groups * size + 1, dtype=torch.float64, device=self.means.device)
        moments = sums[1:].view(2, groups, size)
        for images, noise in passes():
            x = self._groups(images, noise).double()[:, :, 0]
            sums[0] += len(x)
            moments += torch.stack([x.sum(0), x.square().sum(0)])
        add_over_ranks(sums)
        count = int(sums[0])
        check_components(components, count)
        mean = moments[0] / count
        deviation = (moments[1] / count - mean.square()).clamp(min=0).sqrt()[:, None]
        if self.of_points:
            self.floor.copy_(FLOOR * deviation)
        if size == 1:
            quantiles = (torch.arange(components, device=mean.device, dtype=mean.dtype) + 0.5) / components
            places = math.sqrt(2) * torch.erfinv(2 * quantiles - 1)[None, :, None]
        else:
            places = self.means.to(mean.dtype)  # Drawn by the run's seed, alike on all ranks.
        self.means.copy_(mean[:, None] + deviation * places)
        self._set_variances((deviation.square() / min(components, 4)).expand_as(self.means))
        self.logits.zero_()

    @torch.no_grad()
    def fit_em(self, passes: Passes, add_over_ranks: AddOverRanks, steps: int) -> list[float]:
        """Fit the components by EM (Dempster et al. 1977): the likelihood never falls. Collective.

        Args:
            passes, add_over_ranks: see `initialise`.
            steps: number of steps, each a pass over the data.

        Returns:
            Mean log-likelihood of a sample in nats before each step; of images without the constant of their levels.
        """
        found = []
        for _ in range(steps):
            nats, counts, first, second = self._expect(passes, add_over_ranks)
            found.append(nats / float(counts[0].sum()))
            lonely = self._maximise(counts, first, second)
        if steps and lonely:
            logger.warning(
                "%s of %s components collapsed on a single sample; their deviations are held at the least that is "
                "allowed: lower model.components",
                f"{lonely:,}",
                f"{self.logits.numel():,}",
            )
        return found

    @torch.no_grad()
    def _expect(self, passes: Passes, add_over_ranks: AddOverRanks) -> tuple[float, Tensor, Tensor, Tensor]:
        """Return the log-likelihood, and by component the sums over all samples of responsibilities r, of r (x - m)
        and of r (x - m)^2: [G, K], [G, K, N], [G, K, N], float64.
        """
        groups, components, size = self.means.shape
        sums = torch.zeros(1 + groups * components * (1 + 2 * size), dtype=torch.float64, device=self.means.device)
        counts, first, second = torch.split(sums[1:], [groups * components, *(groups * components * size,) * 2])
        first, second = (each.view(groups, components, size) for each in (first, second))
        for images, noise in passes():
            x = self._groups(images, noise).double()
            joint = self._joint(x)
            total = torch.logsumexp(joint, dim=2)
            shares, distances = torch.exp(joint - total[..., None]), x - self.means.double()
            sums[0] += total.sum()
            counts += shares.sum(0).flatten()
            first += torch.einsum("bgk,bgkn->gkn", shares, distances)
            second += torch.einsum("bgk,bgkn->gkn", shares, distances.square())
        add_over_ranks(sums)
        return float(sums[0]), counts.view(groups, components), first, second

    @torch.no_grad()
    def _maximise(self, counts: Tensor, first: Tensor, second: Tensor) -> int:
        """Set the most likely parameters by the sums of `_expect`; return the number of components with one sample.

        The most likely variance that is at least f^2 is the larger of f^2 and the unbounded one, so the likelihood
        does not fall where the bound holds either. Components without samples stay where they are.
        """
        total, held = counts.sum(1, keepdim=True), counts.clamp(min=1e-12)[..., None]
        shift, empty = first / held, counts[..., None] < 1e-9
        variances = torch.where(empty, self.variances.double(), second / held - shift.square())
        self.means.copy_(torch.where(empty, self.means.double(), self.means.double() + shift))
        self.logits.copy_((counts / total).clamp(min=1e-12).log())
        self._set_variances(variances)
        bounded = (variances <= self.floor.double().square()).all(2)
        return int((bounded & (counts < LONELY)).sum())

    def _set_variances(self, variances: Tensor) -> None:
        """Set variances [G, K, N], or those just above the least."""
        floor = self.floor.double().square()
        self.log_deviations.copy_(0.5 * torch.log((variances.double() - floor).clamp(min=1e-6 * floor + 1e-30)))


def check_components(components: int, samples: int) -> None:
    """Check that there are not more components than training samples.

    Raises:
        UserError: there are.
    """
    if components > samples:
        raise UserError(
            f"model.components: {components:,}, but there are only {samples:,} training samples; set at most "
            f"{samples:,}"
        )


def mixture(model: ModelConfig, data: DataConfig) -> dict[str, nn.Module]:
    """Build the network."""
    return {"density": Mixture((data.channels, data.image_size, data.image_size), model.components)}
