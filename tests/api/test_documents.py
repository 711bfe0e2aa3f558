"""The notebook runs, and so does the code of docs/python.md."""

import base64
import io
import json
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from PIL import Image

import ganrun
from ganrun.config.load import load_config
from tests.api.test_run import trained
from tests.commands import LOCAL_RAY
from tests.recorded import ROOT
from tests.test_documents import SMALL, blocks
from tests.waiting import WAIT

NOTEBOOK = ROOT / "docs/quickstart.ipynb"


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory, extractor):
    """Folder of a small run of the quickstart, trained in this process."""
    place = tmp_path_factory.mktemp("python")
    overrides = [*SMALL["quickstart.yaml"], f"evaluate.extractor={extractor}", "train.precision=float32"]
    overrides += ["train.total_images=64", f"run.storage={place / 'runs'}"]
    return trained(load_config("quickstart", overrides), place / "meeting")


@pytest.fixture
def small(quickstart, monkeypatch):
    """That run, in the working directory, as runs/quickstart, beside a picture."""
    monkeypatch.chdir(quickstart.parent.parent)
    Image.new("RGB", (40, 50), "grey").save("shirt.png")
    return quickstart


def executed(notebook: nbformat.NotebookNode, place: Path) -> list[nbformat.NotebookNode]:
    """Run a notebook in a kernel, and return its cells of code."""
    NotebookClient(notebook, timeout=WAIT, resources={"metadata": {"path": place}}).execute()
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def shown(cell: nbformat.NotebookNode, kind: str) -> str:
    return next(output["data"][kind] for output in cell.outputs if kind in output.get("data", {}))


def test_the_notebook_runs_on_a_small_run(small, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    assert not any(cell.get("outputs") for cell in notebook.cells)  # Kept small: nothing of a run is stored.
    train = next(cell for cell in notebook.cells if "train" in cell.metadata.get("tags", ()))
    call = 'ganrun.train("quickstart")'
    assert call in train.source
    train.source = train.source.replace(call, f"ganrun.load({str(small)!r})")
    _, grid, curve, scores, between, batches = executed(notebook, small.parent.parent)
    picture = Image.open(io.BytesIO(base64.b64decode(shown(grid, "image/png"))))
    assert picture.size == (8 * 34 + 2, 8 * 34 + 2)
    assert all(shown(cell, "image/png") for cell in (curve, between))
    assert "frechet_distance" in shown(scores, "text/plain")
    assert shown(batches, "text/plain") == "(torch.Size([64, 1, 32, 32]), 64)"


@pytest.mark.drill
def test_the_notebook_trains(tmp_path, monkeypatch):
    for name, value in (LOCAL_RAY | {"PYTHONPATH": str(ROOT)}).items():
        monkeypatch.setenv(name, value)
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    keys = dict(override.split("=") for override in SMALL["quickstart.yaml"])
    train = next(cell for cell in notebook.cells if "train" in cell.metadata.get("tags", ()))
    small = json.dumps({key: int(value) for key, value in keys.items()})
    train.source = train.source.replace('"quickstart"', f'"quickstart", **{small}')
    assert "frechet_distance" in shown(executed(notebook, tmp_path)[3], "text/plain")


def test_the_code_of_the_page_runs(small, monkeypatch):
    monkeypatch.setattr(ganrun, "train", lambda *_, **__: None)  # The notebook's drill trains.
    others = ("label=3", "pix2pix", "inpainting", "next-frame")  # Runs of other kinds; test_run.py has such.
    for code in blocks("python.md", "python"):
        exec(
            "\n".join(line for line in code.splitlines() if not any(word in line for word in others)),
            {"ganrun": ganrun},
        )
