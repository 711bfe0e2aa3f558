"""Conflicts of the game `inversion`: the keys involved, and the message."""

from ganrun.config.registry import NETWORKS, NetworkFamily
from ganrun.config.schema import Config
from ganrun.config.schema_optimizer import OptimizerConfig, PlayerOptimizerConfig
from ganrun.config.validate_likelihood import without_effect
from ganrun.config.validate_parts import Faults, of_points


def inversion_conflicts(config: Config) -> Faults:
    """Yield settings that the game `inversion` does not have or that only it has, and runs that it cannot invert."""
    objective, model = config.objective, config.model
    if objective.game != "inversion":
        if objective.of is not None:
            yield (
                {"objective.of", "objective.game"},
                f"objective.of: {objective.of} has no effect with objective.game: {objective.game}; set objective.game:"
                " inversion, or take run.start_from",
            )
        return
    if objective.of is None:
        yield (
            {"objective.of", "objective.game"},
            "objective.of: missing; objective.game: inversion needs the run whose generator is inverted",
        )
    family = NETWORKS.get(model.name) or NetworkFamily("")  # A module of run.imports may have any generator.
    if family.game not in (None, "gan") or family.pictures == "must" or of_points(config):
        yield (
            {"model.name", "objective.game"},
            f"model.name: {model.name} does not go with objective.game: inversion, which inverts generators of images "
            "with a z; take dcgan, resnet, r3gan or stylegan2, as the run that objective.of names",
        )
    condition = objective.condition_with(model.classes)
    if condition not in ("none", "label"):
        yield (
            {"objective.condition", "objective.game"},
            f"objective.condition: {condition} does not go with objective.game: inversion; allowed: none, label",
        )
    yield from without_effect(objective)
    for player in OptimizerConfig.model_fields:
        if config.optimizer.of(player) != PlayerOptimizerConfig():
            yield (
                {f"optimizer.{player}", "objective.game"},
                f"optimizer.{player}: objective.game: inversion has no such player; set optimizer.encoder",
            )
