"""Plots of a search: scores and hyper-parameters over images, and samples of all trials."""

import io
import math
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from PIL import Image

from ganrun.config.schema_tune import MutationConfig
from ganrun.run_folder.plot import dress
from ganrun.storage import Storage, open_storage
from ganrun.telemetry.palette import COLOURS, figure_png
from ganrun.tuning.population import Population

STYLES = ("-", "--", ":", "-.")
COLUMNS = 4
MARGIN = 0.04
"""Margin of an axis of values beyond the prior."""


def draw_scores(population: Population) -> bytes:
    """Return a PNG of each trial's score over images, with a cross at each exploit."""
    figure = Figure(figsize=(10, 5), dpi=100, layout="constrained", facecolor="white")
    axes = figure.subplots()
    axes.set_title(f"Score of each trial ({_direction(population)} is better); crosses: exploits", loc="left")
    axes.set_ylabel(population.tune.metric)
    dress(axes, population.total_images)
    for number, trial in enumerate(population.trials):
        colour, style = _look(number)
        if points := _course(population, trial):
            axes.plot(*zip(*points, strict=True), color=colour, linestyle=style, marker="o", markersize=4, label=trial)
        for exploit in population.exploits:
            given_up = population.reports[trial].get(exploit.interval)
            if exploit.trial == trial and given_up and given_up.score is not None:
                axes.plot(given_up.images, given_up.score, marker="x", markersize=10, color=colour)
    if 0 < len(population.trials) <= 16:
        axes.legend(title="trial", frameon=False, fontsize=9, ncols=2)
    return figure_png(figure)


def _course(population: Population, trial: str) -> list[tuple[int, float]]:
    """Return a trial's scores; after an exploit, those of the donor's weights."""
    donors = {each.interval: each.donor for each in population.exploits if each.trial == trial}
    found = []
    for interval in sorted({*population.reports[trial], *donors}):
        for each in (trial, donors.get(interval)):
            report = population.reports[each].get(interval) if each else None
            if report and report.score is not None:
                found.append((report.images, report.score))
    return found


def draw_hyperparameters(population: Population) -> bytes:
    """Return a PNG with a panel per hyper-parameter: its value in each trial over images, coloured by ancestor."""
    keys = list(population.tune.mutations)
    columns = min(2, len(keys))
    rows = math.ceil(len(keys) / columns)
    figure = Figure(figsize=(5 * columns + 1, 3.2 * rows + 0.6), dpi=100, layout="constrained", facecolor="white")
    figure.suptitle("Hyper-parameters of each trial", x=0.01, ha="left", fontsize=12)
    panels = figure.subplots(rows, columns, squeeze=False).flat
    for key, axes in zip(keys, panels, strict=False):
        axes.set_title(key, loc="left", fontsize=10)
        dress(axes, population.total_images)
        _draw_key(axes, population, key)
    for axes in list(panels)[len(keys) :]:
        axes.set_visible(False)
    handles: dict[str, Any] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    ordered = sorted(handles)
    shown = [handles[each] for each in ordered]
    figure.legend(handles=shown, labels=ordered, title="weights\nbegan in", loc="outside right center", frameon=False)
    return figure_png(figure)


def _draw_key(axes: Axes, population: Population, key: str) -> None:
    """Draw a step line per trial. At an exploit it changes value and, with the ancestor, colour."""
    mutation = population.tune.mutations[key]
    place: Any = mutation.choice.index if mutation.choice else float
    end = population.total_images
    for trial in population.trials:
        taken = [each for each in population.exploits if each.trial == trial]
        starts = [0, *(each.images for each in taken)]
        values = [population.first[trial][key], *(each.after[key] for each in taken)]
        founders = [trial, *(population.lineage(each.donor, each.interval)[0].trial for each in taken)]
        shown = [place(tuple(value) if isinstance(value, list) else value) for value in values]
        for number, (start, value, founder) in enumerate(zip(starts, shown, founders, strict=True)):
            stop = starts[number + 1] if number + 1 < len(starts) else end
            colour, _ = _look(population.trials.index(founder))
            axes.plot([start, stop], [value, value], color=colour, linewidth=2, label=founder, solid_capstyle="butt")
            if number:
                axes.plot([start, start], [shown[number - 1], value], color=colour, linewidth=0.8, linestyle=":")
                axes.plot(start, value, marker="o", markersize=4, color=colour)
    _scale(axes, mutation)


def _scale(axes: Axes, mutation: MutationConfig) -> None:
    """Scale the axis of values to the prior."""
    if mutation.choice:
        axes.set_yticks(range(len(mutation.choice)), [str(value) for value in mutation.choice])
    elif mutation.uniform:
        low, high = mutation.uniform
        axes.set_ylim(low - MARGIN * (high - low), high + MARGIN * (high - low))
    elif mutation.log_uniform:
        low, high = mutation.log_uniform
        axes.set_yscale("log")
        axes.set_ylim(low * (low / high) ** MARGIN, high * (high / low) ** MARGIN)
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_locator(NullLocator())


def draw_samples(storage: Storage, population: Population) -> bytes | None:
    """Return a PNG of the newest samples of each trial, best trial first; None if there are none."""
    found = []
    for each in population.standings():
        place = open_storage(f"{storage.uri}/trials/{each.trial}")
        if names := place.list("samples"):
            picture = np.asarray(Image.open(io.BytesIO(place.read(f"samples/{names[-1]}"))).convert("RGB"))
            score = "no score" if each.last is None or each.last.score is None else f"score {each.last.score:.4g}"
            found.append((f"trial {each.trial}, {score}", picture))
    if not found:
        return None
    columns = min(COLUMNS, len(found))
    rows = math.ceil(len(found) / columns)
    figure = Figure(figsize=(3.2 * columns, 3.5 * rows), dpi=100, layout="constrained", facecolor="white")
    for axes in (panels := list(figure.subplots(rows, columns, squeeze=False).flat)):
        axes.set_axis_off()
    for axes, (title, picture) in zip(panels, found, strict=False):
        axes.imshow(picture, interpolation="nearest")
        axes.set_title(title, fontsize=10)
    return figure_png(figure)


def _look(number: int) -> tuple[str, str]:
    """Return colour and line style of a trial."""
    return COLOURS[number % len(COLOURS)], STYLES[number // len(COLOURS) % len(STYLES)]


def _direction(population: Population) -> str:
    return "higher" if population.tune.mode == "max" else "lower"
