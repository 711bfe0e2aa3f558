"""A small game that shows labels to conditional networks, so that they are tested apart from `gan`."""

from ganrun.games.game import Game, Loss, Player
from ganrun.losses import hinge
from ganrun.tables import GAMES


class Critic(Player):
    name = "discriminator"

    def forward(self, batch, draw, others):
        real, label, critic = batch["image"], batch["label"], self.owned["discriminator"]
        fake = others["generator"](draw.normal(len(real), 8, purpose="critic"), label).detach()
        real_logits, fake_logits = (critic(images, label).to(draw.dtype) for images in (real, fake))
        return Loss(hinge.discriminator(real_logits, fake_logits), {})


class Maker(Player):
    name = "generator"
    fresh_batch = False

    def forward(self, batch, draw, others):
        label = batch["label"]
        fake = self.owned["generator"](draw.normal(len(label), 8, purpose="maker"), label)
        return Loss(hinge.generator(others["discriminator"](fake, label).to(draw.dtype)), {})


def labelled(networks, objective, model):
    def sample(networks, z, label=None):
        return networks["generator"](z, z.new_zeros(len(z)).long() if label is None else label)

    players = (Critic(discriminator=networks["discriminator"]), Maker(generator=networks["generator"]))
    return Game(dict(networks), players, ("generator",), model.latent_size, sample)


GAMES["labelled"] = labelled
