"""The sidecar's page in a real browser."""

import io
import shutil
import subprocess
import threading

import pytest
import torch
from PIL import Image

from ganrun.evaluation.pictures import to_png
from ganrun.telemetry.messages import Note, SamplesDrawn
from ganrun.telemetry.protocol import Address
from ganrun.telemetry.push import Pusher
from ganrun.telemetry.sidecar.runs import Runs
from ganrun.telemetry.sidecar.server import Server
from tests.telemetry.test_push import heard
from tests.waiting import WAIT

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
MORE = "--disable-component-update --disable-sync --hide-scrollbars --virtual-time-budget=6000"
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
