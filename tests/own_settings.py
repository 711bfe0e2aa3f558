"""Networks, a game, a loss and a penalty with settings of their own, for tests: `run.imports: [tests.own_settings]`."""

from enum import Enum
from typing import Annotated

import torch
from pydantic import Field
from torch import nn
from torch.nn.functional import softplus

from ganrun.extend import (
    GAMES,
    LOSSES,
    NETWORKS,
    OWN,
    PENALTIES,
    AdversarialLoss,
    Changeable,
    Game,
    Latent,
    Loss,
    Player,
    Settings,
)


class Shade(Enum):
    """A setting of few words."""

    DARK = "dark"
    LIGHT = "light"


class Inner(Settings):
    """Settings within settings."""

    share: Changeable[Annotated[float, Field(ge=0, le=1)]] = 0.5


class Stretch(Settings):
    """Settings of everything here."""

    weight: Changeable[Annotated[float, Field(gt=0)]] = 1.0
    steps: int = 3
    sizes: tuple[int, ...] = (4, 8)
    shade: Shade = Shade.DARK
    inner: Inner = Inner()


OWN["stretch"] = Stretch


class Point(nn.Module):
    def __init__(self, value):
        super().__init__()
        self.value = nn.Parameter(torch.full((), float(value)))

    def forward(self, z, label=None):
        return self.value.tanh() * z.new_ones(len(z), 1, 16, 16)


class Puller(Player):
    name = "puller"

    def __init__(self, own, **owned):
        super().__init__(**owned)
        self.own = own

    def forward(self, batch, noise, others):
        weight = self.own["stretch"].weight
        distance = self.owned["point"].value.square()
        return Loss(weight * distance, {"weight": distance.new_tensor(weight)})


def points(model, data, own):
    return {"point": Point(own["stretch"].steps)}


def pull(networks, objective, model, own):
    return Game(
        networks=networks,
        players=(Puller(own, point=networks["point"]),),
        averaged=(),
        latent=Latent(1),
        sample=lambda networks, z, label: networks["point"](z),
    )


def penalty(discriminator, real, fake, label, noise, own):
    return discriminator(real, label).square().mean() * own["stretch"].weight * own.get("plain", 1)


NETWORKS["points"] = points
GAMES["pull"] = pull
PENALTIES["squared"] = penalty
LOSSES["weighted"] = AdversarialLoss(
    discriminator=lambda real, fake, own: own["stretch"].weight * (softplus(-real).mean() + softplus(fake).mean()),
    generator=lambda fake: softplus(-fake).mean(),
)
