"""Variational autoencoder (Kingma & Welling 2014, arXiv:1312.6114) of images.

    log p(x) >= E_q log p(x | z) - KL(q(z | x) || N(0, I))   (eq. 3)

or with k samples the tighter log 1/k sum_i p(x | z_i) p(z_i) / q(z_i | x) (Burda et al. 2016, arXiv:1509.00519, eq. 8).
Given z the numbers of an image are independent: each is a mixture of K discretised logistics (`logistic_mixture.py`).

Shapes: B batch, C channels, S image size, a multiple of 4, Z latent size, F width, K components, k samples.
"""

import math

import torch
from torch import Tensor, nn

from ganrun.config.schema import DataConfig, ModelConfig
from ganrun.models import logistic_mixture
from ganrun.models.density import Density
from ganrun.models.dropout import dropout
from ganrun.rng import KeyedNoise


class Vae(Density):
    """Images [B, C, S, S] of 256 levels.

    Args:
        shape: C, S and S.
        width, latent_size, components: F, Z, K.
        dropout: share of the encoder's and the decoder's features that are dropped in training.
    """

    bound = "evidence lower bound"
    takes_samples = True

    def __init__(
        self, shape: tuple[int, int, int], width: int, latent_size: int, components: int, dropout: float
    ) -> None:
        super().__init__()
        self.shape, self.latent_size, self.components, self.dropout = shape, latent_size, components, dropout
        channels, size = shape[0], shape[1] // 4
        self.encoder = nn.Sequential(
            nn.Conv2d(channels, width, 4, 2, 1), nn.ELU(), nn.Conv2d(width, 2 * width, 4, 2, 1), nn.ELU()
        )
        self.to_latent = nn.Linear(2 * width * size**2, 2 * latent_size)
        self.from_latent = nn.Linear(latent_size, 2 * width * size**2)
        self.decoder = nn.Sequential(
            nn.ELU(),
            nn.Conv2d(2 * width, 2 * width, 3, padding=1),
            nn.ELU(),
            nn.ConvTranspose2d(2 * width, width, 4, 2, 1),
            nn.ELU(),
            nn.ConvTranspose2d(width, width, 4, 2, 1),
            nn.ELU(),
            nn.Conv2d(width, 3 * components * channels, 3, padding=1),
        )
        with torch.no_grad():
            bias = self.decoder[-1].bias
            assert isinstance(bias, Tensor)
            bias.view(channels, 3, components).zero_()[:, 1] = torch.linspace(-1, 1, components)

    def encode(self, images: Tensor, noise: KeyedNoise) -> tuple[Tensor, Tensor]:
        """Return mean and log-variance of q(z | x), each [B, Z]."""
        features = self._kept(self.encoder(images).flatten(1), noise, "vae/encoder")
        mean, log_variance = self.to_latent(features).to(images.dtype).chunk(2, dim=1)
        return mean, log_variance

    def decode(self, z: Tensor, noise: KeyedNoise) -> tuple[Tensor, Tensor, Tensor]:
        """Return logits, means and log scales of the components for z [N, Z], each [N, C, S, S, K]."""
        size = self.shape[1] // 4
        features = self._kept(self.from_latent(z), noise, "vae/decoder").view(len(z), -1, size, size)
        mixtures: Tensor = self.decoder(features).to(z.dtype)
        shape = (len(z), self.shape[0], 3, self.components, *self.shape[1:])
        logits, means, log_scales = mixtures.reshape(shape).movedim(3, -1).unbind(2)
        return logits, means, log_scales

    def _kept(self, features: Tensor, noise: KeyedNoise, name: str) -> Tensor:
        if not (self.training and self.dropout):
            return features
        return dropout(features, self.dropout, noise, name)

    def log_prob(self, images: Tensor, noise: KeyedNoise, samples: int = 1) -> Tensor:
        """Return a lower bound of log P(x) with k = `samples`, [B]."""
        mean, log_variance = self.encode(images, noise)
        drawn = noise.normal(len(images), samples, self.latent_size, name="vae/z")
        z = mean[:, None] + torch.exp(0.5 * log_variance)[:, None] * drawn
        repeated = images.repeat_interleave(samples, 0)
        numbers = logistic_mixture.log_prob(repeated, *self.decode(z.flatten(0, 1), noise))
        likelihood = numbers.flatten(1).sum(1).view(-1, samples)
        if samples == 1:
            return likelihood[:, 0] - divergence(mean, log_variance)
        # log p(z) - log q(z | x): the constants of both normals are equal.
        weights = likelihood + 0.5 * (drawn.square() - z.square() + log_variance[:, None]).sum(2)
        return torch.logsumexp(weights, dim=1) - math.log(samples)

    def from_z(self, z: Tensor, noise: KeyedNoise) -> Tensor:
        """Return images drawn from p(x | z), [B, C, S, S], for z [B, Z]."""
        uniform = noise.uniform(len(z), *self.shape, 2, name="vae/sample")
        return logistic_mixture.sample(uniform[..., 0], uniform[..., 1], *self.decode(z, noise))


def divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Return KL(N(m, s^2) || N(0, I)) in nats, [B], of means and log-variances [B, Z] (arXiv:1312.6114, app. B)."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1)


def vae(model: ModelConfig, data: DataConfig) -> dict[str, nn.Module]:
    """Build the networks."""
    shape = (data.channels, data.image_size, data.image_size)
    return {"density": Vae(shape, model.width, model.latent_size, model.components, model.dropout)}
