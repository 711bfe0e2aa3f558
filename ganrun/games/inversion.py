"""Inversion: one player, an encoder E that returns the z of which a frozen generator makes a picture.

Zhu et al. 2016 (arXiv:1609.03552), section 3.1: a feed-forward network as the start of a projection. It learns from the
generator's own samples, of which z is known, and from the real images of the run, which are what one brings.

Notation: z noise, c condition, G the generator, x real images. The generator is one of the game's networks, so that
checkpoints have it, but no player's: it keeps the weights of the run that `objective.of` names.
"""

from torch import Tensor, nn, no_grad

from ganrun.config.schema import DataConfig, ModelConfig
from ganrun.config.schema_objective import ObjectiveConfig
from ganrun.errors import UserError
from ganrun.games.calls import generate, takes_z
from ganrun.games.conditions import Condition
from ganrun.games.game import Batch, Game, Loss, Networks, Player
from ganrun.games.latent import Latent
from ganrun.models.given import Given
from ganrun.models.latent_encoder import LatentEncoder
from ganrun.rng import KeyedNoise

LATENT_WEIGHT = 0.1
"""Weight of the squared error of z, whose variance is 1, beside those of pixels in [-1, 1]."""


class EncoderPlayer(Player):
    """Trains the encoder to return the z of an image."""

    name = "encoder"

    def __init__(self, encoder: nn.Module, latent: Latent, condition: Condition, target: str) -> None:
        super().__init__(encoder=encoder)
        self.latent, self.condition, self.target = latent, condition, target

    def forward(self, batch: Batch, noise: KeyedNoise, others: Networks) -> Loss:
        """Return E |G(E(G(z, c)), c) - G(z, c)|^2 + E |G(E(x), c) - x|^2 + LATENT_WEIGHT E |E(G(z, c)) - z|^2."""
        own, generator, encoder = noise.under(self.name), others["generator"], self.owned["encoder"]
        x, c = batch[self.target], self.condition.of(batch, own)
        z = self.latent.draw(own, len(x), "z")
        with no_grad():
            generated = generate(generator, z, c, own)
        found = encoder(generated).to(x.dtype)
        latent = LATENT_WEIGHT * (found - z).square().mean()
        again = (generate(generator, found, c, own) - generated).square().mean()
        real = (generate(generator, encoder(x).to(x.dtype), c, own) - x).square().mean()
        parts = {"latent": latent, "generated": again, "real": real}
        return Loss(again + real + latent, {name: value.detach() for name, value in parts.items()})


def inversion(
    networks: dict[str, nn.Module],
    config: ObjectiveConfig,
    model: ModelConfig,
    condition: Condition,
    data: DataConfig,
) -> Game:
    """Return the game of one encoder, for the generator of the networks.

    Its samples are what encoder and generator make of the generator's own images.
    """
    generator = networks.get("generator")
    if generator is None or not takes_z(generator):
        raise UserError(f"objective.game: inversion needs a generator with a z, which model.name: {model.name} has not")
    channels, size = data.shape(config.target)
    encoder = LatentEncoder(size, channels, model.width, model.latent_size)
    latent = Latent(model.latent_size, model.latent)

    def from_z(networks: Networks, z: Tensor, noise: KeyedNoise, given: Given) -> Tensor:
        return generate(networks["generator"], z, given, noise)

    def sample(networks: Networks, count: int, noise: KeyedNoise, given: Given) -> Tensor:
        images = from_z(networks, latent.draw(noise, count, "z"), noise, given)
        return from_z(networks, networks["encoder"](images).to(images.dtype), noise, given)

    return Game(
        networks={"encoder": encoder, "generator": generator.eval()},
        players=(EncoderPlayer(encoder, latent, condition, config.target),),
        averaged=("encoder",),
        latent=latent,
        sample=sample,
        from_z=from_z,
        condition=condition,
    )
