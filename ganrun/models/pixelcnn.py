"""PixelCNN with two streams (van den Oord et al. 2016, arXiv:1606.05328; Salimans et al. 2017, arXiv:1701.05517).

    p(x) = prod_ij p(x_ij | pixels above row i, and left of j in row i)

The rows stream sees all rows above, the pixels stream in addition what is left of it in its row, so there is no blind
spot. Each is a stack of gated residual blocks over shifted inputs. A conditional is a mixture of K discretised
logistics (`logistic_mixture.py`) that all channels of a pixel share; the means of a channel are linear in the channels
before it (arXiv:1701.05517, eq. 3).

Sampling takes one pass over the rows stream per row and one over the pixels stream per pixel, for the new row or pixel
alone: features of the row above and the pixel to the left are kept (Ramachandran et al. 2017, arXiv:1704.06001).

Shapes: B batch, C channels, H and W pixels, F `model.width`, K components.
"""

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ganrun.config.schema import DataConfig, ModelConfig
from ganrun.models import logistic_mixture
from ganrun.models.density import Density
from ganrun.models.dropout import dropout
from ganrun.rng import KeyedNoise

PAD = (1, 1, 1, 0)
"""Zeros left, right and above: a 2x3 convolution then sees its own row and the one above."""


class Block(nn.Module):
    """Gated residual block of both streams: h + a * sigmoid(b), with [a, b] of a convolution of h.

    Args:
        width: F.
        dropout: share of features that is dropped in training.
    """

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.rows_in, self.rows_out = nn.Conv2d(width, width, (2, 3)), nn.Conv2d(width, 2 * width, 1)
        self.pixels_in, self.pixels_out = nn.Conv2d(width, width, (1, 2)), nn.Conv2d(width, 2 * width, 1)
        self.down = nn.Conv2d(width, width, 1)

    def forward(self, rows: Tensor, pixels: Tensor, noise: KeyedNoise) -> tuple[Tensor, Tensor]:
        """Return both streams after the block, each [B, F, H, W]."""
        rows = rows + self.rows_step(F.elu(F.pad(rows, PAD)), noise)
        return rows, pixels + self.pixels_step(F.elu(F.pad(pixels, (1, 0))), self.down(rows), noise)

    def rows_step(self, padded: Tensor, noise: KeyedNoise | None) -> Tensor:
        """Return what is added to rows of the rows stream, of those and the row above, [B, F, H + 1, W + 2]."""
        return _gated(self.rows_out, F.elu(self.rows_in(padded)), self._kept(noise, "rows"))

    def pixels_step(self, padded: Tensor, down: Tensor, noise: KeyedNoise | None) -> Tensor:
        """Return what is added to pixels of the pixels stream.

        Args:
            padded: those and the pixel to the left, [B, F, H, W + 1].
            down: of the rows stream, [B, F, H, W].
            noise: noise of the dropout; None: no dropout.
        """
        return _gated(self.pixels_out, F.elu(self.pixels_in(padded) + down), self._kept(noise, "pixels"))

    def _kept(self, noise: KeyedNoise | None, name: str) -> Callable[[Tensor], Tensor]:
        if noise is None or not (self.training and self.dropout):
            return lambda features: features
        return lambda features: dropout(features, self.dropout, noise, name)


def _gated(out: nn.Conv2d, features: Tensor, kept: Callable[[Tensor], Tensor]) -> Tensor:
    added, gate = torch.chunk(out(kept(features)), 2, dim=1)
    return added * torch.sigmoid(gate)


