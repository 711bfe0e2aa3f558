"""Reader of checkpoints of format 1, in which EMA networks were called averages and logits scores."""

import json
from collections.abc import Collection

from ganrun.run_folder.curve import new_metric_name

OLD_EMA, EMA = "_average.safetensors", "_ema.safetensors"


def file_names(old: Collection[str]) -> dict[str, str]:
    """Return {name in format 2: name in storage} for the files of a manifest of format 1.

    Args:
        old: names in storage. A file is that of an EMA network if the file of its network is there too.
    """
    return {name.replace(OLD_EMA, EMA) if name.replace(OLD_EMA, ".safetensors") in old else name: name for name in old}


def upgrade_state(text: bytes) -> bytes:
    """Convert state.json of format 1 to format 2."""
    record = json.loads(text)
    record["rollback_count"] = record.pop("generation")
    record["recorded"] = [new_metric_name(name) for name in record["recorded"]]
    return json.dumps(record, indent=1).encode()
