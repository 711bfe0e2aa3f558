"""Games of one player for tests, `objective.game` if the module is in `run.imports`: parts of its network rest."""

from torch import nn

from ganrun.extend import GAMES, Game, Latent, Loss, Player, SlotBatchNorm2d


class Parts(nn.Module):
    """Parts with a norm and a weight each; a pass runs those that it is told."""

    def __init__(self, classes=4):
        super().__init__()
        self.parts = nn.ModuleList(
            nn.Sequential(nn.Conv2d(1, 2, 3), SlotBatchNorm2d(2), nn.Conv2d(2, 1, 1)) for _ in range(classes)
        )

    def forward(self, images, chosen):
        return sum(self.parts[part](images).tanh().square().mean() for part in chosen)


class Fitter(Player):
    """Minimises the output of some parts of its network."""

    name = "fitter"

    def __init__(self, parts, chosen):
        super().__init__(parts=parts)
        self.chosen = chosen

    def forward(self, batch, noise, others):
        total = self.owned["parts"](batch["image"], self.chosen(noise))
        # Not detached, and of a part that the loss does without: neither may be waited for.
        return Loss(total, {"sum": total, "spare": self.owned["parts"].parts[3][0].weight.sum()})


def game_of(chosen):
    def build(networks, objective, model):
        parts = Parts()
        return Game(
            networks={"parts": parts},
            players=(Fitter(parts, chosen),),
            averaged=("parts",),
            latent=Latent(model.latent_size),
            sample=lambda networks, z, label: z.new_zeros(len(z), 1, 16, 16),
        )

    return build


GAMES["spare"] = game_of(lambda noise: [0, 1])
GAMES["lazy"] = game_of(lambda noise: [0, 1] if noise.round % 3 == 0 else [0])
GAMES["by_slot"] = game_of(lambda noise: [0, 1] if noise.slot % 2 == 0 else [0])
GAMES["twice_in_one_slot"] = game_of(lambda noise: [0, 1, 1] if noise.slot == 1 else [0, 1])
GAMES["other_in_last_slot"] = game_of(lambda noise: [1] if noise.slot == 5 else [0])
GAMES["faulty"] = game_of(lambda noise: noise.nothing)
