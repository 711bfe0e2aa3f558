"""Mixture of factor analysers on whole images (Ghahramani & Hinton 1996; Richardson & Weiss 2018, arXiv:1805.12462).

    p(x) = sum_k w_k N(x; m_k, A_k A_k^T + diag(v_k))

Component k is a low-dimensional Gaussian A_k f + m_k with f ~ N(0, I) of L factors, and noise of variance v_k of each
number. Its density costs L x L systems, not D x D ones (Woodbury identity and matrix determinant lemma).

Shapes: B batch, K components, L factors, D numbers of an image.
"""

import logging
import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ganrun.config.schema import DataConfig, ModelConfig
from ganrun.models.density import LEVELS, AddOverRanks, Density, Passes, dequantised, quantised
from ganrun.models.logistic_mixture import choose
from ganrun.models.mixture import LEVEL_DEVIATION, LONELY, check_components
from ganrun.rng import KeyedNoise

logger = logging.getLogger(__name__)


class FactorAnalysers(Density):
    """Images [B, C, S, S], dequantised to y in [0, 1).

    Args:
        shape: C, S and S.
        components, factors: K and L.
    """

    bound = "uniform dequantisation"

    def __init__(self, shape: tuple[int, int, int], components: int, factors: int) -> None:
        super().__init__()
        numbers = math.prod(shape)
        self.shape, self.components = shape, components
        self.logits = nn.Parameter(torch.zeros(components))
        self.means = nn.Parameter(torch.randn(components, numbers))
        self.loadings = nn.Parameter(0.1 * torch.randn(components, numbers, factors))
        self.log_deviations = nn.Parameter(torch.full((components, numbers), -2.0))

    @property
    def variances(self) -> Tensor:
        """Variances v of the noise, at least that of dequantisation, [K, D]."""
        return LEVEL_DEVIATION**2 + torch.exp(2 * self.log_deviations)

    def log_prob(self, images: Tensor, noise: KeyedNoise, samples: int = 1) -> Tensor:
        """Return the lower bound log q(y) - D log 256 of log P(x), [B]."""
        nats = torch.logsumexp(self._joint(dequantised(images, noise).flatten(1)), dim=1)
        return nats - math.prod(self.shape) * math.log(LEVELS)

    def _joint(self, y: Tensor) -> Tensor:
        """Return log w_k + log N_k(y) of y [B, D], [B, K].

        With M = I + A^T V^-1 A and b = A^T V^-1 (y - m): the squared distance is (y - m)^T V^-1 (y - m) - b^T M^-1 b,
        and the determinant det(V) det(M).
        """
        variances, loadings = self.variances.to(y.dtype), self.loadings.to(y.dtype)
        scaled = loadings / variances[..., None]
        cholesky = torch.linalg.cholesky(self._inner(loadings, scaled))
        squares, projected = _distances(y, self.means.to(y.dtype), variances, scaled)
        whitened = torch.linalg.solve_triangular(cholesky, projected, upper=False)
        determinant = variances.log().sum(1) + 2 * cholesky.diagonal(dim1=1, dim2=2).log().sum(1)
        squares = squares - whitened.square().sum(1)
        constant = y.shape[1] * math.log(2 * math.pi)
        normal: Tensor = -0.5 * (squares + determinant[:, None] + constant)
        return F.log_softmax(self.logits.to(y.dtype), dim=0) + normal.T

    @staticmethod
    def _inner(loadings: Tensor, scaled: Tensor) -> Tensor:
        """Return M = I + A^T V^-1 A, [K, L, L]."""
        ones = torch.eye(loadings.shape[2], dtype=loadings.dtype, device=loadings.device)
        return ones + loadings.transpose(1, 2) @ scaled

    def sample(self, count: int, noise: KeyedNoise) -> Tensor:
        """Draw images."""
        component = choose(noise.uniform(count, name="factors/component"), self.logits.expand(count, -1))
        factors = noise.normal(count, self.loadings.shape[2], name="factors/f")
        own = noise.normal(count, self.means.shape[1], name="factors/noise") * self.variances.sqrt()[component]
        y = self.means[component] + torch.einsum("bdl,bl->bd", self.loadings[component], factors) + own
        return quantised(y.view(count, *self.shape))

    @torch.no_grad()
    def initialise(self, passes: Passes, add_over_ranks: AddOverRanks, em_passes: int = 0) -> None:
        """Begin with the data's mean and deviation, moved at random by component; then fit by `em_passes` of EM.

        Raises:
            UserError: there are more components than samples.
        """
        numbers = self.means.shape[1]
        sums = torch.zeros(2 * numbers + 1, dtype=torch.float64, device=self.means.device)
        for images, noise in passes():
            y = dequantised(images, noise).flatten(1).double()
            sums += torch.cat([y.new_tensor([len(y)]), y.sum(0), y.square().sum(0)])
        add_over_ranks(sums)
        count = int(sums[0])
        check_components(self.components, count)
        mean = sums[1 : numbers + 1] / count
        deviation = (sums[numbers + 1 :] / count - mean.square()).clamp(min=0).sqrt()
        # The random weights are drawn by the run's seed, alike on all ranks.
        self.means.copy_(mean + 0.5 * deviation * self.means.to(mean.dtype))
        self.log_deviations.copy_(torch.log(deviation.clamp(min=LEVEL_DEVIATION)).expand_as(self.means))
        self.loadings.copy_(self.loadings * deviation[:, None])
        self.fit_em(passes, add_over_ranks, em_passes)

    @torch.no_grad()
    def fit_em(self, passes: Passes, add_over_ranks: AddOverRanks, steps: int) -> list[float]:
        """Fit by EM (Ghahramani & Hinton 1996, section 2.2): the likelihood never falls. Collective.

        Args:
            passes, add_over_ranks: see `initialise`.
            steps: number of steps, each a pass over the data.

        Returns:
            Mean log-likelihood of a sample in nats before each step, without the constant of the levels.
        """
        found = []
        for _ in range(steps):
            sums = self._expect(passes)
            for each in sums.values():
                add_over_ranks(each)
            found.append(float(sums["nats"] / sums["counts"].sum()))
            lonely = self._maximise(sums)
        if steps and lonely:
            logger.warning(
                "%s of %s components collapsed on a single sample; the variances of their noise are held at the least "
                "that is allowed: lower model.components",
                lonely,
                self.components,
            )
        return found

    def _expect(self, passes: Passes) -> dict[str, Tensor]:
        """Return sums over this rank's samples, float64, by component, with [f, 1] the expected factors and a one."""
        components, numbers, factors = self.loadings.shape
        zeros = {
            "nats": (1,),
            "counts": (components,),
            "squares": (components, numbers),
            "outer": (components, numbers, factors + 1),
            "inner": (components, factors + 1, factors + 1),
        }
        sums = {name: self.means.new_zeros(shape, dtype=torch.float64) for name, shape in zeros.items()}
        loadings, variances, means = self.loadings.double(), self.variances.double(), self.means.double()
        scaled = loadings / variances[..., None]
        inverse = torch.linalg.inv(self._inner(loadings, scaled))
        for images, noise in passes():
            y = dequantised(images, noise).flatten(1).double()
            joint = self._joint(y)
            total = torch.logsumexp(joint, dim=1)
            shares = torch.exp(joint - total[:, None]).T  # [K, B]
            expected = inverse @ _distances(y, means, variances, scaled)[1]  # [K, L, B]
            extended = torch.cat([expected, torch.ones_like(shares)[:, None]], dim=1)
            weighted = extended * shares[:, None]
            inner = weighted @ extended.transpose(1, 2)
            inner[:, :-1, :-1] += shares.sum(1)[:, None, None] * inverse
            sums["nats"] += total.sum()
            sums["counts"] += shares.sum(1)
            sums["squares"] += shares @ y.square()
            sums["outer"] += (weighted @ y).transpose(1, 2)
            sums["inner"] += inner
        return sums

    def _maximise(self, sums: dict[str, Tensor]) -> int:
        """Set the most likely parameters; return the number of components on a single sample."""
        counts = sums["counts"]
        kept = (counts > 1e-6)[:, None]
        held = counts.clamp(min=1e-6)[:, None]
        ones = torch.eye(sums["inner"].shape[1], dtype=counts.dtype, device=counts.device)
        both = torch.linalg.solve(sums["inner"] + 1e-12 * ones, sums["outer"].transpose(1, 2)).transpose(1, 2)
        variances = (sums["squares"] - (both * sums["outer"]).sum(2)) / held
        least = LEVEL_DEVIATION**2
        raw = 0.5 * torch.log((variances - least).clamp(min=1e-6 * least))
        self.loadings.copy_(torch.where(kept[..., None], both[..., :-1], self.loadings.double()))
        self.means.copy_(torch.where(kept, both[..., -1], self.means.double()))
        self.log_deviations.copy_(torch.where(kept, raw, self.log_deviations.double()))
        self.logits.copy_((counts / counts.sum()).clamp(min=1e-12).log())
        return int(((variances <= least).all(1) & (counts < LONELY)).sum())


def _distances(y: Tensor, means: Tensor, variances: Tensor, scaled: Tensor) -> tuple[Tensor, Tensor]:
    """Return (y - m)^T V^-1 (y - m) [K, B] and A^T V^-1 (y - m) [K, L, B] for y [B, D]."""
    inverse = 1 / variances
    squares = inverse @ y.square().T - 2 * (means * inverse) @ y.T + (means.square() * inverse).sum(1, keepdim=True)
    projected = scaled.transpose(1, 2) @ y.T - (scaled.transpose(1, 2) @ means[..., None])
    return squares, projected


def mixture_of_factor_analysers(model: ModelConfig, data: DataConfig) -> dict[str, nn.Module]:
    """Build the network."""
    shape = (data.channels, data.image_size, data.image_size)
    return {"density": FactorAnalysers(shape, model.components, model.factors)}
