"""A user's module as docs/extending.md of format 1 had it; it must go on to work."""

from ganrun.latent import Latent
from ganrun.losses import AdversarialLoss
from ganrun.tables import GAMES, LOSSES, NETWORKS, PENALTIES
from torch.nn.functional import softplus

from ganrun.games.game import Game, Loss, Player
from ganrun.models.dcgan import Discriminator, Generator


# A network: a function of the sections `model` and `data` that gives networks by name.
def lopsided(model, data):
    return {
        "generator": Generator(data.image_size, data.channels, 2 * model.width, model.latent_size),
        "discriminator": Discriminator(data.image_size, data.channels, model.width),
    }


NETWORKS["lopsided"] = lopsided

# A loss: what each player makes of the logits of real and generated images; both are minimised.
LOSSES["softened"] = AdversarialLoss(
    discriminator=lambda real, fake: 0.9 * softplus(-real).mean() + softplus(fake).mean(),
    generator=lambda fake: softplus(-fake).mean(),
)


# A game: players, each with networks of its own and a loss over a batch. This one has a single player.
class Decoder(Player):
    name = "generator"  # whose settings in the section `optimizer` it takes

    def forward(self, batch, draw, others):
        """|G(z) - x|^2 for as many z as images: it can only learn their mean."""
        images = batch["image"]
        z = self.latent.draw(draw, len(images), "decoder/z")
        return Loss((self.owned["generator"](z) - images).square().mean(), {})


def mean_image(networks, objective, model):
    player = Decoder(generator=networks["generator"])
    player.latent = Latent(model.latent_size, model.latent)
    return Game(
        networks={"generator": networks["generator"]},
        players=(player,),
        averaged=("generator",),
        latent=player.latent,
        sample=lambda networks, z, label: networks["generator"](z),
    )


GAMES["mean_image"] = mean_image


# A penalty, which docs/extending.md describes in a sentence.
def tiny(discriminator, real, fake, label, draw):
    return 1e-3 * discriminator(real + draw.normal(*real.shape, purpose="tiny/noise"), label).square().mean()


PENALTIES["tiny"] = tiny
