"""Draws a Grafana dashboard as a page: each panel where it lies, from the answers of a Prometheus to its own queries.

It stands in for Grafana, whose server no package index here has. It draws what Grafana would be given (queries over a
range, legends, units, mappings of values), not how Grafana looks.
"""

import html
import json
import math
import re
import time
import urllib.parse
import urllib.request
from typing import Any

CELL, ROW = 50, 30
"""Width and height in pixels of a unit of gridPos."""
COLOURS = ("#1f77b4", "#d95f02", "#2a9d4a", "#c22d4b", "#7b4fb5", "#8c6d31", "#d14fa6", "#5f6670")
Curve = tuple[dict[str, str], list[tuple[float, float]]]
"""Labels of a series, and its points (time, value)."""


def query_range(url: str, expression: str, chosen: dict[str, str], now: float, seconds: int) -> list[Curve]:
    """Return the answer of Prometheus over `seconds` until `now`, with values for the variables of the dashboard."""
    for name, value in chosen.items():
        expression = expression.replace(name, value)
    asked = {"query": expression, "start": now - seconds, "end": now, "step": 1}
    with urllib.request.urlopen(f"{url}/api/v1/query_range?{urllib.parse.urlencode(asked)}") as answer:
        found = json.load(answer)["data"]["result"]
    return [
        (each["metric"], [(float(at), float(value)) for at, value in each["values"] if math.isfinite(float(value))])
        for each in found
    ]


def shown(value: float, unit: str) -> str:
    """Return a value as a panel of this unit shows it."""
    if unit == "percentunit":
        return f"{value:.1%}"
    if unit in ("bytes", "mbytes", "Bps"):
        value *= 2**20 if unit == "mbytes" else 1
        power = max(0, min(int(math.log(max(value, 1), 1024)), 4))
        return f"{value / 1024**power:.3g} {('B', 'KiB', 'MiB', 'GiB', 'TiB')[power]}" + "/s" * (unit == "Bps")
    return f"{value:,.4g}" + {"s": " s", "percent": " %"}.get(unit, unit.partition(":")[2])


def legend(panel: dict[str, Any], target: dict[str, Any], labels: dict[str, str]) -> str:
    """Return the name of a series by the panel's legend format."""
    text = target.get("legendFormat") or panel["title"]
    return re.sub(r"{{(\w+)}}", lambda found: labels.get(found[1], ""), text).strip() or panel["title"]


def draw(dashboard: dict[str, Any], url: str, chosen: dict[str, str], seconds: int = 60) -> tuple[str, dict[str, int]]:
    """Return a page, and how many series each panel shows, by title. Rows are headings."""
    parts, drawn, now = [], {}, time.time()
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        width, height = place["w"] * CELL, place["h"] * ROW
        style = f"left:{place['x'] * CELL}px;top:{place['y'] * ROW}px;width:{width - 8}px;height:{height - 8}px"
        if panel["type"] == "row":
            parts.append(f'<h2 style="{style}">{html.escape(panel["title"])}</h2>')
            continue
        answers = [(target, query_range(url, target["expr"], chosen, now, seconds)) for target in panel["targets"]]
        drawn[panel["title"]] = sum(bool(points) for _, curves in answers for _, points in curves)
        kind = {"stat": stat, "timeseries": graph, "table": table, "xychart": over_images}[panel["type"]]
        inner = kind(panel, answers, width - 24, height - 50)
        title = f'<b title="{html.escape(panel["description"])}">{html.escape(panel["title"])}</b>'
        parts.append(f'<div class="{panel["type"]}" style="{style}">{title}{inner}</div>')
    return PAGE.format(title=html.escape(dashboard["title"]), panels="\n".join(parts)), drawn


def stat(panel: dict[str, Any], answers: list[Any], width: int, height: int) -> str:
    """Draw the newest value of each series in large digits, or the words that stand for it."""
    defaults, lines = panel["fieldConfig"]["defaults"], []
    words = {key: each["text"] for mapping in defaults.get("mappings", []) for key, each in mapping["options"].items()}
    for target, curves in answers:
        for labels, points in curves:
            if points:
                value = points[-1][1]
                text = words.get(f"{value:g}", shown(value, defaults["unit"]))
                name = legend(panel, target, labels)
                lines.append(f"<p><strong>{html.escape(text)}</strong> {html.escape(name)}</p>")
    return "".join(lines[:4]) or "<p>no data</p>"


