"""Conflicts of the scores of games and of networks whose game is known: the keys involved, and the message."""

from ganrun.config.schema import Config
from ganrun.config.schema_duality_gap import DualityGapConfig
from ganrun.config.score_names import DIVERGENCES
from ganrun.config.validate_parts import Faults, of_points


def game_conflicts(config: Config) -> Faults:
    """Yield duality gaps that a game does not have, divergences of images, and a z that does not fit its network."""
    if "duality_gap" in config.evaluate.metrics:
        yield from _gap_conflicts(config)
    elif config.evaluate.duality_gap != DualityGapConfig():
        yield (
            {"evaluate.duality_gap", "evaluate.metrics"},
            "evaluate.duality_gap: has no effect without its score; add duality_gap to evaluate.metrics",
        )
    found = [name for name in config.evaluate.metrics if name in DIVERGENCES]
    if found and config.objective.target in config.data.fields and not of_points(config):
        yield (
            {"evaluate.metrics", "data.fields"},
            f"evaluate.metrics: {found[0]} needs the density of the data, which points of a known mixture have and "
            "images do not; leave it out",
        )
    model, channels = config.model, config.data.channels
    if model.name == "linear_quadratic" and (model.latent_size, model.latent) != (channels, "normal"):
        yield (
            {"model.latent_size", "model.latent", "model.name", "data.channels"},
            f"model.latent_size: {model.latent_size} and model.latent: {model.latent}, but model.name: "
            f"linear_quadratic has a normal z of data.channels: {channels}; set model.latent_size={channels} "
            "model.latent=normal",
        )


def _gap_conflicts(config: Config) -> Faults:
    objective, evaluate = config.objective, config.evaluate
    if objective.game in ("likelihood", "inversion"):
        yield (
            {"evaluate.metrics", "objective.game"},
            f"evaluate.metrics: duality_gap is of two players, but objective.game: {objective.game} has one; leave it "
            "out",
        )
    if objective.game == "gain":
        yield (
            {"evaluate.metrics", "objective.game"},
            "evaluate.metrics: duality_gap is of two players with one value, but those of objective.game: gain have "
            "two; leave it out",
        )
    others = [key for key in ("reconstruction", "feature_matching") if getattr(objective, key)]
    if objective.game == "gan" and others:
        yield (
            {"evaluate.metrics", f"objective.{others[0]}"},
            f"evaluate.metrics: duality_gap is of two players with one value, but the generator of "
            f"objective.{others[0]} has another aim; leave one of them out",
        )
    if not evaluate.held_out_share and evaluate.shards is None:
        yield (
            {"evaluate.metrics", "evaluate.held_out_share", "evaluate.shards"},
            "evaluate.metrics: duality_gap needs held-out samples, and nothing is held out; set "
            "evaluate.held_out_share=0.1, or evaluate.shards",
        )
