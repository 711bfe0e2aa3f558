"""Plot of a run's curve: losses, logits of the discriminator, score and speed over images shown."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from ganrun.run_folder.curve import Line
from ganrun.telemetry.palette import COLOURS, figure_png
from ganrun.telemetry.series import DISTANCES, IMAGES_PER_SECOND, LOGIT, LOSS

PANELS: tuple[tuple[str, str, str | tuple[str, ...]], ...] = (
    ("Losses of the players", "mean loss", LOSS.prefix),
    ("Discriminator's output on real and fake", "mean logit", LOGIT.prefix),
    ("Quality of the samples (lower is better)", "distance", tuple(distance.prefix for distance in DISTANCES)),
    ("Speed", "images/s", IMAGES_PER_SECOND.prefix),
)
"""Title, label of the y axis, and prefix of the keys of each panel."""
MARKED_POINTS = 30
"""Largest number of points that get markers: a line through few points is hard to see."""


def draw_curve(curve: list[Line], title: str) -> bytes:
    """Return a PNG of 1,000 x 700 pixels with the panels of PANELS below `title`. `curve` must not be empty."""
    figure = Figure(figsize=(10, 7), dpi=100, layout="constrained", facecolor="white")
    figure.get_layout_engine().set(w_pad=0.1, h_pad=0.1)  # type: ignore[union-attr, call-arg]
    figure.suptitle(title, fontsize=12, x=0.01, ha="left")
    for axes, (heading, unit, prefix) in zip(figure.subplots(2, 2).flat, PANELS, strict=True):
        axes.set_title(heading, fontsize=11, loc="left")
        axes.set_ylabel(unit)
        dress(axes, last=curve[-1]["images"])
        _draw_series(
            axes, curve, list(dict.fromkeys(name for line in curve for name in line if name.startswith(prefix)))
        )
    # The last panel, speed, starts at 0; losses, logits and scores do not.
    axes.set_ylim(bottom=0)
    return figure_png(figure)


def dress(axes: Axes, last: int) -> None:
    """Format the axis of images, up to `last`, the spines and the grid."""
    axes.set_xlabel("images shown")
    axes.set_xlim(0, 1.02 * max(last, 1))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#E5E5E5", linewidth=0.8)


def _draw_series(axes: Axes, curve: list[Line], names: list[str]) -> None:
    for name, colour in zip(names, COLOURS, strict=False):
        points = [(line["images"], line[name]) for line in curve if line.get(name) is not None]
        marker = "o" if len(points) <= MARKED_POINTS else None
        label = name.partition("/")[2] or name
        axes.plot(*zip(*points, strict=True), color=colour, marker=marker, markersize=4, label=label, clip_on=False)
    if len(names) > 1:
        axes.legend(frameon=False, fontsize=10)
    elif not names:
        axes.set_yticks([])
        axes.text(0.5, 0.5, "nothing recorded", transform=axes.transAxes, ha="center", color="#555555")
