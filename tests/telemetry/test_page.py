"""The sidecar's page in a real browser."""

import contextlib
import io
import json
import re
import shutil
import subprocess
import threading

import pytest
import torch
from PIL import Image

from ganrun.evaluation.pictures import to_png
from ganrun.telemetry.messages import Note, SamplesDrawn, Tick, WorkersStarted
from ganrun.telemetry.protocol import Address
from ganrun.telemetry.push import Pusher
from ganrun.telemetry.sidecar.runs import Runs
from ganrun.telemetry.sidecar.server import Server
from ganrun.telemetry.state import RunHistory, RunState, SearchState
from tests.conftest import config_of
from tests.telemetry.test_push import heard
from tests.waiting import WAIT

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
MORE = "--disable-component-update --disable-sync --hide-scrollbars --virtual-time-budget=6000"
TYPES = {"ml": "text/html", "js": "text/javascript"}
LIGHT, DARK = (0xF6, 0xF7, 0xF9), (0x11, 0x15, 0x1A)

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium")


@pytest.fixture(scope="module")
def where():
    """A sidecar that knows two runs, one of them in trouble; its address."""
    values = {
        "run": {"name": "small"},
        "data": {"shards": "x", "image_size": 16},
        "train": {"total_images": 240},
        "telemetry": {"push_seconds": 60},
    }
    server = Server(Address("127.0.0.1", 0), Runs(), "")
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    address = Address(port=server.port)
    for name, ending in (("small", None), ("<b>bold</b>"[3:7], "finished")):
        values["run"]["name"] = name
        state = heard(values)
        png = to_png(torch.linspace(-1, 1, 16 * 3 * 256).view(16, 3, 16, 16))
        state.handle(SamplesDrawn(120, png, 0.5))
        state.handle(Note("<img src=x onerror=alert(1)> is text"))
        if ending:
            state.end(ending)
        Pusher(state, address, False, 60, lambda text: None).close()
    yield address.url
    server.shutdown()
    server.server_close()


@contextlib.contextmanager
def sidecar(*states, **files):
    """A sidecar to which these states were pushed, with further files of the page; its address."""
    server = Server(Address("127.0.0.1", 0), Runs(), "")
    server.page |= {f"/{name.replace('_', '.')}": (text.encode(), TYPES[name[-2:]]) for name, text in files.items()}
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    for state in states:
        Pusher(state, Address(port=server.port), False, 60, lambda text: None).close()
    try:
        yield f"http://127.0.0.1:{server.port}"
    finally:
        server.shutdown()
        server.server_close()


def browse(url, profile, *options):
    command = [CHROMIUM, *QUIET.split(), *MORE.split(), f"--user-data-dir={profile}", *options, url]
    done = subprocess.run(command, capture_output=True, timeout=WAIT)
    assert done.returncode == 0, done.stderr
    return done.stdout.decode()


def test_the_page_shows_curves_pictures_and_health(where, tmp_path):
    page = browse(f"{where}/#small", tmp_path, "--dump-dom")
    assert "Live: this page updates itself" in page
    assert "120 of 240 (50 %)" in page
    assert "A checkpoint could not be written once" in page
    assert page.count("<polyline") >= 4
    assert 'aria-label="Losses: generator 1.5 at 120 images"' in page or "discriminator/penalty 0.5" in page
    assert page.count("part?run=small&amp;trial=&amp;part=") == 2
    assert "&lt;img src=x onerror=alert(1)&gt; is text" in page
    assert 'href="#bold"' in page


def run_of(values, images, total, **changes):
    """The state of a run with a tick at each of these numbers of images."""
    config = config_of(values | {"train": {"total_images": total}, "telemetry": {"push_seconds": 60}}, **changes)
    state = RunState(config.run, config.train, config.telemetry, RunHistory())
    state.handle(WorkersStarted(0, workers=1))
    for at in images:
        state.handle(Tick(at, {"loss/generator": 1.5, "loss/critic": 0.5, "images_per_second": 5_210.0}))
    return state


def texts(page):
    """The labels of each chart."""
    return [re.findall(r"<text[^>]*>([^<]*)</text>", chart) for chart in page.split('<div class="chart"')[1:]]


def test_counts_are_exact_and_a_single_tick_is_labelled_once(values, tmp_path):
    state = run_of(values, [12_288_000], 25_000_000)
    for number in range(30):
        state.note(f"checkpoint {number:012d}-0001 could not be written: disk full")
    with sidecar(state) as where:
        page = browse(f"{where}/", tmp_path, "--dump-dom")
    assert "12,288,000 of 25,000,000 (49 %)" in page
    assert "<dd>5,210</dd>" in page
    assert "at 12,288,000" in page
    losses, *_, speed = [each for each in texts(page) if each]
    assert losses == ["0", "0.5", "1.0", "1.5", "12,288,000"]
    assert speed == ["0", "2,000", "4,000", "6,000", "12,288,000"]
    assert "checkpoint 000000000029-0001 could not be written: disk full <em>30 times since " in page
    assert page.count("could not be written") == 1


