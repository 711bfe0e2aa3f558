"""Plot of a measurement: rates of each side over the peer's of the same repeat."""

import statistics
import textwrap
from typing import Any

from matplotlib.figure import Figure

from ganrun.telemetry.palette import COLOURS


def draw(found: dict[str, Any], path: str) -> None:
    """Write a PNG with a bar per side (median ratio to the peer) and a dot per repeat."""
    sides: dict[str, list[float]] = found["sides"]
    peer = sides.get(found["peer"]) or sides["peer"]
    ratios = {name: [a / b for a, b in zip(rates, peer, strict=True)] for name, rates in sides.items()}
    figure = Figure(figsize=(10, 1.4 + 0.6 * len(ratios)), dpi=100, layout="constrained", facecolor="white")
    axes = figure.subplots()
    for place, (name, values) in enumerate(ratios.items()):
        colour = COLOURS[-1] if sides[name] is peer else COLOURS[0]
        axes.barh(place, statistics.median(values), color=colour, height=0.6)
        axes.plot(values, [place] * len(values), "o", color="black", markersize=3)
        axes.annotate(
            f"{statistics.median(values):.2f}  ({statistics.median(sides[name]):,.1f} {found['unit']})",
            (max(*values, statistics.median(values)), place),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
        )
    names = [textwrap.fill(found["peer"] if name == "peer" else name, 26) for name in ratios]
    axes.set_yticks(range(len(ratios)), names)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.5 * max(max(values) for values in ratios.values()))
    axes.set_xlabel(f"rate over the peer's; a dot for each of {found['repeats']} repeats in turn")
    figure.suptitle(f"ganrun bench {found['what']}", x=0.01, ha="left", fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, format="png")
