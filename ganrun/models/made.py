"""MADE, masked autoencoder (Germain et al. 2015, arXiv:1502.03509): a fully visible belief network in one pass.

    p(x) = prod_d p(x_d | x_1 .. x_d-1),

in raster order, the channels of a pixel one after the other. Each conditional is a mixture of K discretised logistics
(`logistic_mixture.py`), where the paper has Bernoullis. Hidden unit j has a degree m_j and sees x_1 .. x_m_j; output d
sees hidden units of degrees below d (eqs. 8 and 9). Direct connections from inputs to outputs (eq. 10) shift the means.

Shapes: B batch, D numbers of an image, W width, K components.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ganrun.config.schema import DataConfig, ModelConfig
from ganrun.models import logistic_mixture
from ganrun.models.density import Density
from ganrun.models.dropout import dropout
from ganrun.rng import KeyedNoise


class MaskedLinear(nn.Linear):
    """A linear layer of which output i sees input j only if j's degree is at most i's, or below it.

    Args:
        inputs, outputs: degrees, [inputs] and [outputs].
        strict: True: below it.
    """

    degree_in: Tensor
    degree_out: Tensor

    def __init__(self, inputs: Tensor, outputs: Tensor, strict: bool = False) -> None:
        super().__init__(len(inputs), len(outputs))
        self.register_buffer("degree_in", inputs + strict, persistent=False)
        self.register_buffer("degree_out", outputs, persistent=False)

    @property
    def masked(self) -> Tensor:
        """Weights with zeros where an output sees no input, [outputs, inputs]."""
        return self.weight * (self.degree_in <= self.degree_out[:, None])

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs, [B, outputs]."""
        return F.linear(x, self.masked, self.bias)


class Made(Density):
    """Images [B, C, S, S] of 256 levels.

    Args:
        channels, image_size, width, components: C, S, W, K.
        dropout: share of hidden units that are dropped in training.
    """

    def __init__(self, channels: int, image_size: int, width: int, components: int, dropout: float) -> None:
        super().__init__()
        self.shape, self.components, self.dropout = (channels, image_size, image_size), components, dropout
        numbers = channels * image_size**2
        self.sample_passes = numbers
        places = torch.arange(1, numbers + 1)
        # Evenly spaced, where the paper draws them.
        hidden = torch.arange(width) * (numbers - 1) // width + 1
        self.first, self.second = MaskedLinear(places, hidden), MaskedLinear(hidden, hidden)
        self.last = MaskedLinear(hidden, places.repeat_interleave(3 * components), strict=True)
        self.direct = MaskedLinear(places, places, strict=True)
        nn.init.zeros_(self.direct.weight)
        nn.init.normal_(self.last.weight, 0.0, 0.01)
        with torch.no_grad():
            bias = self.last.bias.view(numbers, 3, components).zero_()
            bias[:, 1] = torch.linspace(-1, 1, components)  # Means over all levels, of overlapping components.
            bias[:, 2] = -1.0

    def log_prob(self, images: Tensor, noise: KeyedNoise, samples: int = 1) -> Tensor:
        """Return log P(x), [B]."""
        return logistic_mixture.log_prob(_raster(images), *self.mixtures(images, noise)).sum(1)

    def mixtures(self, images: Tensor, noise: KeyedNoise) -> tuple[Tensor, Tensor, Tensor]:
        """Return logits, means and log scales of all conditionals, each [B, D, K]."""
        x = _raster(images)
        hidden = self._drop(F.relu(self.first(x)), noise, "made/first")
        hidden = self._drop(F.relu(self.second(hidden)), noise, "made/second")
        mixtures = self.last(hidden).to(x.dtype).view(*x.shape, 3, self.components)
        logits, means, log_scales = mixtures.unbind(2)
        return logits, means + self.direct(x).to(x.dtype)[..., None], log_scales

    def _drop(self, hidden: Tensor, noise: KeyedNoise, name: str) -> Tensor:
        if not (self.training and self.dropout):
            return hidden
        return dropout(hidden, self.dropout, noise, name)

    def sample(self, count: int, noise: KeyedNoise) -> Tensor:
        """Draw images, number by number. Of each layer only what a new number changes is computed."""
        numbers = self.direct.in_features
        uniform = noise.uniform(count, numbers, 2, name="made/sample")
        first, second, last, direct = self.first.masked, self.second.masked, self.last.masked, self.direct.masked
        last, biases = last.view(numbers, -1, last.shape[1]), self.last.bias.view(numbers, -1)
        x = uniform.new_zeros(count, numbers)
        before = self.first.bias.expand(count, -1).clone()
        for d in range(numbers):
            hidden = F.relu(F.linear(F.relu(before), second, self.second.bias))
            mixture = F.linear(hidden, last[d], biases[d]).view(count, 3, self.components)
            logits, means, log_scales = mixture.unbind(1)
            means = means + (F.linear(x, direct[d : d + 1]) + self.direct.bias[d])
            x[:, d] = logistic_mixture.sample(uniform[:, d, 0], uniform[:, d, 1], logits, means, log_scales)
            before += x[:, d : d + 1] * first[:, d]
        channels, height, width = self.shape
        return x.view(count, height, width, channels).permute(0, 3, 1, 2)


def _raster(images: Tensor) -> Tensor:
    """Return the numbers of images in their order, [B, D]."""
    return images.permute(0, 2, 3, 1).flatten(1)


def made(model: ModelConfig, data: DataConfig) -> dict[str, nn.Module]:
    """Build the network."""
    return {"density": Made(data.channels, data.image_size, model.width, model.components, model.dropout)}