class PixelCnn(Density):
    """Images [B, C, S, S] of 256 levels.

    Args:
        channels, image_size, width, components: C, S, F, K.
        blocks: number of residual blocks.
        dropout: share of features that is dropped in training.
    """

    def __init__(
        self, channels: int, image_size: int, width: int, components: int, blocks: int, dropout: float
    ) -> None:
        super().__init__()
        self.shape, self.components, self.width = (channels, image_size, image_size), components, width
        self.sample_passes = image_size + image_size**2  # Of the rows stream and the pixels stream, for one new part.
        # A plane of ones marks the border, where zeros are padded.
        self.rows_first = nn.Conv2d(channels + 1, width, (2, 5))
        self.pixels_first, self.down_first = nn.Conv2d(channels + 1, width, (1, 3)), nn.Conv2d(width, width, 1)
        self.blocks = nn.ModuleList(Block(width, dropout) for _ in range(blocks))
        numbers = 1 + 2 * channels + channels * (channels - 1) // 2
        self.last = nn.Conv2d(width, numbers * components, 1)
        with torch.no_grad():
            bias = self.last.bias
            assert bias is not None
            bias.view(numbers, components).zero_()[1 : 1 + channels] = torch.linspace(-1, 1, components)

    @property
    def _blocks(self) -> list[Block]:
        return cast(list[Block], list(self.blocks))

    def log_prob(self, images: Tensor, noise: KeyedNoise, samples: int = 1) -> Tensor:
        """Return log P(x), [B]."""
        return self._log_prob_of(images.permute(0, 2, 3, 1), self.mixtures(images, noise)).flatten(1).sum(1)

    def mixtures(self, images: Tensor, noise: KeyedNoise) -> Tensor:
        """Return the outputs of the network for each pixel, [B, H, W, numbers K]."""
        x = F.pad(images, (0, 0, 0, 0, 0, 1), value=1.0)
        # Rows i - 2 and i - 1, columns j - 2 .. j + 2; pixels j - 3 .. j - 1 of row i.
        rows = self.rows_first(F.pad(x, (2, 2, 2, 0))[:, :, :-1])
        pixels = self.pixels_first(F.pad(x, (3, 0))[..., :-1]) + self.down_first(rows)
        for number, block in enumerate(self._blocks):
            rows, pixels = block(rows, pixels, noise.under(f"pixelcnn/{number}"))
        mixtures: Tensor = self.last(F.elu(pixels)).to(images.dtype)
        return mixtures.permute(0, 2, 3, 1)

    def _log_prob_of(self, x: Tensor, mixtures: Tensor) -> Tensor:
        """Return log P of pixels [..., C] under the outputs of the network [..., numbers K]."""
        logits, means, log_scales, slopes = self._split(mixtures)
        parts = F.log_softmax(logits, dim=-1)
        for channel in range(x.shape[-1]):
            mean = self._mean(channel, x, means, slopes)
            parts = parts + logistic_mixture.component_log_prob(
                x[..., channel, None], mean, log_scales[..., channel, :]
            )
        return torch.logsumexp(parts, dim=-1)

    def _split(self, mixtures: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return logits [..., K], means and log scales [..., C, K] and slopes [..., C (C - 1) / 2, K]."""
        channels = self.shape[0]
        numbers = mixtures.reshape(*mixtures.shape[:-1], -1, self.components)
        logits, rest = numbers[..., 0, :], numbers[..., 1:, :]
        return logits, rest[..., :channels, :], rest[..., channels : 2 * channels, :], rest[..., 2 * channels :, :]

    @staticmethod
    def _mean(channel: int, x: Tensor, means: Tensor, slopes: Tensor) -> Tensor:
        """Return the means of a channel, [..., K], shifted by the channels before it."""
        mean, first = means[..., channel, :], channel * (channel - 1) // 2
        for before in range(channel):
            mean = mean + torch.tanh(slopes[..., first + before, :]) * x[..., before, None]
        return mean

    def sample(self, count: int, noise: KeyedNoise) -> Tensor:
        """Draw images, pixel by pixel."""
        channels, height, width = self.shape
        uniform = noise.uniform(count, height, width, 1 + channels, name="pixelcnn/sample")
        x = uniform.new_zeros(
            count, channels + 1, height + 2, width + 5
        )  # Two rows above, three columns left, two right.
        x[:, -1, 2:, 3:-2] = 1.0
        above = [uniform.new_zeros(count, self.width, 1, width) for _ in self.blocks]
        for i in range(height):
            downs = self._row(x[:, :, i : i + 2, 1:], above)
            self._fill_row(x[:, :, i + 2 : i + 3], downs, uniform[:, i])
        return x[:, :channels, 2:, 3:-2].contiguous()

    def _row(self, x: Tensor, above: list[Tensor]) -> list[Tensor]:
        """Pass a row through the rows stream; return what the pixels stream takes of it, first and for each block.

        Args:
            x: the two rows above with the plane of ones, [B, C + 1, 2, W + 4].
            above: input of each block for the row above, [B, F, 1, W]; becomes that for this row.
        """
        rows = self.rows_first(x)
        downs = [self.down_first(rows)]
        for number, block in enumerate(self._blocks):
            both = torch.cat([above[number], rows], dim=2)
            above[number] = rows
            rows = rows + block.rows_step(F.elu(F.pad(both, (1, 1))), None)
            downs.append(block.down(rows))
        return downs

    def _fill_row(self, row: Tensor, downs: list[Tensor], uniform: Tensor) -> None:
        """Draw the pixels of a row, [B, C + 1, 1, W + 5] from column 3 on, in place."""
        channels, _, width = self.shape
        left = [row.new_zeros(len(row), self.width, 1, 1) for _ in self.blocks]
        for j in range(width):
            pixel = self.pixels_first(row[..., j : j + 3]) + downs[0][..., j : j + 1]
            for number, block in enumerate(self._blocks):
                both = torch.cat([left[number], pixel], dim=3)
                left[number] = pixel
                pixel = pixel + block.pixels_step(F.elu(both), downs[number + 1][..., j : j + 1], None)
            mixtures = self.last(F.elu(pixel))[:, :, 0, 0]
            row[:, :channels, 0, j + 3] = self._draw(mixtures.to(row.dtype), uniform[:, j])

    def _draw(self, mixtures: Tensor, uniform: Tensor) -> Tensor:
        """Draw pixels [B, C] of mixtures [B, numbers K], by U[0, 1) numbers [B, 1 + C]."""
        logits, means, log_scales, slopes = self._split(mixtures)
        component = logistic_mixture.choose(uniform[:, 0], logits)[:, None]
        x = uniform.new_zeros(len(uniform), self.shape[0])
        for channel in range(self.shape[0]):
            mean = self._mean(channel, x, means, slopes).gather(-1, component)[:, 0]
            scale = log_scales[:, channel].gather(-1, component)[:, 0]
            drawn = logistic_mixture.quantile(uniform[:, 1 + channel], mean, scale)
            x[:, channel] = logistic_mixture.nearest_level(drawn)
        return x


def pixelcnn(model: ModelConfig, data: DataConfig) -> dict[str, nn.Module]:
    """Build the network."""
    network = PixelCnn(data.channels, data.image_size, model.width, model.components, model.blocks or 5, model.dropout)
    return {"density": network}
