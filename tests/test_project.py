"""Claims of the project about itself hold: file map, configs, schema, commands, direction of imports."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ganrun.__main__ import VERBS
from ganrun.config.load import json_schema, load_config
from ganrun.games.build import build_networks, condition_of
from tests.waiting import WAIT

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PACKAGE = ROOT / "ganrun"
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))


def commands(verb: str) -> list[str]:
    texts = [README, *(path.read_text() for path in (ROOT / "docs").glob("*.md"))]
    joined = [text.replace("\\\n", "") for text in texts]
    return [line for text in joined for line in re.findall(rf"^ganrun {verb} [^#\n]+", text, re.MULTILINE)]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_every_config_builds_and_opens_with_its_command(path, monkeypatch):
    monkeypatch.setenv("GANRUN_BUCKET", "bucket")
    whole = load_config(path)
    with torch.device("meta"):
        assert build_networks(whole, condition_of(whole), own={})
    header = [line for line in path.read_text().splitlines() if line.startswith("#")]
    verb = "tune" if whole.tune else "train"
    for part in (f"#   ganrun {verb} configs/{path.name}", "# Needs: ", "# Expect: "):
        assert any(line.startswith(part) for line in header)
    assert README.count(f"`{path.name}`") == 1


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_the_overrides_of_headers_are_right(path, monkeypatch):
    monkeypatch.setenv("GANRUN_BUCKET", "bucket")
    header = " ".join(line[1:] for line in path.read_text().splitlines() if line.startswith("#"))
    load_config(path, re.findall(r"\b[a-z]+\.[a-z_]+=[\w.]*\w", header))


def test_the_schema_is_that_of_the_sections():
    assert (ROOT / "configs/schema.json").read_text() == json_schema()


@pytest.mark.parametrize("command", [each for each in commands("train") + commands("tune") if " runs/" not in each])
def test_training_commands_of_the_documents_are_right(command, monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    for code in re.findall(r"```python\n(# \w+\.py\n.*?)```", (ROOT / "docs/extending.md").read_text(), re.DOTALL):
        (tmp_path / code.split()[1]).write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    path, *overrides = shlex.split(command)[2:]
    load_config(path, [part for part in overrides if not part.startswith("--")])


@pytest.mark.parametrize("verb", VERBS)
def test_help_teaches_without_torch_and_ray(verb):
    code = f"import sys; sys.argv[1:] = [{verb!r}, '--help']\nfrom ganrun.__main__ import main\ntry: main()\nfinally: "
    code += "assert not {'torch', 'ray', 'webdataset'} & sys.modules.keys()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=WAIT)
    assert done.returncode == 0, done.stderr
    assert "examples:" in done.stdout


@pytest.mark.parametrize("arguments", [["train.tik_images=1"], ["--dry-run"]])
def test_a_config_is_read_without_torch_ray_and_clients_of_storage(arguments):
    code = f"import sys\nfrom ganrun.train import main\ncode = main(['configs/quickstart.yaml', *{arguments!r}])\n"
    heavy = {"torch", "ray", "numpy", "pandas", "s3fs", "botocore", "PIL"}
    code += f"print(code, {heavy} & sys.modules.keys(), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=WAIT, cwd=ROOT)
    assert done.stderr.splitlines()[-1] == f"{0 if '--dry-run' in arguments else 2} set()"


def test_nothing_on_the_way_to_the_workers_imports_torch():
    # Driver, task and Ray's controller come one after the other: each would take seconds to import it.
    code = "import sys, ganrun.train, ganrun.ray_backend.launch, ganrun.ray_backend.rendezvous\n"
    code += "from ray.train import FailureConfig, RunConfig, ScalingConfig\n"
    code += "from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer\n"
    code += "print({'torch', 'torchvision'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=WAIT)
    assert done.stdout == "set()\n", done.stderr
