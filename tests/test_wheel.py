"""The wheel alone, without a checkout, has all that a run needs."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import ganrun
from ganrun.__main__ import VERBS
from ganrun.config import shipped
from tests.commands import LOCAL_RAY
from tests.recorded import ROOT, said
from tests.test_documents import SMALL
from tests.waiting import WAIT


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """Folder into which the wheel is installed, without its dependencies and without a network."""
    place = tmp_path_factory.mktemp("wheel")
    for name in ("ganrun", "configs"):  # A build leaves files in its source.
        shutil.copytree(ROOT / name, place / "source" / name, symlinks=True)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, place / "source")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    offline = ["--no-deps", "--no-index"]
    built, target = place / "dist", place / "installed"
    source = str(place / "source")
    subprocess.run([*pip, "wheel", *offline, "--no-build-isolation", "--wheel-dir", built, source], check=True)
    wheel = built / f"ganrun-{ganrun.__version__}-py3-none-any.whl"
    subprocess.run([*pip, "install", *offline, "--no-compile", "--target", target, wheel], check=True)
    return target


def of_wheel(installed: Path, *arguments: str, **variables: str) -> str:
    """Run a command of the installed wheel in a folder of its own and return its stdout."""
    place = installed.parent / "elsewhere"
    place.mkdir(exist_ok=True)
    code = f"import ganrun, sys; assert ganrun.__file__.startswith({str(installed)!r}), ganrun.__file__\n"
    code += f"sys.argv[1:] = {arguments!r}\nfrom ganrun.__main__ import main; sys.exit(main())"
    environment = {**os.environ, "PYTHONPATH": str(installed), **variables}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=WAIT, cwd=place, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_has_configs_data_and_page(installed):
    there = {path.relative_to(installed).as_posix() for path in installed.rglob("*") if path.is_file()}
    source = {path.relative_to(ROOT).as_posix() for path in (ROOT / "ganrun").rglob("*") if path.is_file()}
    source |= {f"ganrun/config/files/{path.name}" for path in shipped.FOLDER.iterdir()}
    assert {path for path in source if "__pycache__" not in path} - there == set()
    assert of_wheel(installed, "--version").strip() == ganrun.__version__


def test_the_quickstart_of_the_wheel_by_its_name(installed):
    assert of_wheel(installed, "configs") == said("configs")
    printed = of_wheel(installed, "train", "quickstart", "run.name=first", "--dry-run")
    assert printed == said("train", ROOT / "configs/quickstart.yaml", "run.name=first", "--dry-run")


@pytest.mark.drill
def test_the_quickstart_of_the_wheel_trains(installed):
    said = of_wheel(installed, "train", "quickstart", *SMALL["quickstart.yaml"], **LOCAL_RAY)
    assert (Path(said.splitlines()[-1]) / "latest.json").is_file()


def test_configs_are_listed_with_what_each_is_for():
    assert set(shipped.purposes()) == {path.stem for path in (ROOT / "configs").glob("*.yaml")}
    assert all(len(purpose) > 20 and not purpose.endswith(".") for purpose in shipped.purposes().values())
    assert said("configs", "quickstart") == (ROOT / "configs/quickstart.yaml").read_text()
    assert {"train", "tune", "configs"} <= VERBS.keys()


def test_a_file_comes_before_the_config_of_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "quickstart").mkdir()  # No file.
    assert "name: quickstart" in said("train", "quickstart", "--dry-run")
    mine = said("configs", "quickstart").replace("name: quickstart", "name: mine")
    (tmp_path / "quickstart.yaml").write_text(mine)
    assert "name: mine" in said("train", "quickstart.yaml", "--dry-run")


def test_the_changelog_begins_with_this_version():
    headings = [line for line in (ROOT / "docs/changelog.md").read_text().splitlines() if line.startswith("## ")]
    assert headings[0].split()[1] == ganrun.__version__
