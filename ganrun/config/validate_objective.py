"""Conflicts of the generated field, the condition and the losses: the keys involved, and the message."""

from ganrun.config.field_types import Section
from ganrun.config.registry import CROSS_ENTROPIES, DIFFERENCES, NETWORKS, NetworkFamily
from ganrun.config.schedules import Schedule
from ganrun.config.schema import Config
from ganrun.config.schema_objective import PerceptualConfig
from ganrun.config.validate_parts import Faults

SECTIONS = ("source", "low_resolution", "masked", "past_frames", "text")
"""Conditions with a section of their name under `objective`."""
BUILT_IN = ("none", "label", *SECTIONS)
PERCEPTUAL_PIXELS = 32
"""Least size of images for the features of the perceptual term."""


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
    if name not in (None, "label") and name in BUILT_IN and classes:
        yield (
            {"objective.condition", "model.classes"},
            f"model.classes: {classes} has no effect with objective.condition: {name}; leave one of them out",
        )
    elif classes and ("label" not in fields or fields["label"].kind != "label"):
        yield (
            {"model.classes", "data.fields"},
            f"model.classes: {classes} needs the labels of the images; set data.fields: {{image: image, label: label}}",
        )
    if name == "label" and not classes:
        yield (
            {"objective.condition", "model.classes"},
            "objective.condition: label, but model.classes is 0; set it to the number of classes",
        )


def picture_conflicts(config: Config) -> Faults:
    """Yield conflicts of a source picture, and of networks that take pictures, or none."""
    objective, name = config.objective, config.model.name
    condition, family = objective.condition_with(config.model.classes), NETWORKS.get(name) or NetworkFamily("")
    with_picture = condition not in ("none", "label", "text")
    if condition == "text":
        pass  # See validate_text.py.
    elif family.condition:
        yield from _family_conflicts(name, family.condition, condition)
    elif (with_picture and family.pictures == "no") or (not with_picture and family.pictures == "must"):
        yield (
            {"objective.condition", "model.name"},
            f"objective.condition: {condition} does not go with model.name: {name}, which takes "
            f"{'labels only' if with_picture else 'a picture'}; take objective.condition: "
            f"{'label or none' if with_picture else 'source'}",
        )
    for section in SECTIONS:
        settings = getattr(objective, section)
        if section != condition and (of := [key for key in settings.model_fields_set if _is_set(settings, key)]):
            yield (
                {f"objective.{section}.{of[0]}", "objective.condition"},
                f"objective.{section}.{of[0]}: {getattr(settings, of[0])} has no effect with objective.condition: "
                f"{condition}; set objective.condition: {section}",
            )
    if condition == "source":
        yield from _source_conflicts(config)
    if objective.target in config.data.fields:
        yield from _size_conflicts(config, condition)
    if objective.reconstruct_first_images and not objective.reconstruction:
        yield (
            {"objective.reconstruct_first_images", "objective.reconstruction"},
            f"objective.reconstruct_first_images: {objective.reconstruct_first_images}, but there is no term to learn "
            "from; add one to objective.reconstruction: l1, l2, perceptual",
        )
    if objective.reconstruction and not with_picture:
        yield (
            {"objective.reconstruction", "objective.condition"},
            f"objective.reconstruction: no image belongs to objective.condition: {condition}; take source, or one of "
            "run.imports",
        )
    yield from _perceptual_conflicts(config)
    size = config.data.shape(objective.target)[1] if objective.target in config.data.fields else PERCEPTUAL_PIXELS
    if "perceptual" in objective.reconstruction and size < PERCEPTUAL_PIXELS:
        yield (
            {"objective.reconstruction", "data.image_size"},
            f"objective.reconstruction: perceptual needs at least {PERCEPTUAL_PIXELS} pixels a side, but "
            f"{size_key(config)} is {size}",
        )


def _family_conflicts(name: str, made_for: str, condition: str) -> Faults:
    """Yield another condition than the one that the networks are made for."""
    if condition != made_for:
        yield (
            {"objective.condition", "model.name"},
            f"objective.condition: {condition} does not go with model.name: {name}, which is made for {made_for}; set "
            f"objective.condition: {made_for}, or take another model",
        )


def _is_set(settings: Section, key: str) -> bool:
    """Return True if a setting is another than its default."""
    return bool(getattr(settings, key) != type(settings).model_fields[key].default)


