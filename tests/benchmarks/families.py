"""Makes docs/families.md: densities and GANs on the same images, a row each.

    python -m tests.benchmarks.families [--runs FOLDER] [--only NAME ...]

A row is trained (the command resumes), scored and written to docs/images/families/NAME.json with its pictures; rows
that are there are not made again, so the page is finished row by row, on any machine. It is written after each row.

GANs halve their images down to 4x4, so they see the pictures padded to 32x32. The samples of all rows are compared with
the same held-out pictures of 28x28: those of the GANs are cropped.
"""

import textwrap
import time
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor
from torchvision.transforms.functional import center_crop

from ganrun.config.load import load_config
from ganrun.data.cache import cache_folder, open_cache
from ganrun.data.index import open_data
from ganrun.data.scored import open_scored
from ganrun.evaluation.evaluator import Evaluator
from ganrun.evaluation.generated_images import BATCH, GeneratedImages
from ganrun.evaluation.picture_folder import PictureFolder
from ganrun.evaluation.pictures import to_png
from ganrun.evaluation.real_images import RealImages
from ganrun.evaluation.score import build_scores
from ganrun.inference.sampling import Sampler
from ganrun.models.extractors import open_extractor
from ganrun.preparation.convert_image import decode
from ganrun.run_folder.curve import read_curve
from ganrun.storage import open_storage
from tests.benchmarks.rows import Row, Rows, as_files, parser, train

PAGE = Path("docs/families.md")
SAMPLES, SHOWN, SEED, SIZE = 2_000, 12, 0, 28
DATA = "configs/mixture_fashion.yaml"
"""Config whose held-out pictures all rows are compared with."""
OF_A_GAN = ("evaluate.held_out_share=0.2", "evaluate.samples=2000")
ROWS: dict[str, tuple[str, ...]] = {
    "mixture": (DATA,),
    "MADE": ("configs/made_fashion.yaml",),
    "PixelCNN": ("configs/pixelcnn_fashion.yaml",),
    "RealNVP": ("configs/realnvp_fashion.yaml",),
    "Glow": ("configs/realnvp_fashion.yaml", "model.name=glow", "model.blocks=8", "run.name=glow-fashion"),
    "VAE": ("configs/vae_fashion.yaml",),
    "DCGAN": ("configs/quickstart.yaml", "run.name=dcgan-families", *OF_A_GAN),
    "R3GAN": (
        "configs/quickstart.yaml",
        "run.name=r3gan-families",
        "model.name=r3gan",
        "model.width=16",
        "objective.loss=relativistic",
        "objective.penalties={r1: 0.5, r2: 0.5}",
        "train.total_images=20_000",
        *OF_A_GAN,
    ),
}
"""Config and overrides of each row."""
FILES = Rows(Path("docs/images/families"), tuple(ROWS))
LESSONS = (
    "**A good likelihood is not a good sample.** The VAE's bound of {VAE[bits]:.2f} bits per dimension is close to "
    "MADE's {MADE[bits]:.2f}, and better than RealNVP's {RealNVP[bits]:.2f}; of the three RealNVP has the best "
    "Fréchet distance ({RealNVP[scores][frechet_distance]:.0f}, against {VAE[scores][frechet_distance]:.0f} and "
    "{MADE[scores][frechet_distance]:.0f}). The average over pixels rewards what is true of most of them, and a sample "
    "is seen as a whole (Theis et al. 2015, [arXiv:1511.01844](https://arxiv.org/abs/1511.01844)).",
    "**A sharp sample is not a density.** The DCGAN has a Fréchet distance of {DCGAN[scores][frechet_distance]:.0f}, "
    "and no bits: it cannot say how likely a picture is. {DCGAN[scores][recall]:.0%} of the held-out pictures lie near "
    "one of its samples (recall). A likelihood punishes each picture that is left out; the loss of a GAN does not.",
    "**One number after the other is slow.** The PixelCNN has the best likelihood, {PixelCNN[bits]:.2f}, and the best "
    "samples of these densities, and takes {PixelCNN[cpu_seconds_for_1000]:.0f} CPU seconds for 1,000 of them: a pass "
    "for each of 784 pixels, with all that earlier pixels decide kept. RealNVP takes "
    "{RealNVP[cpu_seconds_for_1000]:.1f} and the VAE {VAE[cpu_seconds_for_1000]:.1f}.",
    "**Invertibility has a price.** A flow draws in one pass and knows its density. For that each layer must keep "
    "all 784 numbers and be undone in closed form, so it can do little: {RealNVP[bits]:.2f} bits, where the PixelCNN, "
    "which owes nothing of the kind, has {PixelCNN[bits]:.2f}.",
    "**The R3GAN has only begun.** It was shown {R3GAN[images]:,} images, the DCGAN {DCGAN[images]:,}: with two "
    "penalties a turn and grouped convolutions a CPU core does ten to twenty images a second. Its blots say nothing "
    "of what it can do.",
)
"""What is learnt from rows. A paragraph is written when all rows that it names are there."""


