"""Bad input of the game `likelihood`: one line each, that names key, value and what to do."""

import pytest
import torch

from ganrun.config.load import load_config
from ganrun.errors import UserError
from ganrun.games.build import build_game
from tests.densities.runs import run_config

FAULTS = {
    "size": (
        ("realnvp_fashion", "data.crop=30", "data.image_size=30"),
        "data.image_size: 30 does not fit model.name: realnvp, which halves it; allowed: multiples of 4",
    ),
    "bits of a GAN": (
        ("quickstart", "evaluate.metrics=[bits_per_dimension]"),
        "evaluate.metrics: bits_per_dimension needs a density, which objective.game: gan does not have",
    ),
    "networks of a GAN": (
        ("quickstart", "objective.game=likelihood"),
        "model.name: dcgan does not play objective.game: likelihood; take objective.game: gan, or a model.name of",
    ),
    "density in a GAN": (
        ("made_fashion", "objective.game=gan"),
        "model.name: made does not play objective.game: gan; take objective.game: likelihood",
    ),
    "penalty": (
        ("made_fashion", "objective.penalties={r1: 1}"),
        "objective.penalties: {'r1': 1.0} has no effect with objective.game: likelihood; leave it out",
    ),
    "player": (
        ("made_fashion", "optimizer.generator.learning_rate=1e-3"),
        "optimizer.generator: objective.game: likelihood has no such player; set optimizer.density",
    ),
    "player of a GAN": (("quickstart", "optimizer.density.learning_rate=1e-3"), "optimizer.density: unknown key"),
    "classes": (
        ("made_fashion", "model.classes=10", "data.fields={image: image, label: label}"),
        "objective.condition: label does not go with objective.game: likelihood",
    ),
    "EM": (
        ("made_fashion", "objective.likelihood.em_passes=3"),
        "objective.likelihood.em_passes: 3 has no effect with model.name: made; leave it out, or take model.name: "
        "mixture or mixture_of_factor_analysers",
    ),
    "importance samples": (
        ("made_fashion", "objective.likelihood.importance_samples=3"),
        "objective.likelihood.importance_samples: 3 has no effect with model.name: made",
    ),
    "unused": (("vae_fashion", "model.blocks=3"), "model.blocks: 3 has no effect with model.name: vae; leave it out"),
    "slow samples": (
        ("pixelcnn_fashion", "evaluate.where=workers"),
        "evaluate.where: workers would stop training for the slow samples of model.name: pixelcnn; set "
        "evaluate.where: task",
    ),
    "points": (
        ("heights_mixture", "model.name=made"),
        "model.name: made takes images, but data.fields.image is a point; take mixture",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_one_line(fault):
    (name, *overrides), message = FAULTS[fault]
    with pytest.raises(UserError) as caught:
        load_config(f"configs/{name}.yaml", list(overrides))
    assert message in str(caught.value)
    assert len([line for line in str(caught.value).splitlines() if message in line]) == 1


@pytest.mark.parametrize(
    "name",
    ["heights_mixture", "heights_gan", *(f"{m}_fashion" for m in ("mixture", "made", "pixelcnn", "realnvp", "vae"))],
)
def test_the_configs_of_the_package_are_valid(name):
    load_config(f"configs/{name}.yaml")


def test_a_game_of_another_network_is_refused(values):
    from ganrun.config.registry import NETWORKS

    NETWORKS["mine"] = lambda model, data: NETWORKS["dcgan"](model, data)
    config = run_config(values, "glow")
    config = config.model_copy(update={"model": config.model.model_copy(update={"name": "mine"})})
    config = config.model_copy(update={"data": config.data.model_copy(update={"image_size": 16, "crop": 16})})
    with pytest.raises(UserError, match=r"objective\.game: likelihood needs a network `density`"):
        build_game(config, torch.device("cpu"))
