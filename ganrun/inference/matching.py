"""Trains the dual encoder of the score `matching` on the training pairs of a config."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ganrun.config.schema import Config
from ganrun.data.index import open_data
from ganrun.errors import UserError
from ganrun.evaluation.generated_images import BATCH
from ganrun.evaluation.matcher import AMONG, LEAST, Matcher, seen_by_matcher, to_file, trained_towers
from ganrun.evaluation.paired_samples import PairedSamples, open_pairs
from ganrun.games.build import condition_of
from ganrun.games.text import scaled
from ganrun.models.extractors import Extractor, open_extractor

CPU = torch.device("cpu")


def make_matcher(config: Config, seen: Callable[[int], None]) -> tuple[bytes, dict[str, Any]]:
    """Train a dual encoder on the training pairs, and test it on the held-out ones.

    Args:
        config: a config with objective.condition: text and held-out samples.
        seen: called with the number of pictures just looked at.

    Returns:
        Its file, and the facts that this records.

    Raises:
        UserError: the config has no sentences, holds nothing out, or has too few pairs.
    """
    condition, data = condition_of(config), open_data(config.data.shards, crop=config.data.crop)
    if condition.text is None:
        raise UserError("objective.condition: a dual encoder is of sentences; name a config with condition: text")
    if data.index.embedding is None:
        raise UserError("data.shards: its captions are not embedded; make it again with ganrun prepare --embed")
    pairs = open_pairs(condition, data, config.objective, config.data, config.evaluate)
    if pairs is None or pairs.training is None:
        raise UserError(
            "evaluate.held_out_share: no samples are held out, so nothing would tell how good the dual encoder is; set "
            "evaluate.held_out_share, or evaluate.shards"
        )
    if min(pairs.samples, pairs.training.samples) < LEAST:
        raise UserError(
            f"evaluate.held_out_share: {pairs.training.samples} pairs to train on and {pairs.samples} to test on; a "
            f"dual encoder takes at least {LEAST} of each"
        )
    extractor = open_extractor(config.evaluate.extractor, config.evaluate.extractor_weights)
    features, embeddings = _read(pairs.training, extractor, seen)
    towers = trained_towers(features, embeddings, config.run.seed)
    held_out, told = _read(pairs, extractor, seen)
    texts = towers.of_texts(told[:, 0])
    accuracy = Matcher(towers, {}, "").hits(held_out, texts, torch.arange(len(texts))).double().mean()
    facts = {
        **extractor.provenance,
        "encoder_sha256": data.index.embedding.sha256,
        "data": data.index.fingerprint,
        "pairs": len(features),
        "held_out": str(config.evaluate.held_out_share or config.evaluate.shards),
        "among": min(AMONG, len(texts)),
        "tested_on": len(texts),
        "accuracy": float(accuracy),
    }
    return to_file(towers, facts), facts


def _read(pairs: PairedSamples, extractor: Extractor, seen: Callable[[int], None]) -> tuple[Tensor, Tensor]:
    """Return the features of all pictures, [M, D], and the embeddings of their captions, [M, captions, N]."""
    features, embeddings = [], []
    for start in range(0, pairs.samples, BATCH):
        batch = pairs.batch(start, min(BATCH, pairs.samples - start), CPU, torch.float32)
        features.append(seen_by_matcher(batch[pairs.target], extractor))
        embeddings.append(torch.stack([scaled(rows) for rows in batch["embedding"]]))
        seen(len(features[-1]))
    return torch.cat(features), torch.cat(embeddings)
