"""Data that scores compare with: the training data, its held-out samples, or another data set."""

from dataclasses import replace

from ganrun.config.schema import EvaluateConfig
from ganrun.data.held_out import Part
from ganrun.data.index import DataSet, open_data
from ganrun.errors import UserError
from ganrun.storage import PATIENCE_SECONDS


def open_scored(
    data: DataSet,
    settings: EvaluateConfig,
    samples: int,
    patience_seconds: float = PATIENCE_SECONDS,
    key: str = "evaluate.samples",
) -> DataSet:
    """Return the data that scores of a run compare with.

    Args:
        data: all samples of `data.shards`.
        settings: section `evaluate`.
        samples: number of real samples that a score asks for; 0: none does.
        patience_seconds: retry budget of a storage that does not answer.
        key: key of the config, or option, that sets this number, for messages.

    Raises:
        UserError: fewer samples are held out than a score asks for, or none at all; or see `open_data`.
    """
    if settings.shards is not None:
        found = _open_other(settings.shards, patience_seconds, data)
    elif settings.held_out_share:
        found = _hold_out(data, settings.held_out_share)
    else:
        return data
    if samples > found.samples:
        raise UserError(
            f"{key}: {samples:,}, but only {found.samples:,} samples are held out ({found.held_out_by}); "
            f"ask for at most {found.samples:,}, or hold out more"
        )
    return found


def _open_other(shards: str | list[str], patience_seconds: float, data: DataSet) -> DataSet:
    uris = [shards] if isinstance(shards, str) else shards
    crop = data.index.image_size if data.index.stored_size else None
    found = open_data(uris, patience_seconds, "evaluate.shards", crop)
    held_out_by = f"evaluate.shards={','.join(uris)} sha256:{found.index.fingerprint[:12]}"
    return replace(found, held_out_by=held_out_by, held_out_of=data)


def _hold_out(data: DataSet, share: float) -> DataSet:
    found = replace(
        data,
        part=Part(share, held_out=True),
        held_out_by=f"evaluate.held_out_share={share}",
        held_out_of=data.trained_on(share),
    )
    if not found.samples:
        largest = max(shard.samples for shard in data.index.shards)
        raise UserError(
            f"evaluate.held_out_share: {share} holds out no sample, since it is rounded in each shard and the largest "
            f"has {largest:,}; raise it (from about {1 / largest:.2g}), or make larger shards"
        )
    return found
