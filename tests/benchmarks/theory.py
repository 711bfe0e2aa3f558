"""Makes the pictures and the table of docs/theory.md.

    python -m tests.benchmarks.theory [--runs FOLDER] [--only NAME ...]

Runs are those of the page; the commands resume, so runs that are there are not made again.
"""

import argparse
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.integrate import quad
from scipy.stats import norm

from ganrun.config.load import load_config
from ganrun.config.run_spec import resolve
from ganrun.evaluation.divergences import log_mixture
from ganrun.evaluation.modes import mixture
from ganrun.games.calls import judge
from ganrun.inference.sampling import Sampler
from ganrun.run_folder.curve import read_curve
from ganrun.run_folder.run_config import write_config
from ganrun.run_folder.run_folder import RunFolder
from ganrun.slots import Slots
from ganrun.storage import open_storage
from ganrun.telemetry.palette import COLOURS
from ganrun.training.new_state import new_state
from ganrun.worker.worker import run_worker
from tests.ranks import StopAt, checkpoints_awaited

IMAGES = Path("docs/images/theory")
ROUNDS = 150
LEAST = 4e-3
"""Sum of the densities below which the optimal D is not drawn: there are too few points."""
PATHS: dict[str, tuple[str, ...]] = {
    "minimax: circles": (),
    "bilinear (Wasserstein): circles": ("objective.loss=wasserstein",),
    "minimax, 5 turns of D: circles": ("objective.discriminator_turns=5",),
    "minimax with R1: converges": ("objective.penalties={r1: 0.3}",),
    "minimax, momentum 0.5: diverges": (
        "optimizer.discriminator.momentum=0.5",
        "optimizer.generator.momentum=0.5",
    ),
}
"""Overrides of configs/dirac.yaml by title."""
SCORED = ("evaluate.held_out_share=0.2", "evaluate.metrics=[duality_gap, kl, reverse_kl, jensen_shannon]")
KEPT = ("checkpoint.every_images=250_000", "checkpoint.keep=20")
LONG: dict[str, tuple[str, ...]] = {
    "long": ("configs/gaussians_25.yaml", "run.name=long", "evaluate.every_images=250_000", *SCORED, *KEPT),
    "collapsing": (
        "configs/gaussians_25.yaml",
        "run.name=collapsing",
        "train.total_images=400_000",
        "objective.loss=non_saturating",
        "objective.penalties={}",
        "evaluate.every_images=100_000",
        *SCORED,
    ),
}
"""Commands of the two long runs."""


