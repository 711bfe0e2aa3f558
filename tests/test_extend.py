"""Public names for user modules stay, and modules for ganrun 0.1 still work."""

import ast
import importlib.util
import logging
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import ganrun
from ganrun import extend
from ganrun.slots import Slots
from ganrun.training.new_state import new_state
from tests.conftest import config_of

ROOT = Path(__file__).parent.parent
OLD = ROOT / "tests/data/format1/mine_of_format1.py"


@pytest.fixture
def old(monkeypatch, caplog):
    """Import a user module for ganrun 0.1 as `run.imports` does; return the warnings."""
    monkeypatch.syspath_prepend(OLD.parent)
    for name in (*ganrun.MOVED, OLD.stem):
        monkeypatch.delitem(sys.modules, name, raising=False)
    with caplog.at_level(logging.WARNING, "ganrun"):
        yield caplog


def test_what_is_exported_stays():
    assert set(extend.__all__) == {
        *("EXTRACTORS", "GAMES", "LOSSES", "NETWORKS", "PENALTIES", "AdversarialLoss", "Batch", "Extractor", "Game"),
        *("CONDITIONS", "Condition", "Given", "UserInput", "Density"),
        *("Features", "OPTIMIZERS", "SCORES", "Score", "ScoreBatch", "ScoreSubject", "Sums"),
        *("KeyedNoise", "Latent", "Loss", "NetworkFamily", "Networks", "Player", "SlotBatchNorm2d", "Tracker"),
        *("OWN", "Changeable", "Settings"),
    }
    assert all(hasattr(extend, name) for name in extend.__all__)


@pytest.mark.parametrize("game", ["gan", "mean_image"])
def test_a_module_of_format_1_still_plays(old, values, game):
    values["run"]["imports"] = [OLD.stem]
    values["model"] |= {"name": "lopsided"}
    values["objective"] = {"loss": "softened", "game": game, "penalties": {"tiny": 1.0}}
    config = config_of(values)
    state = new_state(config, torch.device("cpu"), Slots(1))
    state.round(lambda: [{"image": torch.zeros(12, 1, 16, 16, dtype=torch.uint8)}])
    assert state.images == 12
    said = [record.getMessage() for record in old.records]
    for name in ("ganrun.latent", "ganrun.losses", "ganrun.tables"):
        assert said.count(f"{name} is deprecated: import from ganrun.extend instead") == 1


def test_an_old_module_has_the_objects_of_the_new_one():
    code = "import ganrun.tables, ganrun.losses, ganrun.config.registry as new, ganrun.games.losses as losses\n"
    code += "assert ganrun.tables.LOSSES is new.LOSSES and ganrun.losses.hinge is losses.hinge\n"
    code += "assert new.__spec__.name == 'ganrun.config.registry'"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("is deprecated") == 2


def test_modules_that_never_were_are_missed_as_usual():
    assert importlib.util.find_spec("ganrun.nothing") is None
    assert all(importlib.util.find_spec(name) for name in ganrun.MOVED)
    assert not any((ROOT / (name.replace(".", "/") + ".py")).exists() for name in ganrun.MOVED)


def test_the_document_imports_from_extend_alone():
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs/extending.md").read_text(), re.DOTALL)
    assert len(blocks) == 4
    for code in blocks:
        modules = {node.module for node in ast.walk(ast.parse(code)) if isinstance(node, ast.ImportFrom)}
        assert {module for module in modules if module.startswith("ganrun")} == {"ganrun.extend"}


def test_old_keyword_of_noise_gives_the_same_numbers(values):
    noise = extend.KeyedNoise(1, 0, 0, 0, torch.device("cpu"), torch.float64)
    assert torch.equal(noise.normal(4, purpose="a"), noise.normal(4, name="a"))
    with pytest.raises(TypeError, match="name is empty"):
        noise.uniform(4)
