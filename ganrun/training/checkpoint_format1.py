"""Checkpoints of format 1, read as those of format 2: EMA networks were called averages, logits scores."""

import json
from collections.abc import Collection

from ganrun.run_folder.curve import new_metric_name

OLD_EMA, EMA = "_average.safetensors", "_ema.safetensors"


def file_names(old: Collection[str]) -> dict[str, str]:
    """The files of a manifest of format 1: today's name -> the name in storage.

    Args:
        old: names in storage. A file is of an EMA network if the network it follows is there, too.
    """
    return {name.replace(OLD_EMA, EMA) if name.replace(OLD_EMA, ".safetensors") in old else name: name for name in old}


def upgrade_state(text: bytes) -> bytes:
    """The content of state.json of format 1 as format 2 has it."""
    record = json.loads(text)
    record["rollback_count"] = record.pop("generation")
    record["recorded"] = [new_metric_name(name) for name in record["recorded"]]
    return json.dumps(record, indent=1).encode()
