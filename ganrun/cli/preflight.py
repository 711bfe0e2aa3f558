"""Checks of data, storage and hardware before a run starts. Imports no ray, and torch only for a config with GPUs."""

from collections.abc import Callable, Sequence

from ganrun.config.field_types import EXTENSIONS
from ganrun.config.ray_variables import cluster_address, session_folder
from ganrun.config.schema import ClusterConfig, Config, DataConfig, EvaluateConfig, ModelConfig
from ganrun.config.schema_objective import ObjectiveConfig
from ganrun.config.validate_likelihood import WITH_EM
from ganrun.data.index import INDEX_NAME, DataSet, Index, open_data
from ganrun.data.scored import open_scored
from ganrun.errors import UserError
from ganrun.storage import INDEX_BYTES, check_rights, expand_user, open_storage

PATIENCE_SECONDS = 10.0
"""Retry budget for storage requests. Short: before a run a storage that does not answer is more often misspelt than
down."""


def check(config: Config) -> None:
    """Check the config against data, storage and hardware.

    Raises:
        UserError: one message with all errors, a line each.
    """
    _check_homes(config)
    checks: list[Callable[[], None]] = [
        lambda: _check_data(config.data, config.model, config.evaluate, config.slots, config.objective),
        lambda: check_rights(open_storage(config.run.storage, PATIENCE_SECONDS), "run.storage"),
        lambda: _check_gpus(config.cluster),
        lambda: _check_weights(config.evaluate, config.objective),
        lambda: _check_scores_of_text(config.data, config.evaluate),
        _check_local_ray,
    ]
    faults = []
    for run_check in checks:
        try:
            run_check()
        except UserError as error:
            faults.append(str(error))
    if faults:
        raise UserError("\n  ".join(faults))


def describe_data(data: DataConfig, evaluate: EvaluateConfig) -> str:
    """Return a line that says how many samples are trained on, and how many are held out."""
    whole = open_data(data.shards, PATIENCE_SECONDS, crop=data.crop)
    trained_on = whole.trained_on(evaluate.held_out_share, data.mirror)
    scored = open_scored(whole, evaluate, 0, PATIENCE_SECONDS)
    held_out = f"{scored.samples:,} held out ({scored.held_out_by})" if scored.held_out_by else "none held out"
    mirrored = " with their mirror images" if data.mirror else ""
    note = "; data.mirror is wrong for writing, and where words or labels name left and right" if data.mirror else ""
    return f"{trained_on.samples:,} samples to train on{mirrored}, {held_out}{note}"


def _check_homes(config: Config) -> None:
    """Refuse paths below the home of a user that does not exist, by the name of their key."""
    shards = config.data.shards
    places = [("data.shards", place) for place in ([shards] if isinstance(shards, str) else shards)]
    places += [("run.storage", config.run.storage), ("run.start_from", config.run.start_from or "")]
    places += [("objective.of", config.objective.of or "")]
    places += [
        (f"evaluate.{key}", getattr(config.evaluate, key) or "")
        for key in ("extractor", "extractor_weights", "lpips_weights", "matcher")
    ]
    for key, place in places:
        try:
            expand_user(place.removeprefix("file://"))
        except UserError as error:
            raise UserError(f"{key}: {error}") from error


def _check_data(
    settings: DataConfig, model: ModelConfig, evaluate: EvaluateConfig, slots: int, objective: ObjectiveConfig
) -> None:
    data = open_data(settings.shards, PATIENCE_SECONDS, crop=settings.crop)
    for name, found in (("image_size", data.index.image_size), ("channels", data.index.channels)):
        if (wanted := getattr(settings, name)) != found:
            raise UserError(
                f"data.{name}: {wanted}, but the index of {settings.shards} says {found}; "
                f"set data.{name}={found}, or make the data set again with ganrun prepare"
            )
    if model.classes and model.classes != len(data.index.classes):
        raise UserError(
            f"model.classes: {model.classes}, but the index of {settings.shards} names "
            f"{len(data.index.classes)} classes; set model.classes={len(data.index.classes)}"
        )
    if settings.fields[objective.target].kind == "point" and objective.condition != "masked":
        _check_points(settings, evaluate, data.index)
    if slots > data.index.samples:
        raise UserError(
            f"data.slots: {slots}, but data.shards has only {data.index.samples} samples; "
            f"set at most data.slots={data.index.samples}"
        )
    if slots > (left := data.trained_on(evaluate.held_out_share).samples):
        raise UserError(
            f"data.slots: {slots}, but evaluate.held_out_share: {evaluate.held_out_share} leaves only {left} of "
            f"{data.samples} samples to train on; lower the one or the other"
        )
    if model.name in WITH_EM and model.components > left:
        raise UserError(
            f"model.components: {model.components:,}, but there are only {left:,} training samples; set at most "
            f"{left:,}"
        )
    _check_shards(data)
    _check_fields(settings, data)
    _check_pictures(settings, data.index)
    if objective.condition == "text":
        _check_embeddings(objective.text.size, settings, data.index)
    _check_scored(settings, model, evaluate, objective, data)


