"""Conflicts of the game `likelihood`: the keys involved, and the message."""

from ganrun.config.registry import NETWORKS, NetworkFamily
from ganrun.config.schema import Config
from ganrun.config.schema_objective import LikelihoodConfig, ObjectiveConfig
from ganrun.config.schema_optimizer import OptimizerConfig, PlayerOptimizerConfig
from ganrun.config.validate_objective import SECTIONS
from ganrun.config.validate_parts import Faults, of_points

SHARED = ("game", "target", "condition", "likelihood", "gain", "of", *SECTIONS)
"""Keys of `objective` that have an effect, or faults of their own, in each game."""
WITH_EM = ("mixture", "mixture_of_factor_analysers")
"""Networks that `objective.likelihood.em_passes` can fit."""
NUMBER_BY_NUMBER = ("made", "pixelcnn")
"""Networks that draw an image number by number."""


def players(config: Config) -> set[str]:
    """Return the players of ganrun's own games that may have a section of `optimizer`."""
    own = {"likelihood": {"density"}, "inversion": {"encoder"}}
    return {*OptimizerConfig.model_fields, *own.get(config.objective.game, ())}


def likelihood_conflicts(config: Config) -> Faults:
    """Yield networks of another game, and settings that the game `likelihood` does not have, or that only it has."""
    game, name = config.objective.game, config.model.name
    family = NETWORKS.get(name) or NetworkFamily("")
    if family.game and game in ("gan", "likelihood", "gain") and family.game != game:
        others = ", ".join(other for other in NETWORKS if NETWORKS.data[other].game == game)
        yield (
            {"model.name", "objective.game"},
            f"model.name: {name} does not play objective.game: {game}; take objective.game: {family.game}, or a "
            f"model.name of {others}",
        )
        return
    if not family.points and of_points(config):
        yield (
            {"model.name", "data.fields"},
            f"model.name: {name} takes images, but data.fields.{config.objective.target} is a point; take mixture",
        )
    if game == "likelihood":
        yield from _without_a_gan(config)
    yield from _likelihood_settings(config)
    if "bits_per_dimension" in config.evaluate.metrics and game in ("gan", "gain", "inversion"):
        yield (
            {"evaluate.metrics", "objective.game"},
            f"evaluate.metrics: bits_per_dimension needs a density, which objective.game: {game} does not have; leave "
            "it out, or take objective.game: likelihood",
        )


def _without_a_gan(config: Config) -> Faults:
    """Yield settings of GANs."""
    objective = config.objective
    if (condition := objective.condition_with(config.model.classes)) != "none":
        yield (
            {"objective.condition", "model.classes", "objective.game"},
            f"objective.condition: {condition} does not go with objective.game: likelihood, whose densities have no "
            "condition; leave objective.condition and model.classes out",
        )
    yield from without_effect(objective)
    for player in OptimizerConfig.model_fields:
        if config.optimizer.of(player) != PlayerOptimizerConfig():
            yield (
                {f"optimizer.{player}", "objective.game"},
                f"optimizer.{player}: objective.game: likelihood has no such player; set optimizer.density",
            )


def without_effect(objective: ObjectiveConfig) -> Faults:
    """Yield settings of `objective` that only the game `gan` has."""
    for key in ObjectiveConfig.model_fields.keys() - set(SHARED):
        if (value := getattr(objective, key)) != ObjectiveConfig.model_fields[key].default:
            yield (
                {f"objective.{key}", "objective.game"},
                f"objective.{key}: {value} has no effect with objective.game: {objective.game}; leave it out",
            )


def _likelihood_settings(config: Config) -> Faults:
    """Yield settings of `objective.likelihood` that the networks do not have, and pictures that nobody would draw."""
    settings, game, name = config.objective.likelihood, config.objective.game, config.model.name
    allowed = {"em_passes": WITH_EM, "importance_samples": ("vae",), "scored_samples": ("vae",)}
    for key, names in allowed.items():
        value = getattr(settings, key)
        unused = game in ("gan", "gain", "inversion") or (
            name in NETWORKS and name not in names
        )  # Others may take them.
        if value != LikelihoodConfig.model_fields[key].default and unused:
            yield (
                {f"objective.likelihood.{key}", "model.name"},
                f"objective.likelihood.{key}: {value} has no effect with model.name: {name}; leave it out, or take "
                f"model.name: {' or '.join(names)}",
            )
    if name in NUMBER_BY_NUMBER and config.evaluate.every_images and config.evaluate.where == "workers":
        yield (
            {"evaluate.where", "model.name"},
            f"evaluate.where: workers would stop training for the slow samples of model.name: {name}; set "
            "evaluate.where: task",
        )
