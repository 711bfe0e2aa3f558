"""Conflicts of the condition `text`: the keys involved, and the message."""

from ganrun.config.registry import NETWORKS, NetworkFamily
from ganrun.config.schema import Config
from ganrun.config.score_names import OF_TEXT
from ganrun.config.validate_parts import Faults

FIELDS = {"embedding": "embedding", "text": "text"}
"""Fields that it reads, with their kinds: the embeddings, and the captions that are shown below pictures."""
OF_GENERATOR = ("interpolation", "conditioning_augmentation")
"""Settings of what the generator learns from sentences."""


def text_conflicts(config: Config) -> Faults:
    """Yield fields that a sentence needs, networks that take none, and terms that need sentences."""
    objective, data = config.objective, config.data
    yield from _score_conflicts(config)
    if objective.condition != "text":
        if "matching_aware" in objective.penalties:
            yield (
                {"objective.penalties", "objective.condition"},
                "objective.penalties: matching_aware is of sentences; set objective.condition: text, or take another",
            )
        return
    missing = [name for name, kind in FIELDS.items() if name not in data.fields or data.fields[name].kind != kind]
    if missing:
        fields = ", ".join(f"{name}: {FIELDS[name]}" for name in missing)
        yield (
            {"objective.condition", "data.fields"},
            f"data.fields: objective.condition: text needs {fields}; add it, with data made by ganrun prepare --embed",
        )
    family = NETWORKS.get(config.model.name) or NetworkFamily("")
    if family.pictures != "may":  # Those that take pictures or none are trunks, which take sentences too.
        yield (
            {"objective.condition", "model.name"},
            f"objective.condition: text does not go with model.name: {config.model.name}; take dcgan or r3gan",
        )
    if objective.text.wrong_pairs and data.batch_size // config.slots < 2:
        yield (
            {"objective.text.wrong_pairs", "data.batch_size", "data.slots"},
            f"objective.text.wrong_pairs: a slot has {data.batch_size // config.slots} image, and no other's sentence; "
            "take a larger data.batch_size, fewer data.slots, or set it to false",
        )
    if objective.text.interpolation and objective.loss == "relativistic":
        yield (
            {"objective.text.interpolation", "objective.loss"},
            "objective.text.interpolation: no real image belongs to what lies between two sentences, with which "
            "objective.loss: relativistic compares; set it to false, or take another loss",
        )
    for name in OF_GENERATOR:
        if getattr(objective.text, name) and objective.feature_matching:
            yield (
                {f"objective.text.{name}", "objective.feature_matching"},
                f"objective.text.{name}: does not go with objective.feature_matching, which knows no sentences; leave "
                "one of them out",
            )


def _score_conflicts(config: Config) -> Faults:
    """Yield scores of sentences of a run that has none, and one without its dual encoder."""
    condition, evaluate = config.objective.condition_with(config.model.classes), config.evaluate
    of_text = [name for name in evaluate.metrics if name in OF_TEXT]
    if of_text and condition in ("none", "label", "source", "low_resolution", "masked", "past_frames"):
        yield (
            {"evaluate.metrics", "objective.condition"},
            f"evaluate.metrics: {of_text[0]} is of sentences, but objective.condition: {condition} has none; leave it "
            "out",
        )
    elif ("matching" in evaluate.metrics) != (evaluate.matcher is not None) and not (
        evaluate.matcher is not None and condition == "text"
    ):
        wanted = "evaluate.metrics: matching needs evaluate.matcher; train one with ganrun matcher, and name its file"
        unused = f"evaluate.matcher: {evaluate.matcher} has no effect without sentences; leave it out"
        yield {"evaluate.matcher", "evaluate.metrics"}, wanted if evaluate.matcher is None else unused