def _check_encoders(index: Index, scored: Index) -> None:
    """Refuse scores whose captions are embedded by another encoder than those of the run."""
    if (scored.embedding and scored.embedding.sha256) != (index.embedding and index.embedding.sha256):
        names = [each.embedding.encoder if each.embedding else "none" for each in (scored, index)]
        raise UserError(
            f"evaluate.shards: captions embedded by {names[0]}, but by another encoder ({names[1]}) in data.shards; "
            "prepare both with the same --embed"
        )


def _check_scored(
    settings: DataConfig, model: ModelConfig, evaluate: EvaluateConfig, objective: ObjectiveConfig, data: DataSet
) -> None:
    """Check the samples that scores compare with: there are enough, and another data set is like the run's."""
    scored = open_scored(data, evaluate, evaluate.samples if evaluate.every_images else 0, PATIENCE_SECONDS)
    if evaluate.shards is None:
        return
    if objective.condition == "text":
        _check_encoders(data.index, scored.index)
    for name in ("image_size", "channels"):
        if (found := getattr(scored.index, name)) != (wanted := getattr(data.index, name)):
            raise UserError(
                f"evaluate.shards: {name} {found}, but {wanted} in data.shards; make it again with ganrun prepare "
                f"--{name.removeprefix('image_')} {wanted}"
            )
    if model.classes and set(scored.index.classes) != set(data.index.classes):
        names = (", ".join(each.index.classes) or "none" for each in (scored, data))
        raise UserError("evaluate.shards: classes {}, but {} in data.shards; name data of the same".format(*names))
    trained_on = {shard.sha256 for shard in data.index.shards}
    if both := [shard.name for shard in scored.index.shards if shard.sha256 in trained_on]:
        raise UserError(
            f"evaluate.shards: {both[0]} is a shard of data.shards too, so it would be trained on; name other shards, "
            "or set evaluate.held_out_share"
        )
    _check_shards(scored)
    _check_fields(settings, scored)


def _check_points(settings: DataConfig, evaluate: EvaluateConfig, index: Index) -> None:
    """Refuse points with holes that the run does not fill, and those that it cannot score."""
    from ganrun.evaluation.modes import MIXTURES, known_mixture  # With numpy, which other runs do without.

    if missing := index.made.get("missing"):
        raise UserError(
            f"data.shards: {missing:,} numbers of {settings.shards} are missing; set objective.condition: masked, "
            "objective.game: gain and model.name: gain, or prepare a table without empty cells"
        )
    if evaluate.every_images and not known_mixture(index):
        raise UserError(
            f"evaluate.every_images: {evaluate.every_images}, but the modes of the points in {settings.shards} are "
            f"unknown; set it to 0, or use data of ganrun prepare {' or '.join(MIXTURES)}"
        )


def _check_shards(data: DataSet) -> None:
    for place in {place.uri: place for place in data.places}.values():
        there = set(place.list())
        for shard, where in zip(data.index.shards, data.places, strict=True):
            if where.uri == place.uri and shard.name not in there:
                raise UserError(
                    f"{place.uri}/{shard.name}: the index names this shard, but it does not exist; restore it"
                )


def _check_fields(settings: DataConfig, data: DataSet) -> None:
    """Refuse a field that more samples lack, by the counts that ganrun prepare records, than may be skipped."""
    for place in {place.uri: place for place in data.places}.values():
        index = Index.from_json(place.read(INDEX_NAME, INDEX_BYTES), f"{place.uri}/{INDEX_NAME}")
        if sum(where.uri == place.uri for where in data.places) < len(index.shards):
            continue  # The index does not record which shards have the samples in question.
        _check_decoder(settings, index, place.uri)
        for name, field in settings.fields.items():
            there = _samples_with(index, field.extensions(name))
            if there is not None and index.samples - there > settings.damaged_share * index.samples:
                raise UserError(
                    f"data.fields.{name}: {field.kind}, but {index.samples - there:,} of {index.samples:,} samples in "
                    f"{place.uri} have none; complete the data set and prepare it again, or remove the field"
                )


