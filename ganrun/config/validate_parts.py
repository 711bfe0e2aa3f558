"""Conflicts of the sections `evaluate` and `optimizer`: the keys involved, and the message."""

from collections.abc import Iterator

from ganrun.config.schedules import Schedule
from ganrun.config.schema import Config, EvaluateConfig
from ganrun.config.schema_optimizer import PlayerOptimizerConfig
from ganrun.config.score_names import HIGHER_IS_BETTER, OF_GAMES, OF_HOLES, OF_HORIZONS, OF_POINTS, PAIRED

Faults = Iterator[tuple[set[str], str]]
MODES = ("modes_covered", "mode_kl")
"""Values of the score `modes`."""
UNUSED = {
    "adam": {"momentum": "sgd", "weight_decay": "adamw or sgd"},
    "adamw": {"momentum": "sgd"},
    "sgd": dict.fromkeys(("beta1", "beta2", "epsilon"), "adam or adamw"),
}
"""Settings that a built-in optimizer does not have, and those that have them."""


def of_points(config: Config) -> bool:
    """Return True if the run generates points."""
    return config.objective.target in config.data.fields and config.target.kind == "point"


def _fills(config: Config) -> bool:
    """Return True if the run fills what is missing."""
    return config.objective.condition == "masked"


def score_names(config: Config) -> list[str]:
    """Return the names that `evaluate.best.metric` and `tune.metric` may have."""
    metrics = [name for name in config.evaluate.metrics if name not in ("modes", "horizons")]
    if of_points(config) and not _fills(config):
        return ["distance", *MODES, "high_quality_share", *metrics]
    if "horizons" in config.evaluate.metrics:
        metrics += OF_HORIZONS[: 2 * config.objective.past_frames.horizons]
    return ["distance", *metrics, *(MODES if "modes" in config.evaluate.metrics else ())]


def score_conflicts(config: Config) -> Faults:
    """Yield scores that the data does not have, two held-out rules, and selections of a score that is not computed."""
    yield from _point_conflicts(config)
    yield from _pair_conflicts(config)
    share, shards = config.evaluate.held_out_share, config.evaluate.shards
    if share and shards is not None:
        yield (
            {"evaluate.held_out_share", "evaluate.shards"},
            f"evaluate.held_out_share: {share} and evaluate.shards: {shards} are both set; leave one of them out",
        )
    selections = [("evaluate.best", config.evaluate.best.metric, config.evaluate.best.mode)]
    if config.tune:
        selections.append(("tune", config.tune.metric, config.tune.mode))
    for where, metric, mode in selections:
        names = score_names(config)
        if metric not in names:
            advice = f"add it to evaluate.metrics: {list(config.evaluate.metrics)}"
            if metric in ("modes", "horizons"):
                values = MODES if metric == "modes" else OF_HORIZONS[:2]
                advice = f"name one of its values, {' or '.join(values)}"
            yield (
                {f"{where}.metric", "evaluate.metrics"},
                f"{where}.metric: {metric} is not computed; allowed: {', '.join(names)}; {advice}",
            )
        elif mode is None and metric not in HIGHER_IS_BETTER:
            yield (
                {f"{where}.mode", f"{where}.metric"},
                f"{where}.mode: missing; say which {metric} is better: min or max",
            )


def _point_conflicts(config: Config) -> Faults:
    """Yield image settings used with points, which are scored by mode coverage, or by what was missing of them."""
    wrong = [name for name in config.evaluate.metrics if name in OF_POINTS]
    if wrong and not (of_points(config) and _fills(config)):
        yield (
            {"evaluate.metrics", "objective.condition"},
            f"evaluate.metrics: {wrong[0]} is of missing numbers of points, which this run does not fill; leave it out",
        )
    if not of_points(config):
        return
    of_real_points = {"bits_per_dimension", "duality_gap"} & {*config.evaluate.metrics}
    held_out = () if of_real_points or _fills(config) else ("held_out_share", "shards")
    of_images = {*HIGHER_IS_BETTER, "modes", "horizons"} - {"bits_per_dimension", *OF_POINTS, *OF_GAMES}
    by = "what was missing of them" if _fills(config) else "the modes that they cover"
    for key in ("extractor", "extractor_weights", "metrics", *held_out):
        value = getattr(config.evaluate, key)
        shown = value if key != "metrics" else [name for name in value if name in of_images]
        if shown and value != EvaluateConfig.model_fields[key].default:
            yield (
                {f"evaluate.{key}", "data.fields"},
                f"evaluate.{key}: {shown} is for images; points are scored by {by}: leave it out",
            )


def _pair_conflicts(config: Config) -> Faults:
    """Yield scores of pairs of a run whose generated images belong to no real ones."""
    condition = config.objective.condition_with(config.model.classes)
    holes = [name for name in config.evaluate.metrics if name in OF_HOLES]
    if holes and condition in ("source", "low_resolution", "past_frames"):
        yield (
            {"evaluate.metrics", "objective.condition"},
            f"evaluate.metrics: {holes[0]} is of holes, but objective.condition: {condition} has none; leave it out",
        )
    if "horizons" in config.evaluate.metrics and condition in ("none", "label", "source", "low_resolution", "masked"):
        yield (
            {"evaluate.metrics", "objective.condition"},
            f"evaluate.metrics: horizons is of frames, but objective.condition: {condition} has none; leave it out",
        )
    paired = [name for name in config.evaluate.metrics if name in PAIRED and name not in OF_POINTS]
    if condition in ("none", "label", "text") and paired:
        yield (
            {"evaluate.metrics", "objective.condition"},
            f"evaluate.metrics: {paired[0]} compares with the real image that belongs to a condition, but "
            f"objective.condition: {condition} has none; leave it out, or name a condition made of pictures",
        )


def optimizer_conflicts(config: Config) -> Faults:
    """Yield settings that the optimizer of a player does not have."""
    for player in sorted(config.optimizer.players):
        settings = config.optimizer.of(player)
        for key, having in UNUSED.get(settings.name, {}).items():
            if (value := getattr(settings, key)) != PlayerOptimizerConfig.model_fields[key].default:
                where = f"optimizer.{player}"
                yield (
                    {f"{where}.{key}", f"{where}.name"},
                    f"{where}.{key}: {value} has no effect with {where}.name: {settings.name}; leave it out, "
                    f"or take {having}",
                )
        if isinstance(settings.learning_rate, Schedule) and settings.schedule != "constant":
            where = f"optimizer.{player}"
            yield (
                {f"{where}.schedule", f"{where}.learning_rate"},
                f"{where}.schedule: {settings.schedule}, but {where}.learning_rate has a schedule of its own; leave "
                "one of them out",
            )


def direction(metric: str, mode: str | None) -> str | None:
    """Return `min` or `max`: the mode if it is set, else that of the built-in score; None if it has none."""
    if mode or metric not in HIGHER_IS_BETTER:
        return mode
    return "max" if HIGHER_IS_BETTER[metric] else "min"
