"""Subjects of the scores of games: networks set by hand or trained for seconds, and their data."""

import torch
from torch import nn

from ganrun.config.schema import EvaluateConfig, FieldConfig
from ganrun.config.schema_duality_gap import DualityGapConfig
from ganrun.data.index import open_data
from ganrun.data.scored import open_scored
from ganrun.evaluation.duality_gap import DualityGap
from ganrun.evaluation.generated_images import GeneratedImages
from ganrun.evaluation.modes import mixture
from ganrun.evaluation.real_images import RealImages
from ganrun.evaluation.score import ScoreSubject
from ganrun.games.build import build_game
from tests.conftest import config_of

CPU = torch.device("cpu")


class FromMixture(nn.Module):
    """Generator of points of a known mixture itself: a uniform z [B, 3] chooses the mode, and the place in it.

    Args:
        kind: name of the mixture, of points of two numbers.
        modes: the modes that it knows; None: all.
    """

    def __init__(self, kind, modes=None):
        super().__init__()
        of = mixture(kind)
        self.centres = nn.Parameter(torch.tensor(of.centres / of.scale)[slice(None) if modes is None else modes])
        self.deviation = of.sd / of.scale

    def forward(self, z, label=None):
        chosen = ((z[:, 0] + 1) / 2 * len(self.centres)).long().clamp(max=len(self.centres) - 1)
        place = 1.414213562 * torch.erfinv(z[:, 1:].clamp(-1 + 1e-6, 1 - 1e-6))
        return (self.centres[chosen] + self.deviation * place)[:, :, None, None]


def ring_values(shards, **changes):
    """Config values of a small GAN on a ring of 8 Gaussians."""
    adam = {"learning_rate": 2e-3, "beta1": 0.0, "beta2": 0.99}
    return {
        "run": {"name": "ring", "storage": "runs"},
        "data": {
            "shards": str(shards),
            "image_size": 1,
            "channels": 2,
            "batch_size": 128,
            "slots": 1,
            "fields": {"image": "point"},
        },
        "model": {"name": "mlp", "width": 64, "latent_size": 3, "latent": "uniform"},
        "objective": {"loss": "non_saturating", "penalties": {"r1": 0.02}},
        "optimizer": {"discriminator": adam, "generator": adam},
        "train": {"total_images": 1_000_000, "average_half_life_images": 5_000},
    } | changes


def game_of(values, **changes):
    return build_game(config_of(values, **changes), CPU)


def subject_of(game, shards, kind="point", samples=600, group=None, networks=None, share=0.25):
    """What is scored: networks of a game beside held-out samples; none of `share` 0."""
    data = open_scored(open_data(str(shards)), EvaluateConfig(held_out_share=share), samples)
    reals = RealImages(data, samples, {"image": FieldConfig(kind=kind)})
    generated = GeneratedImages(game, networks or game.networks, 0)
    return ScoreSubject(generated, samples, None, reals, group=group)


def gap_of(subject, steps=50, learning_rate=1e-3):
    """Values of the duality gap of one process."""
    score = DualityGap(DualityGapConfig(steps=steps, learning_rate=learning_rate))
    assert score.unavailable(subject) is None
    return score.result(score.start(subject), None)