def graph(panel: dict[str, Any], answers: list[Any], width: int, height: int) -> str:
    """Draw the curves over time."""
    curves = [
        (legend(panel, target, labels), points) for target, found in answers for labels, points in found if points
    ]
    return lines_of(curves, panel["fieldConfig"]["defaults"]["unit"], width, height)


def over_images(panel: dict[str, Any], answers: list[Any], width: int, height: int) -> str:
    """Draw each trial's values over its images: the first query is the x axis, joined by trial and time."""
    renamed = panel["transformations"][1]["options"]["renameByName"]
    images = {(labels.get("trial", ""), at): value for labels, points in answers[0][1] for at, value in points}
    curves = []
    for target, found in answers[1:]:
        for labels, points in found:
            joined = [
                (images[labels.get("trial", ""), at], value)
                for at, value in points
                if (labels.get("trial", ""), at) in images
            ]
            if joined:
                curves.append((f"{labels.get('trial', '')} {renamed['Value #' + target['refId']]}", joined))
    return lines_of(curves, panel["fieldConfig"]["defaults"].get("unit", "short"), width, height)


def table(panel: dict[str, Any], answers: list[Any], width: int, height: int) -> str:
    """Draw a row per trial, a column per query, the newest values."""
    renamed = panel["transformations"][1]["options"]["renameByName"]
    units = {
        each["matcher"]["options"]: each["properties"][0]["value"] for each in panel["fieldConfig"].get("overrides", [])
    }
    rows: dict[str, dict[str, str]] = {}
    for target, curves in answers:
        name = renamed[f"Value #{target['refId']}"]
        for labels, points in curves:
            if points:
                rows.setdefault(labels.get("trial", ""), {})[name] = shown(points[-1][1], units.get(name, "short"))
    head = "".join(f"<th>{html.escape(name)}</th>" for name in ("trial", *renamed.values()))
    body = "".join(
        f"<tr><td>{trial or '(none)'}</td>" + "".join(f"<td>{row.get(n, '')}</td>" for n in renamed.values()) + "</tr>"
        for trial, row in sorted(rows.items())
    )
    return f"<table><tr>{head}</tr>{body}</table>"


def lines_of(curves: list[tuple[str, list[tuple[float, float]]]], unit: str, width: int, height: int) -> str:
    """Draw curves with the ends of both axes, and a legend with the newest values."""
    if not curves:
        return "<p>no data</p>"
    xs = [x for _, points in curves for x, _ in points]
    ys = [y for _, points in curves for _, y in points]
    left, right, low, high = min(xs), max(xs), min(ys), max(ys)
    high = high if high > low else low + (abs(low) or 1)
    right = right if right > left else left + 1
    height -= 18 * (1 + len(curves[:8]) // 3)
    parts = []
    for number, (_, points) in enumerate(curves):
        places = [
            (46 + (x - left) / (right - left) * (width - 52), 4 + (high - y) / (high - low) * (height - 8))
            for x, y in points
        ]
        colour = COLOURS[number % len(COLOURS)]
        way = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(f'<polyline points="{way}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts.append(f'<circle cx="{places[-1][0]:.1f}" cy="{places[-1][1]:.1f}" r="3" fill="{colour}"/>')
    ends = f'<text x="0" y="12">{shown(high, unit)}</text><text x="0" y="{height - 2}">{shown(low, unit)}</text>'
    names = "".join(
        f'<i style="color:{COLOURS[number % len(COLOURS)]}">{html.escape(name)} {shown(points[-1][1], unit)}</i> '
        for number, (name, points) in enumerate(curves[:8])
    )
    return f'<svg width="{width}" height="{height}">{"".join(parts)}{ends}</svg><br>{names}'


PAGE = """<!doctype html><meta charset="utf-8"><title>{title}</title>
<style>
body {{ margin: 8px; font: 12px sans-serif; position: relative; background: #f4f5f5 }}
div, h2 {{ position: absolute; box-sizing: border-box; margin: 0; overflow: hidden }}
div {{ background: #fff; border: 1px solid #ccc; padding: 6px }}
h2 {{ font-size: 15px; padding-top: 6px }} p {{ margin: 2px 0 }} strong {{ font-size: 20px }}
i {{ font-style: normal; margin-right: 8px }} svg text {{ font-size: 10px; fill: #555 }}
svg {{ border-bottom: 1px solid #bbb }} td, th {{ text-align: left; padding: 1px 18px 1px 0 }}
</style>
<body>{panels}</body>
"""
