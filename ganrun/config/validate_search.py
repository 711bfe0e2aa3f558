"""Conflicts of the section `tune` and of `train.schedule`: the keys involved, and the message."""

from collections.abc import Iterator

from ganrun.config.schema import Config
from ganrun.config.schema_tune import MutationConfig, TuneConfig
from ganrun.config.tunable import TUNABLE, is_tunable, value_of

Faults = Iterator[tuple[set[str], str]]
ADA = ("objective.ada_target", "objective.ada_probability")
"""Keys whose 0 means no augmentation: another game."""


def search_conflicts(config: Config) -> Faults:
    """Yield conflicts of `tune`."""
    if (tune := config.tune) is None:
        return
    yield from _interval_conflicts(config, tune)
    yield from _method_conflicts(tune)
    if tune.samples and tune.samples > config.evaluate.samples:
        yield (
            {"tune.samples", "evaluate.samples"},
            f"tune.samples: {tune.samples}, but the last score has evaluate.samples: {config.evaluate.samples}; scores "
            "that compare trials need no more: leave it out, or raise evaluate.samples",
        )
    if config.cluster.fewest_workers < config.cluster.most_workers:
        workers = [config.cluster.fewest_workers, config.cluster.most_workers]
        yield (
            {"cluster.workers", "tune"},
            f"cluster.workers: {workers}, but trials take turns on the same machines: give each one number",
        )
    for key, mutation in tune.mutations.items():
        yield from _mutation_conflicts(config, key, mutation)
    if config.train.schedule and tune.mutations:
        yield {"train.schedule", "tune"}, "train.schedule: a search finds one of its own; leave it out"


def _interval_conflicts(config: Config, tune: TuneConfig) -> Faults:
    every, scored, total = tune.perturb_every_images, config.evaluate.every_images, config.train.total_images
    if total % every:
        yield (
            {"train.total_images", "tune.perturb_every_images"},
            f"train.total_images: {total} is no multiple of tune.perturb_every_images: {every}; trials are compared "
            f"after equally many images: take {max(total // every, 1) * every}",
        )
    if not scored or every % scored:
        yield (
            {"evaluate.every_images", "tune.perturb_every_images"},
            f"evaluate.every_images: {scored}, but at tune.perturb_every_images: {every} each trial needs a score; "
            f"set evaluate.every_images={every}, or a divisor of it",
        )


def _method_conflicts(tune: TuneConfig) -> Faults:
    if tune.method == "population" and tune.population < 2:
        yield {"tune.population"}, f"tune.population: {tune.population} has no other trial to copy; at least 2"
    if tune.method == "seeds" and tune.mutations:
        yield (
            {"tune.mutations", "tune.method"},
            "tune.mutations: with tune.method: seeds trials differ by their seed alone; leave it out",
        )
    if tune.method != "seeds" and not tune.mutations:
        yield (
            {"tune.mutations"},
            f"tune.mutations: none, so tune.method: {tune.method} has nothing to search; name hyper-parameters as "
            "`optimizer.generator.learning_rate: {log_uniform: [1e-5, 1e-3]}`, or take tune.method: seeds",
        )


def _mutation_conflicts(config: Config, key: str, mutation: MutationConfig) -> Faults:
    where = f"tune.mutations.{key}"
    if not is_tunable(key):
        yield {where}, _not_tunable(where)
    given = [name for name in MutationConfig.model_fields if getattr(mutation, name) is not None]
    if len(given) != 1:
        yield (
            {where},
            f"{where}: {' and '.join(given) or 'nothing'} given; name one: {', '.join(MutationConfig.model_fields)}",
        )
    elif mutation.choice is not None and len(mutation.choice) < 2:
        yield {where}, f"{where}: choice: {list(mutation.choice)} leaves nothing to choose; list at least two values"
    elif mutation.choice is None and mutation.ends[0] >= mutation.ends[1]:
        yield {where}, f"{where}: {given[0]}: {list(mutation.ends)} should be two numbers, the smaller first"
    elif mutation.choice is None and isinstance(value_of(config, key), bool | str | list):
        yield {where}, f"{where}: {given[0]} draws numbers, but it is {value_of(config, key)!r}; use choice"
    if isinstance(value_of(config, key), dict):
        yield {where}, f"{where}: changes a number, but {key} has a schedule; give {key} a number"
    if key in ADA and not all(mutation.ends):
        yield {where}, f"{where}: 0 is no weaker augmentation but none at all, which is structural; begin above 0"


def schedule_conflicts(config: Config) -> Faults:
    """Yield conflicts of `train.schedule`."""
    before = 0
    for number, entry in enumerate(config.train.schedule):
        where, images = f"train.schedule.{number}", entry.get("images")
        if isinstance(images, bool) or not isinstance(images, int) or images <= before:
            yield (
                {"train.schedule"},
                f"{where}: images: {images!r} should be a whole number above {before}, from which on the rest holds",
            )
        else:
            before = images
        for key in entry:
            if key != "images" and not is_tunable(key):
                yield {"train.schedule"}, _not_tunable(f"{where}.{key}")
            if key in ADA and bool(entry[key]) != bool(value_of(config, key)):
                yield {"train.schedule"}, f"{where}.{key}: cannot be turned on or off on the way"


def _not_tunable(where: str) -> str:
    return f"{where}: structural, or no such key: it cannot change while a run goes on; allowed: {TUNABLE}"
