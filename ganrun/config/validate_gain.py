"""Conflicts of the game `gain`: the keys involved, and the message."""

from ganrun.config.schema import Config
from ganrun.config.schema_objective import GainConfig
from ganrun.config.validate_likelihood import without_effect
from ganrun.config.validate_parts import Faults, of_points


def gain_conflicts(config: Config) -> Faults:
    """Yield settings that the game `gain` does not have or that only it has, and data that it does not fill."""
    objective, settings = config.objective, config.objective.gain
    if objective.game != "gain":
        for key in settings.model_fields_set:
            if (value := getattr(settings, key)) != GainConfig.model_fields[key].default:
                yield (
                    {f"objective.gain.{key}", "objective.game"},
                    f"objective.gain.{key}: {value} has no effect with objective.game: {objective.game}; set "
                    "objective.game: gain",
                )
        return
    yield from without_effect(objective)
    if objective.target in config.data.fields and not of_points(config):
        yield (
            {"objective.game", "data.fields"},
            f"objective.game: gain fills points, but data.fields.{objective.target} is an {config.target.kind}; take "
            "objective.game: gan",
        )
