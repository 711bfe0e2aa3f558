"""Makes docs/families.md: densities and GANs on the same images, a row each.

    python -m tests.benchmarks.families [--runs FOLDER] [--only NAME ...]

A row is trained (the command resumes), scored and written to FOLDER/families/NAME.json with its pictures; rows that are
there are not made again. The page is written after each row.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from ganrun.evaluation.generated_images import BATCH
from ganrun.evaluation.pictures import to_png
from ganrun.inference.sampling import Sampler
from ganrun.inference.scoring import ScoreRequest, score_checkpoint

SAMPLES, SHOWN, SEED = 1_000, 12, 0
PADDED = ("evaluate.held_out_share=0.2", "evaluate.samples=2000")
ROWS: dict[str, tuple[str, ...]] = {
    "mixture": ("configs/mixture_fashion.yaml",),
    "MADE": ("configs/made_fashion.yaml",),
    "PixelCNN": ("configs/pixelcnn_fashion.yaml",),
    "Glow": ("configs/realnvp_fashion.yaml", "model.name=glow", "model.blocks=8", "run.name=glow-fashion"),
    "RealNVP": ("configs/realnvp_fashion.yaml",),
    "VAE": ("configs/vae_fashion.yaml",),
    "DCGAN": ("configs/quickstart.yaml", "run.name=dcgan-families", *PADDED),
    "R3GAN": (
        "configs/quickstart.yaml",
        "run.name=r3gan-families",
        "model.name=r3gan",
        "objective.loss=relativistic",
        "objective.penalties={r1: 0.5, r2: 0.5}",
        *PADDED,
    ),
}
"""Config and overrides of each row. GANs halve to 4x4, so they see the padded pictures of 32x32."""


def main(arguments: list[str] | None = None) -> None:
    """Make the rows that are missing, and the page."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.families")
    parser.add_argument("--runs", default="runs", help="storage of the runs (default: %(default)s)")
    parser.add_argument("--only", nargs="*", choices=ROWS, help="rows to make (default: all)")
    options = parser.parse_args(arguments)
    folder = Path(options.runs) / "families"
    folder.mkdir(parents=True, exist_ok=True)
    for name in options.only or ROWS:
        if not (folder / f"{name}.json").exists():
            row = make_row(name, options.runs, folder)
            (folder / f"{name}.json").write_text(json.dumps(row, indent=1))
        write_page(folder, Path("docs/families.md"))


def make_row(name: str, runs: str, folder: Path) -> dict[str, Any]:
    """Train, score and sample a row; return its figures."""
    config, *overrides = ROWS[name]
    command = [sys.executable, "-m", "ganrun.train", config, f"run.storage={runs}", *overrides]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    where = lines[-1].strip()
    sampler = Sampler(where)
    metrics: tuple[str, ...] = ("precision", "recall")
    if sampler.game.log_prob is not None:
        metrics += ("bits_per_dimension",)
    found = score_checkpoint(where, ScoreRequest(metrics=metrics), lambda done, total: None)
    begun = time.perf_counter()
    images = torch.cat(
        [sampler.generated(SEED).images(at, min(BATCH, SAMPLES - at)) for at in range(0, SAMPLES, BATCH)]
    )
    seconds = time.perf_counter() - begun
    (folder / f"{name}.png").write_bytes(to_png(images[:SHOWN], SHOWN))
    networks = {key: sampler.game.networks[key] for key in sampler.game.averaged}
    parameters = sum(each.numel() for network in networks.values() for each in network.parameters())
    shown = ganrun_train(config, overrides)
    return {"command": shown, "seconds": seconds, "parameters": parameters, **found}


def ganrun_train(config: str, overrides: list[str]) -> str:
    """Return the command as one types it."""
    return " ".join(["ganrun train", config, *(f"'{each}'" if " " in each else each for each in overrides)])


def write_page(folder: Path, page: Path) -> None:
    """Write the page of the rows that are there."""
    rows = {
        name: json.loads((folder / f"{name}.json").read_text()) for name in ROWS if (folder / f"{name}.json").exists()
    }
    images = page.parent / "images/families"
    images.mkdir(parents=True, exist_ok=True)
    lines = [
        "# Families of models on the same pictures",
        "",
        "Fashion-MNIST of the package: 8,000 pictures to learn from, 2,000 held out. Made by",
        "`python -m tests.benchmarks.families`, which resumes row by row.",
        "",
        "| model | bits per dimension | Fréchet distance | precision | recall | s for 1,000 samples | parameters "
        "| images shown |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        bits = (
            f"{row['bits_per_dimension']:.3f} ({row['bits_per_dimension_is']})"
            if "bits_per_dimension" in row
            else "none"
        )
        lines.append(
            f"| {name} | {bits} | {row['frechet_distance']:.1f} | {row['precision']:.2f} | {row['recall']:.2f} | "
            f"{row['seconds']:.1f} | {row['parameters']:,} | {row['images']:,} |"
        )
    lines.append("")
    for name, row in rows.items():
        (images / f"{name}.png").write_bytes((folder / f"{name}.png").read_bytes())
        lines += [f"**{name}**: `{row['command']}`", "", f"![samples of {name}](images/families/{name}.png)", ""]
    page.write_text("\n".join(lines))


if __name__ == "__main__":
    main()
