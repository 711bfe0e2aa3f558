"""The picture of a curve."""

import io

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from ganrun.run_folder import plot

TICKS = [
    {"images": n, "loss/discriminator": 1.0 + n, "loss/generator": 2.0, "logit/real": 1.0, "logit/fake": -1.0}
    | {"images_per_second": 100.0}
    for n in (10, 20, 30)
]
SCORES = [{"images": 0, "frechet_distance": 9.0}, {"images": 30, "frechet_distance": None}]


@pytest.fixture
def drawn(monkeypatch):
    """The figures that are saved."""
    figures, save = [], Figure.savefig

    def spy(figure, *arguments, **options):
        figures.append(figure)
        return save(figure, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", spy)
    return figures


def test_the_picture_is_a_png_on_white():
    image = Image.open(io.BytesIO(plot.draw_curve(TICKS + SCORES, "a run")))
    assert (image.format, image.size) == ("PNG", (1000, 700))
    assert (np.asarray(image.convert("L")) > 250).mean() > 0.9


def test_each_panel_has_its_series_over_images(drawn):
    plot.draw_curve(TICKS + SCORES, "a run")
    losses, outputs, quality, speed = drawn[0].axes
    assert [line.get_label() for line in losses.lines] == ["discriminator", "generator"]
    assert losses.lines[0].get_xydata().tolist() == [[10, 11], [20, 21], [30, 31]]
    assert [line.get_label() for line in outputs.lines] == ["real", "fake"]
    assert quality.lines[0].get_xydata().tolist() == [[0, 9]]
    assert speed.lines[0].get_ydata().tolist() == [100, 100, 100]
    assert speed.get_ylim()[0] == 0
    units = [axes.get_ylabel() for axes in drawn[0].axes]
    assert units == ["mean loss", "mean logit", "distance", "images/s"]
    assert {axes.get_xlabel() for axes in drawn[0].axes} == {"images shown"}


def test_a_panel_without_points_says_so(drawn):
    plot.draw_curve(TICKS, "a run")
    assert [[text.get_text() for text in axes.texts] for axes in drawn[0].axes] == [[], [], ["nothing recorded"], []]


def test_a_series_that_never_was_finite_is_not_drawn(drawn):
    plot.draw_curve([TICKS[0] | {"loss/generator": None}], "a run")
    assert [line.get_label() for line in drawn[0].axes[0].lines] == ["discriminator"]
