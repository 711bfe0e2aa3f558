"""Makes docs/results.md: GANs and pytorch/examples' DCGAN on the same drawings, at equal width, batch and images.

    python -m tests.benchmarks.results --data data/emoji [--runs FOLDER] [--only NAME ...] [--images N] [--threads N]

The data are the RGB 64x64 emoji of configs/text_to_image_emoji.yaml, whose header says how to prepare them. A row is
trained (the command resumes), scored and written to docs/images/results/NAME.json with its pictures; rows that are
there are not made again.
"""

import argparse
import itertools
import json
import math
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

import ganrun
from ganrun.benchmarks.memory import forecast
from ganrun.benchmarks.tutorial_step import TutorialStep
from ganrun.config.load import load_config
from ganrun.config.run_spec import resolve
from ganrun.evaluation.pictures import to_png
from tests.benchmarks.rows import Row, Rows, as_files, parser, slug, train

PAGE = Path("docs/results.md")
WIDTH, BATCH_SIZE, SAMPLES, HELD_OUT, SEED, SHOWN = 16, 16, 1_500, 0.1, 0, 24
DATA = "data/emoji"
EXAMPLE = "pytorch/examples' DCGAN"
COMMON = (
    f"model.width={WIDTH}",
    f"data.batch_size={BATCH_SIZE}",
    "data.slots=1",
    "train.precision=float32",
    "train.average_half_life_images=2_000",
    "train.tick_images=5_000",
    "cluster.workers=1",
    "cluster.gpus_per_worker=0",
    f"evaluate.held_out_share={HELD_OUT}",
    f"evaluate.samples={SAMPLES}",
)
R1 = ("objective.penalties={r1: 10}", "objective.penalty_every_rounds=4")
STYLEGAN2 = ("configs/stylegan2_64.yaml", "model.latent_size=64", "objective.penalties={r1: 1}")
"""With the config's gamma r rose to 0.82 after 25,000 drawings in batches of 64, and samples were specks."""
LONGER = "train.total_images=240000"
ROWS: dict[str, tuple[str, ...]] = {
    "DCGAN": ("configs/dcgan_64.yaml",),
    EXAMPLE: ("configs/dcgan_64.yaml",),
    "DCGAN, longer": ("configs/dcgan_64.yaml", LONGER),
    f"{EXAMPLE}, longer": ("configs/dcgan_64.yaml", LONGER),
    "DCGAN, R1": ("configs/dcgan_64.yaml", "objective.diffaugment=[]", *R1),
    "SNGAN": ("configs/sngan_64.yaml",),
    "R3GAN": ("configs/r3gan_64.yaml",),
    "StyleGAN2": (*STYLEGAN2, "objective.ada_target=0"),
    "StyleGAN2, ADA": STYLEGAN2,
}
"""Config and overrides of each row, beside `COMMON`. That of the example gives its networks."""
FILES = Rows(Path("docs/images/results"), tuple(ROWS))
INTRODUCTION = f"""# Results

GANs on 15,695 emoji of four sets (Noto, Twemoji, OpenMoji, Fluent), RGB 64x64, a tenth held out: equal width
({WIDTH}) and batch ({BATCH_SIZE}), on CPU cores. Networks are small and runs are short: what the table shows is how
they compare after the same number of images, and not how well they can do. Made row by row by `python -m
tests.benchmarks.results`; `configs/text_to_image_emoji.yaml` says how to prepare the data.

Scores compare {SAMPLES:,} samples with the held-out drawings: Fréchet distance and KID of EfficientNet-Lite0,
precision and recall, and memorisation: 0.5 where samples are as near to training images as held-out drawings are, 1
where they are copies, 0 where they are far from all ([scores.md](scores.md)). The example is pytorch/examples' DCGAN
script on the same networks and batches; it has no moving average. r is the mean sign of D(real) in the last quarter;
above 0.9 the discriminator is about to win. Seconds are those of rounds, on a machine of two cores that had other
work, up to three runs at once: no benchmark. Memory is forecast. The script also writes a picture of the nearest
training images of each row beside its runs: not all of these drawings may be part of this repository.
"""
OPEN = """## On published data

Not run: CIFAR-10, CelebA and FFHQ were not at hand, nor GPUs. Each command, and where its score is from, is at the top
of its config.

| config | published FID |
|---|---|
| `dcgan_cifar10.yaml` | 37.7 |
| `sngan_cifar10.yaml` | 21.7 |
| `stylegan2_cifar10.yaml` | 2.42 |
| `r3gan_cifar10.yaml` | 1.96 |
| `stylegan2_ffhq256.yaml` | 3.99 |
| `dcgan_celeba.yaml` | 21.4 |
"""
METRICS = "kid,precision,recall,memorisation"


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the rows that are missing, and the page."""
    of_all = parser("results", ROWS)
    of_all.add_argument("--data", default=DATA, help="the prepared drawings (default: %(default)s)")
    of_all.add_argument("--images", type=int, default=60_000, help="shown to each row (default: %(default)s)")
    of_all.add_argument("--threads", type=int, default=2, help="CPU threads of a row (default: %(default)s)")
    options = of_all.parse_args(arguments)
    # The example needs the run of the DCGAN.
    FILES.make(
        options.only, lambda name: (make_example if name.startswith(EXAMPLE) else make_row)(name, options), write_page
    )


def overrides(name: str, options: argparse.Namespace) -> list[str]:
    """Return the overrides of a row that decide its result."""
    mine = ROWS[name][1:]
    return [*COMMON, *(() if LONGER in mine else (f"train.total_images={options.images}",)), *mine]


def make_row(name: str, options: argparse.Namespace) -> Row:
    """Train a row and score it; return its figures."""
    config, mine = ROWS[name][0], overrides(name, options)
    own = [f"run.name=results-{slug(name)}", f"run.storage={options.runs}", f"data.shards={options.data}"]
    own += [f"cluster.cpus_per_worker={options.threads}"]
    images = resolve(load_config(config, [*own, *mine])).train.total_images
    own += [f"evaluate.every_images={images}"]
    where = train(config, [*own, *mine])
    run = ganrun.load(where)
    curve = run.curve()
    signs = curve.get("logit_sign/real")  # A relativistic loss has no logit alone.
    FILES.file(name, ".png").write_bytes(to_png(run.sample(SHOWN), SHOWN // 2))
    return {
        "command": shlex.join(["ganrun", "train", config, f"data.shards={DATA}", *mine]),
        "parameters": sum(each.numel() for each in run.generator.parameters()),
        "memory": forecast(resolve(load_config(config, [*own, *mine]))).total,
        "seconds": float(curve["seconds/round"].sum()),
        "sign_rate": None if signs is None else float(signs[-len(signs) // 4 :].mean()),
        "images": images,
        **scored([where], name, options),
    }


def make_example(name: str, options: argparse.Namespace) -> Row:
    """Train the networks of the DCGAN as pytorch/examples' script does, on the same batches; return its figures.

    As in the script there is no moving average, and samples are drawn with batch statistics.
    """
    config = ROWS[name][0]
    spec = resolve(load_config(config, [f"data.shards={options.data}", *overrides(name, options)]))
    torch.manual_seed(SEED)
    torch.set_num_threads(options.threads)
    example, seconds = TutorialStep.of(spec), 0.0
    data = ganrun.Dataset(options.data, BATCH_SIZE, held_out_share=HELD_OUT, seed=SEED)
    step, signs = example.training(), []
    batches = math.ceil(spec.train.total_images / BATCH_SIZE)
    for number, batch in enumerate(itertools.islice(data, batches)):
        images = batch["image"]
        assert isinstance(images, Tensor)
        begun = time.perf_counter()
        step(images, None)
        seconds += time.perf_counter() - begun
        if number >= batches * 3 // 4:
            with torch.no_grad():
                signs.append(example.discriminator(images, None).sign().mean().item())
    with torch.no_grad():
        count = math.ceil(SAMPLES / BATCH_SIZE)
        drawn = [example.generator(torch.randn(BATCH_SIZE, example.latent_size), None) for _ in range(count)]
        images = torch.cat(drawn)[:SAMPLES]
        FILES.file(name, ".png").write_bytes(to_png(images[:SHOWN], SHOWN // 2))
    with as_files(images) as folder:
        # Compared with the real images of the DCGAN's run, which are held out of this one, too.
        compared = [f"{options.runs}/results-DCGAN", "--images", folder]
        return {
            "command": f'python -m tests.benchmarks.results --only "{name}"',
            "parameters": sum(each.numel() for each in example.generator.parameters()),
            "seconds": seconds,
            "sign_rate": statistics.fmean(signs),
            "images": spec.train.total_images,
            **scored(compared, name, options),
        }


def scored(what: list[str], name: str, options: argparse.Namespace) -> Row:
    """Return the scores of a run or a folder of pictures, and write the picture of the nearest training images.

    It is written beside the runs: not all of these drawings may be part of this repository.
    """
    nearest = f"{options.runs}/{slug(name)}-nearest.png"
    more = ["--metrics", METRICS, "--nearest", nearest, "--json", "--quiet"]
    command = [sys.executable, "-m", "ganrun.evaluate", *what, *more]
    found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    return {"scores": found}


def write_page() -> None:
    """Write the page of the rows that are there."""
    rows = FILES.read()
    lines = [
        INTRODUCTION,
        "| | Fréchet distance | KID | precision | recall | memorisation | r | seconds | memory, MiB "
        "| parameters of G | images |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
        *(table_row(name, row) for name, row in rows.items()),
        "",
    ]
    for name, row in rows.items():
        picture = f"images/results/{slug(name)}"
        lines += [f"## {name}", "", f"`{row['command']}`", "", f"![samples of {name}]({picture}.png)", ""]
    if missing := [name for name in ROWS if name not in rows]:
        lines += [f"Not measured yet: {'; '.join(missing)}.", ""]
    PAGE.write_text("\n".join([*lines, OPEN]))


def table_row(name: str, row: Row) -> str:
    """Return a row of the table."""
    scores = row["scores"]
    numbers = (
        f"{scores['frechet_distance']:.1f}",
        f"{scores['kid']:.2f}",
        f"{scores['precision']:.2f}",
        f"{scores['recall']:.2f}",
        f"{scores['memorisation']:.2f}",
        "" if row["sign_rate"] is None else f"{row['sign_rate']:.2f}",
        f"{row['seconds']:,.0f}",
        f"{row['memory'] / 2**20:,.0f}" if "memory" in row else "",
        f"{row['parameters']:,}",
        f"{row['images']:,}",
    )
    return "| " + " | ".join((name, *numbers)) + " |"


if __name__ == "__main__":
    main()
