"""Encoder of images to latents, for the game `inversion`.

Shapes: B batch, Z latent size, C image channels, S image size, W width.
"""

from torch import Tensor, nn

from ganrun.models.dcgan import Encoder


class LatentEncoder(nn.Module):
    """Images [B, C, S, S] in [-1, 1] -> z [B, Z]: the layers of DCGAN's discriminator down to 4x4, and a linear one.

    Args:
        image_size, channels, width, latent_size: S, C, W, Z.
    """

    def __init__(self, image_size: int, channels: int, width: int, latent_size: int) -> None:
        super().__init__()
        self.layers = Encoder(image_size, channels, width)
        halvings = len(self.layers.layers)
        last, side = width * 2 ** (halvings - 1), image_size // 2**halvings
        self.head = nn.Linear(last * side**2, latent_size)

    def forward(self, images: Tensor) -> Tensor:
        """Return z."""
        z: Tensor = self.head(self.layers(images)[-1].flatten(1))
        return z
