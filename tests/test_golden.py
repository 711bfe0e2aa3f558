"""Loss curves and final weights of each family of configs are those that were recorded, through a worker's own code.

`python -m tests.test_golden --record` writes all of tests/data/golden anew: the recordings of this module, of the other
test_golden_*.py and of test_format1.py. What git then shows as changed is what ganrun now does in another way.
"""

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from tests.clips import write_clips
from tests.conftest import config_of, small_run, write_data
from tests.families import FAMILIES, values_of
from tests.paired import write_pairs
from tests.ranks import latest_tensors, run_folder, run_ranks
from tests.recorded import RECORD, ROOT, expect_numbers, recorded, said
from tests.sentences import write_captioned

WIDE = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
RELATIVE, ABSOLUTE = (1e-6, 1e-7) if WIDE else (2e-3, 1e-5)
"""Processors round differently, in the last digits of float64, and 20 rounds make more of it: up to 2e-8 was seen.
Those without AVX2 draw first weights that differ in the last digit of float32: up to 2e-4."""
SINCE = ("logit_sign", "collapse_suspected/discriminator_winning")
"""Columns that came after the recordings; what they say follows from the logits."""
TIMED = (
    *("time", "seconds/", "images_per_second", "data_wait_ratio", "round_seconds", "rank_round_seconds/"),
    "shard_bytes",
)
"""Keys, or prefixes of keys, with values that differ from run to run (shards are prefetched, so their bytes too)."""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Folders of data sets by (image_size, channels)."""
    root = tmp_path_factory.mktemp("golden")
    folders = {(size, channels): root / f"{size}x{channels}" for size, channels in ((16, 1), (16, 3), (8, 1))}
    for (size, channels), folder in folders.items():
        write_data(folder, image_size=size, channels=channels)
    said("prepare", "gaussians:8", root / "points", "--samples", 141)
    said("prepare", "points:gaussian", root / "numbers", "--samples", 141)
    write_captioned(root / "captions")
    return folders | {
        "text": root / "captions",
        (1, 1): root / "numbers",
        (1, 2): root / "points",
        (32, 3): write_pairs(root / "pairs"),
        (32, 1): write_clips(root / "clips"),
    }


def curve(run: Path) -> list[dict[str, float]]:
    """Return all lines of metrics of a run, without timings."""
    text = "".join(file.read_text() for file in sorted((run / "metrics").iterdir()))
    lines = map(json.loads, text.splitlines())
    return [{recorded(key): line[key] for key in line if not key.startswith((*TIMED, *SINCE))} for line in lines]


def summary(tensors: dict[str, Tensor]) -> dict[str, dict[str, float]]:
    """Return figures (count, norm, sum) of each file of a checkpoint, and of each kind of optimizer moment."""
    groups: dict[str, list[Tensor]] = {}
    for name, tensor in tensors.items():
        file, kind = recorded(name.partition("/")[0]), name.rpartition(".")[2]
        group = f"{file}.{kind}" if file.startswith("optimizer_") else file
        groups.setdefault(group, []).append(tensor.double().flatten())
    return {name: figures(torch.cat(group)) for name, group in groups.items()}


def figures(numbers: Tensor) -> dict[str, float]:
    norm = float(numbers.norm())
    return {"numbers": len(numbers), "norm": norm, "sum_over_norm": float(numbers.sum()) / norm if norm else 0.0}


def brightness(picture: Path) -> float:
    return float(np.asarray(Image.open(picture).convert("RGB"), np.float64).mean())


@pytest.mark.parametrize("family", FAMILIES)
def test_the_curve_and_the_weights_are_those_recorded(family, data, tmp_path):
    values = values_of(family, small_run(tmp_path / "runs", tmp_path))
    kind = "text" if "embedding" in values["data"].get("fields", ()) else None
    values["data"]["shards"] = str(data[kind or (values["data"]["image_size"], values["data"]["channels"])])
    config = config_of(values)
    run_ranks(config, 1, tmp_path / "meeting")
    run = run_folder(config)
    lines = curve(run)
    assert sum("loss/generator" in line for line in lines) == 20
    expect_numbers(f"curves/{family}.json", lines, RELATIVE, ABSOLUTE)
    expect_numbers(f"weights/{family}.json", summary(latest_tensors(config)), RELATIVE, ABSOLUTE)
    if values["data"]["image_size"] > 1:  # Points are a plot, as matplotlib of this machine draws it.
        last = max((run / "samples").iterdir())
        expect_numbers(f"pictures/{family}.json", {"brightness": brightness(last)}, 1e-4)


def test_every_network_loss_and_penalty_is_in_a_family():
    text = json.dumps(FAMILIES)
    losses = ("minimax", "least_squares", "hinge", "wasserstein", "relativistic")
    names = ("resnet", "r3gan", "mlp", "pix2pix", *losses, "r1", "r2", "wgan_gp", "wgan_lp", "dragan", "matching_aware")
    assert [name for name in names if f'"{name}"' not in text] == []


def record() -> int:
    """Run the golden tests in recording mode."""
    os.environ[RECORD] = "1"
    modules = [*sorted((ROOT / "tests").glob("test_golden*.py")), ROOT / "tests/test_format1.py"]
    return pytest.main(["-q", *map(str, modules)])


if __name__ == "__main__":
    if sys.argv[1:] != ["--record"]:
        sys.exit("usage: python -m tests.test_golden --record")
    sys.exit(record())
