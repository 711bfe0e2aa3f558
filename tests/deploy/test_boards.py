"""Every panel of the dashboards draws something of a real Prometheus; a browser shows the page."""

import json
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from tests.deploy.boards import CELL, ROW, draw, shown
from tests.deploy.stack import RECORDED, Exporter, ask, needs, prometheus, serving, wait_until
from tests.deploy.test_dashboards import CHOSEN, FILES
from tests.waiting import WAIT


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.125, "percentunit", "12.5%"),
        (3 * 2**20, "bytes", "3 MiB"),
        (0.5, "s", "0.5 s"),
        (1234, "suffix: images/s", "1,234 images/s"),
        (1e-4, "short", "0.0001"),
    ],
)
def test_a_value_is_shown_with_its_unit(value, unit, text):
    assert shown(value, unit) == text


@pytest.mark.drill
@needs("prometheus", "chromium")
def test_every_panel_draws_something_and_a_browser_shows_it(tmp_path):
    seen = "run:ganrun_left_seconds:avg15m and on (run, trial) changes(ganrun_images_total[1m]) > 0"
    with (
        serving(Exporter(RECORDED.read_text())) as target,
        prometheus(tmp_path / "prometheus", target) as url,
    ):
        wait_until(lambda: ask(url, "query", query=seen)["result"], lambda: ask(url, "targets"))
        wait_until(lambda: ask(url, "query", query="count_over_time(up[1m]) > 20")["result"], lambda: "no history")
        for path in FILES:
            board = json.loads(path.read_text())
            page, drawn = draw(board, url, CHOSEN)
            assert [title for title, series in drawn.items() if not series] == [], path.name
            assert "no data" not in page
            (tmp_path / f"{path.stem}.html").write_text(page)
            look(board, tmp_path / f"{path.stem}.html", tmp_path / f"{path.stem}.png")


def look(board: dict, page: Path, picture: Path) -> None:
    """Take a picture of the page; there are figures or curves in each panel of it."""
    height = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in board["panels"]) * ROW + 16
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    command += [f"--user-data-dir={page.parent}/profile", f"--window-size={24 * CELL + 16},{height}"]
    subprocess.run([*command, f"--screenshot={picture}", page.as_uri()], check=True, capture_output=True, timeout=WAIT)
    image = Image.open(picture).convert("RGB")
    for panel in board["panels"]:
        if panel["type"] != "row":
            x, y, w, h = (panel["gridPos"][name] for name in "xywh")
            below_title = (x * CELL + 14, y * ROW + 32, (x + w) * CELL - 4, (y + h) * ROW - 4)
            assert len(image.crop(below_title).getcolors(2**24)) > 10, panel["title"]