def test_a_search_shows_its_trials(values, tmp_path):
    config = config_of(values, run__name="pbt", telemetry__push_seconds=60)
    state = SearchState(config.run, config.telemetry)
    state.observe({"00": "running", "01": "running", "02": "failed"})
    with sidecar(state) as where:
        page = browse(f"{where}/", tmp_path, "--dump-dom")
    assert "Searching; trials: 2 running, 1 failed." in page
    assert "<dt>Trials running</dt><dd>2</dd>" in page
    assert "No checkpoint" not in page
    assert re.search(r'<section[^>]* class="curves"[^>]* hidden', page)


AXES = {
    "one": [1020],
    "zero": [0],
    "equal": [3.5, 3.5],
    "equal but for rounding": [0.1 + 0.2, 0.3],
    "negative": [-7.25, -1.5],
    "around zero": [-0.03, 0.05],
    "tiny values": [2e-9, 7e-9],
    "tiny range": [1000.001, 1000.004],
    "tiny range of large ones": [123_456_700, 123_456_790],
    "huge": [1e18, 7e19],
    "large": [2e12, 3e13],
    "from thousands to millions": [9_000, 2_500_000],
    "usual": [0.2, 1.31],
    "at a step": [0, 100],
}
AXIS = """
import { countAxis, labels, valueAxis } from "./chart.js";
const found = {};
for (const [name, values] of Object.entries(CASES)) {
  const axis = valueAxis(values, false);
  found[name] = { ...axis, labels: labels(axis) };
}
const counted = (...limits) => labels(countAxis(...limits));
found.counts = [counted(1020, 1020, 6), counted(1, 3, 6), counted(10_240, 12_288_000, 4), counted(12e6, 12_000_300, 4)];
document.body.textContent = JSON.stringify(found);
"""


def test_the_ticks_of_an_axis_are_round_and_distinct_whatever_its_values(tmp_path):
    html = '<!doctype html><body><script type="module" src="axis.js"></script></body>'
    with sidecar(axis_html=html, axis_js=f"const CASES = {json.dumps(AXES)};\n{AXIS}") as where:
        page = browse(f"{where}/axis.html", tmp_path, "--dump-dom")
    found = json.loads(re.search(r"\{.*\}", page)[0])
    assert found.pop("counts") == [
        ["1,020"],
        ["1", "2", "3"],
        ["5M", "10M"],
        ["12,000,000", "12,000,100", "12,000,200", "12,000,300"],
    ]
    assert found.keys() == AXES.keys()
    for name, axis in found.items():
        assert axis["low"] <= min(AXES[name]) <= max(AXES[name]) <= axis["high"], name
        assert 3 <= len(set(axis["labels"])) == len(axis["found"]) <= 7, (name, axis)
        assert all(len(label) <= 11 for label in axis["labels"]), (name, axis["labels"])
    assert found["usual"]["labels"] == ["0", "0.5", "1.0", "1.5"]
    assert found["one"]["labels"] == ["900", "1,000", "1,100", "1,200"]
    assert found["from thousands to millions"]["labels"] == ["0", "1M", "2M", "3M"]


def test_a_page_of_another_version_says_so(tmp_path):
    """As one that stayed open while the sidecar was replaced."""
    server = Server(Address("127.0.0.1", 0), Runs(), "")
    constants, kind = server.page["/constants.js"]
    server.page["/constants.js"] = constants.replace(b"VERSION = 1", b"VERSION = 0"), kind
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    page = browse(Address(port=server.port).url, tmp_path, "--dump-dom")
    server.shutdown()
    server.server_close()
    assert "This page is of version 0, the sidecar of version 1: reload the page." in page


@pytest.mark.parametrize(
    ("size", "scheme", "back"),
    [((1280, 900), "light", LIGHT), ((1280, 900), "dark", DARK), ((500, 900), "dark", DARK)],
)
def test_it_is_drawn_light_and_dark_wide_and_narrow(where, tmp_path, size, scheme, back):
    picture = tmp_path / "page.png"
    wanted = f"--blink-settings=preferredColorScheme={0 if scheme == 'dark' else 1}"
    browse(where, tmp_path / "profile", wanted, f"--window-size={size[0]},{size[1]}", f"--screenshot={picture}")
    image = Image.open(io.BytesIO(picture.read_bytes())).convert("RGB")
    assert image.size == size
    assert image.getpixel((2, 2)) == back
    # Nothing runs off the side: the margin right of all cards is the page's own colour from top to bottom.
    assert {image.getpixel((size[0] - 3, y)) for y in range(size[1])} == {back}
    assert len(image.getcolors(2**24)) > 50