def main(arguments: list[str] | None = None) -> None:
    """Make the pictures."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.theory")
    parser.add_argument("--runs", default="runs", help="storage of the runs (default: %(default)s)")
    parser.add_argument("--only", nargs="*", choices=PICTURES, help="pictures to make (default: all)")
    options = parser.parse_args(arguments)
    IMAGES.mkdir(parents=True, exist_ok=True)
    for name in options.only or PICTURES:
        figure = PICTURES[name](options.runs)
        figure.savefig(IMAGES / f"{name}.png", pil_kwargs={"optimize": True})
        print(IMAGES / f"{name}.png")


def train(runs: str, *arguments: str) -> None:
    """Train a run as `ganrun train` does, but in this process, without Ray; or see that it is there."""
    path, *overrides = arguments
    spec = resolve(load_config(path, [*overrides, f"run.storage={runs}"]))
    folder = RunFolder(open_storage(spec.run.uri))
    write_config(spec, folder)
    with checkpoints_awaited():
        run_worker(spec, 0, 1, torch.device("cpu"), StopAt())  # type: ignore[arg-type]


def curve(runs: str, name: str, key: str) -> tuple[list[float], list[float]]:
    """Return images shown and values of a column of a run."""
    lines = [line for line in read_curve(open_storage(f"{runs}/{name}"))[0] if line.get(key) is not None]
    return [line["images"] for line in lines], [line[key] for line in lines]


def panels(rows: int, columns: int, size: tuple[float, float]) -> tuple[Figure, Iterator[Axes]]:
    """Return a figure, and its panels in order."""
    figure = Figure(figsize=size, dpi=100, layout="constrained", facecolor="white")
    return figure, iter(np.atleast_1d(figure.subplots(rows, columns)).flat)


def dress(axes: Axes, title: str, x: str = "", y: str = "", legend: bool = False) -> None:
    """Give a panel its title and the names of its axes."""
    axes.set_title(title, fontsize=10, loc="left")
    axes.set(xlabel=x, ylabel=y)
    axes.spines[["top", "right"]].set_visible(False)
    if legend:
        axes.legend(frameon=False, fontsize=9)


def path(*overrides: str) -> NDArray[np.float64]:
    """Return theta and psi of the Dirac-GAN after each round of ganrun, [ROUNDS + 1, 2]."""
    state = new_state(load_config("configs/dirac.yaml", list(overrides)), torch.device("cpu"), Slots(1))
    weights: list[Any] = [state.game.networks["generator"].theta, state.game.networks["discriminator"].psi]
    zeros = torch.zeros(8, 1, 1, 1)
    found = [[each.item() for each in weights]]
    for _ in range(ROUNDS):
        state.round(lambda: [{"image": zeros}])
        found.append([each.item() for each in weights])
    return np.array(found)


def simultaneous(rate: float = 0.1) -> NDArray[np.float64]:
    """Return what the minimax game would do if neither player saw the other's step. ganrun's turns alternate."""
    found = [np.array([1.0, 0.0])]
    for _ in range(ROUNDS):
        theta, psi = found[-1]
        slope = 1 / (1 + np.exp(-psi * theta))
        found.append(np.array([theta + rate * slope * psi, psi - rate * slope * theta]))
    return np.array(found)


def paths(runs: str) -> Figure:
    """Draw the paths of the Dirac-GAN."""
    drawn = {title: path(*overrides) for title, overrides in PATHS.items()}
    drawn["minimax, at once: would diverge"] = simultaneous()
    figure, each = panels(2, 3, (9, 6))
    for axes, (title, states) in zip(each, drawn.items(), strict=True):
        axes.plot(*states.T, color=COLOURS[0], linewidth=0.8, marker=".", markersize=2.5)
        axes.plot(*states[0], "o", color=COLOURS[1])
        axes.plot(0, 0, "+", color="black", markersize=10)
        reach = 1.1 * max(1.0, float(np.abs(states).max()))
        axes.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
        dress(axes, title, "theta", "psi")
        print(f"{title}: distance {np.linalg.norm(states[0]):.3f} at first, {np.linalg.norm(states[-1]):.3f} at last")
    return figure


def discriminator(runs: str) -> Figure:
    """Draw D beside the optimal D of the generator of that moment, early and late in a run of heights."""
    overrides = ("run.name=signal", "objective.loss=non_saturating", "objective.penalties={}")
    more = ("objective.discriminator_turns=5", "checkpoint.every_images=20_480", "checkpoint.keep=99")
    train(runs, "configs/heights_gan.yaml", *overrides, *more)
    of = mixture("points:heights")
    figure, each = panels(1, 2, (9, 3.6))
    folders = sorted(Path(f"{runs}/signal/checkpoints").iterdir())
    for axes, folder in zip(each, (folders[0], folders[-1]), strict=True):
        sampler = Sampler(str(folder))
        points = torch.cat(list(sampler.draw(10_000, 0))).flatten(1).double()
        x = torch.linspace(-4.5, 4.5, 400, dtype=torch.float64)[:, None]
        data = log_mixture(x, torch.from_numpy((of.centres - of.offset) / of.scale), of.sd / of.scale)
        model = log_mixture(x, points, 0.1)
        noise = sampler.generated(0).noise(0, len(x))
        with torch.no_grad():
            found = torch.sigmoid(judge(sampler.game.networks["discriminator"], x[:, :, None, None].float(), {}, noise))
        height = (x * of.scale + of.offset).flatten()
        axes.fill_between(height, data.exp(), color=COLOURS[0], alpha=0.25, label="density of the data")
        axes.fill_between(height, model.exp(), color=COLOURS[1], alpha=0.25, label="of the generator")
        axes.plot(height, found, color=COLOURS[2], label="D(x)")
        optimal = torch.where(data.exp() + model.exp() > LEAST, torch.sigmoid(data - model), torch.nan)
        axes.plot(height, optimal, "--", color="black", linewidth=1, label="optimal D(x)")
        axes.axhline(0.5, color="#999999", linewidth=0.6)
        axes.set_ylim(0, 1.2)
        dress(axes, f"after {int(folder.name.partition('-')[0]):,} heights", "height in cm", "", legend=True)
    return figure


def divergences(runs: str) -> Figure:
    """Draw divergences of two normals by their distance, and the gradient that a generator gets from a good D."""
    figure, (left, right) = panels(1, 2, (9, 3.6))
    means = np.linspace(0.01, 6, 60)

    def js(mean: float) -> float:
        p, q = norm(0, 1).pdf, norm(mean, 1).pdf
        return quad(lambda x: p(x) * np.log(2 * p(x) / (p(x) + q(x))), -10, 10 + mean)[0]  # type: ignore[no-any-return]

    left.plot(means, means**2 / 2, color=COLOURS[0], label="KL, both ways")
    left.plot(means, [js(mean) for mean in means], color=COLOURS[1], label="Jensen-Shannon")
    left.axhline(np.log(2), color="#999999", linewidth=0.8, linestyle=":")
    left.set_ylim(0, 3)
    dress(left, "N(0, 1) and N(m, 1)", "m", "nats", legend=True)
    for loss, colour in (("minimax", COLOURS[0]), ("non_saturating", COLOURS[1])):
        overrides = (f"objective.loss={loss}", f"run.name=signal-{loss}", "evaluate.every_images=0")
        rates = ("optimizer.discriminator.learning_rate=5", "optimizer.generator.learning_rate=1e-4")
        train(runs, "configs/dirac.yaml", *overrides, *rates)
        images, norms = curve(runs, f"signal-{loss}", "gradient_norm/generator")
        right.semilogy(np.array(images) / 8, norms, color=colour, label=loss.replace("_", "-"))
    dress(right, "Dirac-GAN: D has nearly won", "round", "norm of G's gradient", legend=True)
    return figure


MEASURES: Mapping[str, str] = {
    "mode_distance": "mode distance",
    "modes_covered": "modes covered, of 25",
    "jensen_shannon": "Jensen-Shannon",
    "duality_gap": "duality gap",
}


def stopping(runs: str) -> Figure:
    """Draw the scores of a long run and of one that collapses, and print their tables."""
    figure, each = panels(2, 2, (9, 6))
    for arguments in LONG.values():
        train(runs, *arguments)
    for axes, (key, title) in zip(each, MEASURES.items(), strict=True):
        for (name, colour), line in zip(zip(LONG, COLOURS, strict=False), ("-", "--"), strict=True):
            images, values = curve(runs, name, key)
            axes.plot(np.array(images) / 1e6, values, line, color=colour, marker="o", markersize=3, label=name)
        dress(axes, title, "million points shown", legend=True)
    for name in LONG:
        print(f"{name}: images, {', '.join(MEASURES)}")
        columns = [dict(zip(*curve(runs, name, key), strict=True)) for key in MEASURES]
        for images in columns[0]:
            print(f"{images:>10,.0f}  " + "  ".join(f"{column[images]:.4f}" for column in columns))
    return figure


PICTURES: dict[str, Callable[[str], Figure]] = {
    "paths": paths,
    "discriminator": discriminator,
    "divergences": divergences,
    "stopping": stopping,
}

if __name__ == "__main__":
    main()