def _size_conflicts(config: Config, condition: str) -> Faults:
    """Yield a factor that does not divide the image, a mask field that is none, and frames that are none."""
    objective, data = config.objective, config.data
    size, factor = data.shape(objective.target)[1], objective.low_resolution.factor
    if condition == "low_resolution" and size % factor:
        yield (
            {"objective.low_resolution.factor", size_key(config)},
            f"objective.low_resolution.factor: {factor}, but {size_key(config)}: {size} is no multiple of it; take "
            f"data.crop: {size - size % factor}, or another factor",
        )
    if condition == "past_frames":
        yield from _clip_conflicts(config)
    name, is_point = objective.masked.field, config.target.kind == "point"
    for key in ("holes", "field") if condition == "masked" and is_point else ():
        if _is_set(objective.masked, key):
            yield (
                {f"objective.masked.{key}", "data.fields"},
                f"objective.masked.{key}: {getattr(objective.masked, key)} is of images; what is missing of points is "
                "set by objective.masked.share: leave it out",
            )
    if condition == "masked" and name is not None and not is_point:
        shape = data.shape(name) if name in data.fields and data.fields[name].kind == "image" else None
        if shape != (1, size):
            found = f"has {shape[0]} channels and {shape[1]} pixels a side" if shape else "is no image of data.fields"
            yield (
                {"objective.masked.field", "data.fields"},
                f"objective.masked.field: {name} {found}; it should have 1 channel and {size} pixels a side",
            )


def _clip_conflicts(config: Config) -> Faults:
    """Yield frames of a clip that are no fields, or of another shape than the generated one."""
    settings, target, data = config.objective.past_frames, config.objective.target, config.data
    names = [f"past_{back}" for back in range(1, settings.frames + 1)]
    names += [f"next_{horizon}" for horizon in range(2, settings.horizons + 1)]
    wrong = [
        name
        for name in names
        if name not in data.fields or data.fields[name].kind != "image" or data.shape(name) != data.shape(target)
    ]
    if wrong:
        yield (
            {"objective.past_frames.frames", "objective.past_frames.horizons", "data.fields"},
            f"data.fields: objective.past_frames: {{frames: {settings.frames}, horizons: {settings.horizons}}} needs "
            f"image fields with the channels and the size of {target}; add {': image, '.join(wrong)}: image",
        )


def _perceptual_conflicts(config: Config) -> Faults:
    """Yield settings of the perceptual network that have no effect."""
    objective, perceptual = config.objective, config.objective.perceptual
    if perceptual != PerceptualConfig() and "perceptual" not in objective.reconstruction:
        yield (
            {"objective.perceptual", "objective.reconstruction"},
            "objective.perceptual: has no effect without its term; add perceptual to objective.reconstruction",
        )
    elif perceptual.weights is not None and perceptual.network != "vgg16":
        yield (
            {"objective.perceptual.weights", "objective.perceptual.network"},
            f"objective.perceptual.weights: {perceptual.weights} has no effect with objective.perceptual.network: "
            f"{perceptual.network}, whose weights are part of ganrun; leave it out, or take vgg16",
        )


def _source_conflicts(config: Config) -> Faults:
    name, target, data = config.objective.source.field, config.objective.target, config.data
    others = [key for key, field in data.fields.items() if field.kind == "image" and key != target]
    if name not in others:
        yield (
            {"objective.source.field", "data.fields"},
            f"objective.source.field: {name or 'missing'}; it should be an image field of data.fields other than "
            f"objective.target: {', '.join(others) or 'add one, as in data.fields: {lines: image}'}",
        )
    elif target in data.fields and data.shape(name)[1] != data.shape(target)[1]:
        sizes = data.shape(name)[1], data.shape(target)[1]
        yield (
            {f"data.fields.{name}.size", "data.image_size"},
            f"objective.source.field: {name} has {sizes[0]} pixels a side and objective.target: {target} has "
            f"{sizes[1]}; they must be equal",
        )


def loss_conflicts(config: Config) -> Faults:
    """Yield tricks that the loss or the networks do not support."""
    objective, name = config.objective, config.model.name
    for key in ("style_mixing", "path_length") if name in NETWORKS and not NETWORKS[name].styles else ():
        if value := getattr(objective, key):
            yield (
                {f"objective.{key}", "model.name"},
                f"objective.{key}: {value} needs a generator with styles, which model.name: {name} has not; take "
                "stylegan2, or leave it 0",
            )
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
            f"objective.loss: {objective.loss}; leave it 0, and take objective.ada_probability or diffaugment",
        )
    if objective.ada_target and objective.ada_probability:
        yield (
            {"objective.ada_target", "objective.ada_probability"},
            "objective.ada_probability: is set beside objective.ada_target, which adapts it; leave one of them out",
        )
    if isinstance(objective.instance_noise, Schedule) and _is_set(objective, "instance_noise_images"):
        yield (
            {"objective.instance_noise", "objective.instance_noise_images"},
            "objective.instance_noise_images: has no effect beside the until_images of objective.instance_noise; leave "
            "it out",
        )