def main(arguments: list[str] | None = None) -> None:
    """Make the rows that are missing, and the page."""
    options = parser("families", ROWS).parse_args(arguments)
    FILES.make(options.only, lambda name: make_row(name, options.runs), write_page)


def make_row(name: str, runs: str) -> Row:
    """Train a row, draw samples and score them; return its figures."""
    config, *overrides = ROWS[name]
    where = train(config, [f"run.storage={runs}", *overrides])
    sampler = Sampler(where)
    begun = time.process_time()
    images = draw(sampler.generated(SEED))
    seconds = time.process_time() - begun
    FILES.file(name, ".png").write_bytes(to_png(images[:SHOWN], SHOWN))
    networks = [sampler.game.networks[key] for key in sampler.game.averaged]
    row: Row = {
        "command": " ".join(["ganrun train", config, *(f"'{each}'" if " " in each else each for each in overrides)]),
        "images": sampler.config.train.total_images,
        "parameters": sum(each.numel() for network in networks for each in network.parameters()),
        "cpu_seconds_for_1000": 1_000 * seconds / SAMPLES,
        "scores": score(images),
    }
    if sampler.game.log_prob is not None:
        row |= {"bits": newest(where, "bits_per_dimension"), "bits_are": sampler.game.log_prob_is}
    return row


def draw(generated: GeneratedImages) -> Tensor:
    """Return the samples of a row, [SAMPLES, C, SIZE, SIZE] in [-1, 1]."""
    batches = [generated.images(start, min(BATCH, SAMPLES - start)) for start in range(0, SAMPLES, BATCH)]
    images: Tensor = center_crop(torch.cat(batches), [SIZE, SIZE])
    return images


def score(images: Tensor) -> Mapping[str, float | None]:
    """Return Fréchet distance, precision and recall of samples beside the held-out pictures."""
    config = load_config(DATA)
    held_out = open_scored(open_data(config.data.shards, crop=config.data.crop), config.evaluate, SAMPLES)
    reals = RealImages(held_out, SAMPLES, config.data.fields, cache=open_cache(config.data.cache_mib))
    scores = build_scores(("precision", "recall"), config.evaluate)
    statistics = open_storage(str(cache_folder().parent))
    extractor = open_extractor(config.evaluate.extractor, None)
    with as_files(images) as folder:
        pictures = PictureFolder(folder, sorted(Path(folder).iterdir()), decode, SIZE, images.shape[1], SEED)
        return Evaluator(extractor, reals, SAMPLES, scores, statistics).score(pictures).values()


def newest(where: str, key: str) -> float:
    """Return the newest value of a score in a run's curve."""
    return float([line[key] for line in read_curve(open_storage(where))[0] if key in line][-1])


def write_page() -> None:
    """Write the page of the rows that are there."""
    rows = FILES.read()
    lines = [
        "# Families of models on the same pictures",
        "",
        "Fashion-MNIST of the package: 8,000 pictures of 28x28 to learn from, 2,000 held out. Made by",
        "`python -m tests.benchmarks.families` on two CPU cores, which resumes row by row. Bits per dimension, Fréchet",
        "distance, precision and recall are those of the held-out pictures, beside 2,000 samples; GANs see the",
        "pictures padded to 32x32, and their samples are cropped. What the scores are: [scores.md](scores.md).",
        "",
        "| model | bits per dimension | Fréchet distance | precision | recall | CPU seconds for 1,000 samples "
        "| parameters | images shown |",
        "|---|---|---|---|---|---|---|---|",
        *(table_row(name, row) for name, row in rows.items()),
        "",
    ]
    for name, row in rows.items():
        lines += [f"**{name}**: `{row['command']}`", "", f"![samples of {name}](images/families/{name}.png)", ""]
    lines += ["## What one learns", "", *(line for lesson in LESSONS for line in learnt(lesson, rows))]
    if missing := [name for name in ROWS if name not in rows]:
        lines += [f"Not measured yet: {', '.join(missing)}.", ""]
    PAGE.write_text("\n".join(lines))


def learnt(lesson: str, rows: Mapping[str, Row]) -> list[str]:
    """Return the lines of a lesson with the figures of its rows; none where a row is missing."""
    try:
        return [*textwrap.wrap(lesson.format(**rows), 120, break_long_words=False, break_on_hyphens=False), ""]
    except KeyError:
        return []


def table_row(name: str, row: Row) -> str:
    """Return a row of the table."""
    bits = f"{row['bits']:.3f}, {row['bits_are']}" if "bits" in row else "none"
    scores = row["scores"]
    shown = (f"{scores['frechet_distance']:.1f}", f"{scores['precision']:.2f}", f"{scores['recall']:.2f}")
    numbers = (f"{row['cpu_seconds_for_1000']:.1f}", f"{row['parameters']:,}", f"{row['images']:,}")
    return "| " + " | ".join((name, bits, *shown, *numbers)) + " |"


if __name__ == "__main__":
    main()
