"""The page of `ganrun paint` in a real Chromium: real mouse events, files and downloads."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from tests.browser import CHROMIUM, Browser
from tests.inference.conftest import contrast
from tests.inference.test_paint import page, pixels_of
from tests.waiting import until

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium")
LIGHT, DARK = (0xF6, 0xF7, 0xF9), (0x11, 0x15, 0x1A)
STATUS = "document.querySelector('#status')?.textContent"
SHOWN = "document.querySelector('#result').src.split(',')[1]"
STROKE = [(0.2, 0.5), (0.5, 0.52), (0.8, 0.5)]


@pytest.fixture(scope="module")
def plain(painted):
    with page(painted["plain"], change=contrast) as found:
        yield found


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


def opened(browser, server):
    browser.open("about:blank")
    browser.open(f"http://127.0.0.1:{server.server.port}/")
    browser.until(f"{STATUS} === 'ready'")


def begun(browser, server):
    """Open the page and take the first image that it offers."""
    opened(browser, server)
    browser.until("document.querySelectorAll('#candidates img').length === 8")
    browser.click("#candidates button")
    return pixels_of({"image": browser.value(SHOWN)}).astype(float)


def done(browser):
    browser.until(f"{STATUS}.startsWith('done') || document.querySelector('#status.lost')")
    assert browser.value(STATUS).startswith("done")
    return pixels_of({"image": browser.value(SHOWN)}).astype(float)


def test_one_draws_sees_the_result_change_undoes_and_saves(browser, plain):
    before = begun(browser, plain)
    browser.click("[title='#ffffff']")
    browser.drag("#pad", STROKE)
    after = done(browser)
    assert after[15:17, 8:24].mean() > before[15:17, 8:24].mean()  # The stroke is white.
    found = json.loads(plain.log[-1])["edit"]
    assert found["start"]["latent"]
    browser.click("#save")
    saved = browser.profile / "saved"
    until(lambda: list(saved.glob("plain.png")))
    assert np.array_equal(np.asarray(Image.open(saved / "plain.png")), after)
    browser.click("#saveLatent")
    until(lambda: list(saved.glob("plain.json")))
    latent = json.loads((saved / "plain.json").read_text())
    assert (len(latent["latent"]), latent["space"]) == (8, "z")
    browser.click("#undo")
    assert browser.value(STATUS) == "undone"
    assert np.array_equal(pixels_of({"image": browser.value(SHOWN)}), before)
    assert browser.value("window.pad.isEmpty()")
    browser.choose("#file", saved / "plain.json")
    browser.until(f"{STATUS} === 'plain.json is opened'")
    assert np.array_equal(pixels_of({"image": browser.value(SHOWN)}), after)


def test_tools_do_what_they_say(browser, plain):
    opened(browser, plain)
    browser.until("document.querySelectorAll('#candidates img').length === 8")
    browser.click("#white")
    browser.drag("#pad", STROKE)
    done(browser)
    alpha = "(() => { const c = window.pad; const s = c.canvas.width; const d = c.copy().data; let n = 0;"
    alpha += "for (let i = 3; i < d.length; i += 4) n += d[i] > 0; return n / s / s; })()"
    drawn = browser.value(alpha)
    assert 0.03 < drawn < 0.06  # 0.6 of the side, 30 of 512 wide.
    browser.click("[value=eraser]")
    browser.drag("#pad", [(0.5, 0.4), (0.5, 0.6)])
    assert 0 < browser.value(alpha) < drawn
    browser.click("[value=pick]")
    browser.value("window.pad.colour = '#123456'")
    browser.drag("#pad", [(0.22, 0.5)])
    browser.until("window.pad.colour === '#000000' && document.querySelector('[value=brush]').checked")
    browser.click("#clear")
    assert browser.value("window.pad.isEmpty()")


def test_two_results_are_walked_between(browser, plain):
    begun(browser, plain)
    browser.click("#from")
    one = browser.value(SHOWN)
    browser.click("#candidates button:nth-child(3)")
    browser.click("#to")
    browser.until("!document.querySelector('#way').disabled")
    walked = "document.querySelector('#between').src.split(',')[1]"
    assert browser.value(walked) == one
    browser.value("(() => { const w = document.querySelector('#way'); w.value = 16; w.oninput(); })()")
    assert browser.value(walked) == browser.value(SHOWN)


def test_ones_own_picture_is_brought_and_changed(browser, plain, tmp_path):
    opened(browser, plain)
    Image.new("RGB", (90, 60), (250, 250, 250)).save(tmp_path / "white.jpg")
    browser.choose("#file", tmp_path / "white.jpg")
    browser.until(f"{STATUS}.startsWith('this is the nearest')")
    assert json.loads(plain.log[-1])["edit"]["perceptual"] == 0.1
    own = pixels_of({"image": browser.value(SHOWN)}).astype(float)
    browser.drag("#pad", STROKE)
    after = done(browser)
    assert after[15:17, 8:24].mean() < own[15:17, 8:24].mean()
    (tmp_path / "broken.png").write_bytes(b"no picture")
    browser.choose("#file", tmp_path / "broken.png")
    browser.until("document.querySelector('#status.lost')")
    assert "not an image format" in browser.value(STATUS)
    assert np.array_equal(pixels_of({"image": browser.value(SHOWN)}), after)


def test_a_translation_follows_while_one_draws(browser, painted):
    with page(painted["lines"]) as lines:
        opened(browser, lines)
        browser.drag("#pad", STROKE)
        done(browser)
        assert browser.value("document.querySelector('#sliders').hidden")
        until(lambda: len(lines.log) >= 1)


def test_two_browsers_at_once_do_not_mix(browser, plain, tmp_path):
    with Browser(tmp_path / "other") as other:
        one, two = begun(browser, plain), begun(other, plain)
        assert np.array_equal(one, two)
        browser.click("[title='#ffffff']")
        browser.drag("#pad", STROKE)
        other.drag("#pad", STROKE)
        white, black = done(browser), done(other)
        assert white[15:17, 8:24].mean() > black[15:17, 8:24].mean()


@pytest.mark.parametrize(
    ("width", "scheme", "back"), [(1280, "light", LIGHT), (1280, "dark", DARK), (420, "light", LIGHT)]
)
def test_it_is_drawn_light_and_dark_wide_and_narrow(browser, plain, width, scheme, back):
    browser.look(width, 1000, scheme)
    begun(browser, plain)
    image = Image.open(io.BytesIO(browser.screenshot())).convert("RGB")
    assert image.getpixel((2, 2)) == back
    # Nothing runs off the side.
    assert browser.value("document.documentElement.scrollWidth") == width == image.width
    assert {image.getpixel((width - 3, y)) for y in range(image.height)} == {back}


def test_no_other_host_is_asked(browser, plain):
    begun(browser, plain)
    hosts = {url.split("/")[2] for url in browser.requests if not url.startswith(("data:", "about:", "blob:"))}
    assert {host.split(":")[0] for host in hosts} == {"127.0.0.1"}