def _check_pictures(settings: DataConfig, index: Index) -> None:
    """Refuse a further picture of another shape than the index records."""
    for name, field in settings.fields.items():
        found = index.pictures.get(field.extensions(name)[0].rpartition(".")[0])
        channels, size = field.channels or settings.channels, settings.image_size
        if field.kind == "image" and found and (found.channels, found.size) != (channels, size):
            raise UserError(
                f"data.fields.{name}: an image of {channels} channels and {size} pixels a side, but the index of "
                f"{settings.shards} says {found.channels} channels and {found.size} pixels; set "
                f"data.fields.{name}.channels={found.channels}, or make the data set again with ganrun prepare --size "
                f"{size}"
            )


def _check_decoder(settings: DataConfig, index: Index, where: str) -> None:
    """Refuse images that a GPU cannot decode, by the formats that ganrun prepare records; others end a batch."""
    if settings.decode != "gpu":
        return
    members = index.made.get("members")
    there = {extension for extension, count in members.items() if count} if isinstance(members, dict) else set()
    there.add(str(index.made.get("format")))  # Of the field `image`.
    for name, field in settings.fields.items():
        extensions = field.extensions(name) if field.kind == "image" else ()
        if other := [each for each in extensions if each in there and not each.endswith(("jpg", "jpeg"))]:
            raise UserError(
                f"data.decode: gpu, but {where} has images .{other[0]}, and a GPU decodes JPEGs only; set data.decode: "
                "cpu, or make the data set again with ganrun prepare --format jpg"
            )


def _check_embeddings(size: int, settings: DataConfig, index: Index) -> None:
    """Refuse data whose captions are not embedded, or by an encoder of another size."""
    embedding = index.embedding
    if embedding is None:
        raise UserError(
            f"data.fields.embedding: the captions of {settings.shards} are not embedded; make the data set again with "
            "ganrun prepare --embed"
        )
    if embedding.size != size:
        raise UserError(
            f"objective.text.size: {size}, but the encoder {embedding.encoder} of {settings.shards} gives "
            f"{embedding.size} numbers; set objective.text.size={embedding.size}"
        )


def _samples_with(index: Index, extensions: Sequence[str]) -> int | None:
    """Return the number of samples with a member of one of these extensions; None if it is not recorded."""
    members = index.made.get("members")
    if not isinstance(members, dict):  # ganrun 0.2 recorded only the labels.
        members = {"cls": sum(index.made.get("images_of_class", ()))}
        if not members["cls"] or tuple(extensions) != ("cls",):
            return None
    there: int = sum(members.get(extension, 0) for extension in extensions)
    return None if set(extensions) & set(EXTENSIONS["image"]) else there


def _check_weights(evaluate: EvaluateConfig, objective: ObjectiveConfig) -> None:
    """Refuse weights of LPIPS and of the perceptual network that are not here: a run would find out at its first score.

    With torch, which other runs do without.
    """
    lpips = bool(evaluate.every_images) and "lpips" in evaluate.metrics
    vgg16 = "perceptual" in objective.reconstruction and objective.perceptual.network == "vgg16"
    if not (lpips or vgg16):
        return
    from ganrun.models.lpips import read_weights

    if lpips:
        read_weights("alexnet", evaluate.lpips_weights, "evaluate.lpips_weights")
    if vgg16:
        read_weights("vgg16", objective.perceptual.weights, "objective.perceptual.weights")


def _check_scores_of_text(settings: DataConfig, evaluate: EvaluateConfig) -> None:
    """Refuse a dual encoder or a text encoder that is not here. With torch, which other runs do without."""
    if not evaluate.every_images:
        return
    if evaluate.matcher and "matching" in evaluate.metrics:
        from ganrun.evaluation.matcher import open_matcher

        open_matcher(evaluate.matcher, "evaluate.matcher")
    if "colour_words" in evaluate.metrics:
        from ganrun.models.text_encoder import open_text_encoder

        if embedding := open_data(settings.shards, PATIENCE_SECONDS).index.embedding:
            open_text_encoder(embedding.encoder, "evaluate.metrics: colour_words")


def _check_local_ray() -> None:
    if cluster_address() is None:
        session_folder()


def _check_gpus(cluster: ClusterConfig) -> None:
    if not cluster.gpus_per_worker or cluster_address():
        return
    import torch

    if (there := torch.cuda.device_count()) < cluster.fewest_workers:
        raise UserError(
            f"cluster.workers: {cluster.fewest_workers} with a GPU each, but this machine has {there}; "
            "use fewer workers, set cluster.gpus_per_worker=0, or set RAY_ADDRESS to a cluster"
        )
