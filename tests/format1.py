"""Made tests/data/format1 with ganrun 0.1.0: a run stopped half-way, a finished search, and their data.

`python -m tests.format1 /srv/format1` makes similar ones in a new folder. Those in the repository must not change: they
represent folders of users.
"""

import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from ganrun.config.schema import Config
from tests.conftest import write_data, write_yaml
from tests.recorded import ROOT

FORMAT1 = ROOT / "tests/data/format1"
MADE = "/srv/format1"
"""Folder that it was made in; the search's config has this path."""
STOPPED = 120
"""Images after which the run was stopped, of 240."""
RUN: dict[str, dict[str, Any]] = {
    "run": {"name": "run", "storage": "."},
    "data": {
        "shards": "data",
        "image_size": 16,
        "channels": 1,
        "batch_size": 12,
        "slots": 6,
        "shuffle_shards": 2,
        "fields": {"image": "image", "label": "label"},
    },
    "model": {"width": 4, "latent_size": 8},
    "objective": {"ada_target": 0.6, "ada_images": 96, "penalties": {"r1": 0.1}},
    "optimizer": {"generator": {"warmup_images": 60, "schedule": "linear"}},
    "train": {"total_images": 240, "precision": "float64", "tick_images": 24, "average_half_life_images": 100},
    "evaluate": {"every_images": 60, "samples": 24, "extractor": "means.pt", "metrics": ["kid", "recall"]},
    "checkpoint": {"every_images": 60, "keep": 9},
    "telemetry": {"sample_images": 4},
}
MUTATIONS = {
    "optimizer.generator.learning_rate": {"log_uniform": [1e-5, 1e-2]},
    "objective.label_smoothing": {"uniform": [0.0, 0.3]},
}
SEARCH = RUN | {
    "run": {"name": "search", "storage": "."},
    "objective": {},
    "train": {"total_images": 240, "precision": "float64", "tick_images": 60},
    "evaluate": {"every_images": 120, "samples": 24, "extractor": "means.pt"},
    "checkpoint": {"every_images": 0, "keep": 1},
    "tune": {"population": 2, "quantile": 0.5, "perturb_every_images": 120, "mutations": MUTATIONS},
}


class Means(nn.Module):
    """Fast extractor: mean and standard deviation of each quarter of an image."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        quarters = (images.to(torch.float32) / 64).unflatten(3, [2, -1]).unflatten(2, [2, -1])
        return torch.cat([quarters.mean([3, 5]).flatten(1), quarters.std([3, 5]).flatten(1)], dim=1)


def write_extractor(path: Path) -> None:
    """Write the extractor. It is not in the repository, since TorchScript files contain paths of the machine."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(Means()), path)


def copy_to(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Copy the folders of the repository to a new working directory: paths in the run are relative.

    `ganrun tune` makes paths absolute and refuses a moved search, so the path in its config is updated.
    """
    shutil.copytree(FORMAT1, place)
    monkeypatch.chdir(place)
    write_extractor(Path("means.pt"))
    config = Path("search/config.yaml")
    config.write_text(config.read_text().replace(MADE, str(place)))
    return place


def make_run() -> None:
    """Make a run that stopped at a checkpoint, in the working directory."""
    from ganrun.run_folder.run_config import settle, write_config
    from ganrun.run_folder.run_folder import RunFolder
    from ganrun.storage import open_storage
    from tests.ranks import run_ranks

    config, folder = Config.model_validate(RUN), RunFolder(open_storage("./run"))
    write_config(settle(config, folder), folder)
    run_ranks(config, 1, Path("unused"), STOPPED)


def make_search() -> None:
    """Make a search with the command itself, in the working directory."""
    environment = os.environ | {"GANRUN_SIDECAR": "off"}
    path = write_yaml(Path("search.yaml"), SEARCH)
    subprocess.run([sys.executable, "-m", "ganrun", "tune", str(path)], check=True, env=environment)


def prune() -> None:
    """Delete large files that no test reads: caches, and checkpoints without a pointer."""
    for folder in (".statistics", "search/trials/.statistics"):
        shutil.rmtree(folder)
    for trial, kept in (("00", ("120-0001", "240-0001")), ("01", ("120-0002", "240-0002"))):
        for checkpoint in Path(f"search/trials/{trial}/checkpoints").iterdir():
            if not checkpoint.name.endswith(kept):
                shutil.rmtree(checkpoint)
    for file in ("means.pt", "search.yaml"):
        Path(file).unlink()


def main(folder: Path) -> None:
    write_data(folder / "data", (20, 22, 18))
    os.chdir(folder)
    write_extractor(Path("means.pt"))
    make_run()
    make_search()
    prune()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
