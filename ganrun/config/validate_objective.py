"""Conflicts of the generated field, the condition and the losses: the keys involved, and the message."""

from ganrun.config.registry import CROSS_ENTROPIES, DIFFERENCES
from ganrun.config.schema import Config
from ganrun.config.validate_parts import Faults


def size_key(config: Config) -> str:
    """Return the key that sets the size of the generated field."""
    return f"data.fields.{config.objective.target}.size" if config.target.size else "data.image_size"


def data_conflicts(config: Config) -> Faults:
    """Yield conflicts of the generated field: it must exist and be an image or a point."""
    target, fields = config.objective.target, config.data.fields
    kind = fields[target].kind if target in fields else None
    if kind not in ("image", "point"):
        yield (
            {"data.fields", "objective.target"},
            f"data.fields: without an image field {target} there is nothing to learn; add {target}: image"
            + ("" if target == "image" else ", or set objective.target"),
        )
        return
    channels, size = config.data.shape(target)
    if kind == "point" and size != 1:
        yield {"data.image_size"}, f"data.image_size: {size}, but a point is an image of one pixel; allowed: 1"
    if kind == "image" and size < 8:
        yield {"data.image_size"}, f"data.image_size: {size} is not allowed; it should be: at least 8 pixels"
    if kind == "image" and channels not in (1, 3):
        yield {"data.channels"}, f"data.channels: {channels} is not allowed; it should be: 1 or 3"


def condition_conflicts(config: Config) -> Faults:
    """Yield a condition whose fields are missing, or that the networks do not take."""
    classes, fields, name = config.model.classes, config.data.fields, config.objective.condition
    if classes and ("label" not in fields or fields["label"].kind != "label"):
        yield (
            {"model.classes", "data.fields"},
            f"model.classes: {classes} needs the labels of the images; set data.fields: {{image: image, label: label}}",
        )
    if name == "label" and not classes:
        yield (
            {"objective.condition", "model.classes"},
            "objective.condition: label, but model.classes is 0; set it to the number of classes",
        )
    if name in ("none", "source") and classes:
        yield (
            {"objective.condition", "model.classes"},
            f"model.classes: {classes} has no effect with objective.condition: {name}; leave one of them out",
        )


def loss_conflicts(config: Config) -> Faults:
    """Yield tricks that the loss does not support."""
    objective = config.objective
    for key in ("label_smoothing", "label_flipping"):
        if getattr(objective, key) and objective.loss not in CROSS_ENTROPIES:
            yield (
                {f"objective.{key}", "objective.loss"},
                f"objective.{key}: is made for cross-entropies, not for objective.loss: {objective.loss}; "
                f"take {' or '.join(CROSS_ENTROPIES)}, or leave it 0",
            )
    if objective.ada_target and objective.loss in DIFFERENCES:
        yield (
            {"objective.ada_target", "objective.loss"},
            f"objective.ada_target: {objective.ada_target} watches the sign of D(real), which says nothing with "
            f"objective.loss: {objective.loss}; leave it 0, and take objective.diffaugment",
        )
