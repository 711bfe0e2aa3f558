"""The commands and the code in the documents work."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from ganrun.data.index import open_data
from tests.commands import LOCAL_RAY
from tests.preparation.making import svg_set
from tests.preparation.videos import video
from tests.recorded import ganrun
from tests.test_tables import write_table
from tests.waiting import WAIT

ROOT = Path(__file__).parent.parent
SMALL = {
    "dcgan_64.yaml": ["model.width=4", "train.total_images=192", "train.precision=float32", "evaluate.samples=16"],
    "dirac.yaml": ["train.total_images=160", "train.tick_images=80", "evaluate.every_images=0"],
    "heights_gan.yaml": ["train.total_images=20_480", "evaluate.samples=100"],
    "pix2pix_fluent.yaml": [
        "model.width=2",
        "train.total_images=192",
        "evaluate.samples=8",
        "cluster.cpus_per_worker=1",
    ],
    **{
        f"{name}.yaml": [
            "model.width=4",
            "train.total_images=64",
            "evaluate.samples=8",
            "cluster.cpus_per_worker=1",
        ]
        for name in (
            "super_resolution_fluent",
            "inpainting_fluent",
            "text_to_image_fluent",
            "next_frame_moving_fashion",
        )
    },
    "gain_letter.yaml": ["model.width=4", "train.total_images=256", "train.tick_images=256"],
    "quickstart.yaml": ["model.width=4", "train.total_images=192", "evaluate.samples=16"],
}
"""Laid over the configs of the documents, so that their commands end in seconds."""
RUN = """
import sys
from ganrun.__main__ import main
for arguments in {}:
    sys.argv[1:] = arguments[1:]
    try:
        failed = main()
    except SystemExit as ended:
        failed = ended.code
    if failed:
        sys.exit(failed)
"""
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def links(page: Path) -> set[Path]:
    """Return the files that a page links to or shows."""
    text = re.sub(r"```.*?```|`[^`]*`", "", page.read_text(), flags=re.DOTALL)
    found = re.findall(r'\]\(([^():#]+)\)|src(?:set)?="([^":]+)"', text)
    return {(page.parent / (linked or shown)).resolve() for linked, shown in found}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_to_files(page):
    assert [path for path in links(page) if not path.is_file()] == []


def test_the_readme_links_every_page_and_every_picture_is_shown():
    linked = links(PAGES[0])
    assert {path for path in PAGES[1:] if path.parent.name == "docs"} <= linked
    shown = {path for page in PAGES for path in links(page) if path.suffix == ".png"}
    assert shown == set((ROOT / "docs/images").rglob("*.png"))
    assert shown
    assert all(path.stat().st_size < 200_000 for path in shown)


def test_the_site_has_every_page():
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]
    named = re.findall(r"[\w-]+\.md", json.dumps(nav))
    assert sorted(named) == sorted(path.name for path in (ROOT / "docs").glob("*.md"))


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / "docs" / page).read_text(), re.DOTALL)


@pytest.fixture
def place(tmp_path, monkeypatch, ray_here):
    """Working directory with the configs and some photographs."""
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    random = np.random.default_rng(0)
    for number in range(80):
        folder = tmp_path / "photos" / ("cats" if number % 2 else "dogs")
        folder.mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 256, (90, 70 + number, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.jpg")
    monkeypatch.chdir(tmp_path)
    for name, value in (LOCAL_RAY | {"RAY_ADDRESS": ray_here[0]}).items():
        monkeypatch.setenv(name, value)
    return tmp_path


def run(*commands: str) -> str:
    """Run commands one after another in one process; return what they say."""
    every = [shlex.split(command) for command in commands]
    for arguments in every:
        assert arguments[0] == "ganrun"
        if arguments[1] == "train" and "/" in arguments[2]:
            arguments += SMALL[Path(arguments[2]).name]
    done = subprocess.run([sys.executable, "-c", RUN.format(every)], capture_output=True, text=True, timeout=WAIT)
    assert done.returncode == 0, f"{commands}\n{done.stderr}"
    return done.stdout + done.stderr


def make_pairs(place: Path) -> None:
    """Make sketches of the photographs, pictures side by side, and two sets of drawings."""
    for photo in (place / "photos").rglob("*.jpg"):
        sketch = place / "sketches" / photo.relative_to(place / "photos").with_suffix(".png")
        sketch.parent.mkdir(parents=True, exist_ok=True)
        Image.open(photo).convert("L").save(sketch)
    for folder in ("facades/train", "json"):
        (place / folder).mkdir(parents=True)
    Image.new("RGB", (600, 300), "red").save(place / "facades/train/1.jpg")
    for name, colour in (("flat", "#f00"), ("high-contrast", "currentColor")):
        svg_set(place / f"json/fluent-emoji-{name}.json", colour, ["red-ball", "blue-ball"])


@pytest.mark.drill
def test_from_photographs_to_an_exported_model(place):
    make_pairs(place)
    said = [run(command) for block in blocks("your-images.md", "sh") for command in block.splitlines()]
    assert "in order" in said[2]
    assert all((place / name).is_file() for name in ("grid.png", "curve.png", "data/photos/preview.png"))
    assert len(list((place / "pictures").iterdir())) == 100
    assert [len(open_data(f"data/{name}").index.pictures) for name in ("sketches", "facades", "drawings")] == [1, 1, 1]
    (text,) = blocks("your-images.md", "yaml")
    (place / "config.yaml").write_text(f"{text}run: {{name: a}}\ntrain: {{total_images: 64}}\n")
    assert "in order" in run("ganrun train config.yaml --validate")
    (code,) = blocks("your-images.md", "python")
    checked = subprocess.run(
        [sys.executable, "-c", code + "assert images.shape == (16, 3, 64, 64)"], capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stderr


@pytest.mark.drill
def test_from_pairs_to_a_translated_picture(place):
    make_pairs(place)
    for name, size in (("small", 20), ("photo", 80)):
        Image.new("RGB", (size, size), "teal").save(place / f"{name}.png")
    video(place / "films/walk.mkv", [*range(80, 220), *range(220, 80, -1)])
    first, *others = (Image.new("L", (70, 64), 20 * number) for number in range(6))
    first.save(place / "clip.gif", save_all=True, append_images=others)
    hole = np.zeros((80, 80), np.uint8)
    hole[20:40, 30:60] = 255
    Image.fromarray(hole).save(place / "hole.png")
    (place / "holes").mkdir()
    for photo in (place / "photos/cats").iterdir():
        mask = Image.new("L", Image.open(photo).size)
        mask.paste(255, (5, 5, 25, 25))
        mask.save(place / f"holes/{photo.stem}.png")
    write_table(place / "table.csv")
    captions = ({"file": f"cats/{number}.jpg", "text": ["a cat", "a pet"]} for number in range(1, 80, 2))
    others = ({"file": f"dogs/{number}.jpg", "text": "a dog"} for number in range(0, 80, 2))
    (place / "captions.jsonl").write_text("\n".join(map(json.dumps, [*captions, *others])))
    for block in blocks("tasks.md", "sh"):
        for command in block.splitlines():
            if command.startswith("ganrun train"):
                run(command)
                continue
            code, _, error = ganrun(*shlex.split(command)[1:])  # In this process, which has loaded torch.
            assert code == 0, f"{command}\n{error}"
    assert (place / "samples.png").is_file()
    for drawn in ("coloured", "scaled", "three"):
        for path in (place / drawn).rglob("*.png"):
            name = path.stem.split("-")[0]
            source = next((place / "sketches").rglob(f"{name}.png"))
            assert Image.open(path).size == Image.open(source).size
    assert [len(list((place / name).rglob("*.png"))) for name in ("coloured", "three", "scaled")] == [80, 120, 40]
    assert Image.open(place / "large/small.png").size == (80, 80)
    assert len(list((place / "filled").rglob("*.png"))) == 81
    assert [len(list((place / name).iterdir())) for name in ("predicted", "walk")] == [11, 6]
    assert len(list((place / "cats").rglob("*.png"))) == 40
    assert "" not in (place / "filled.csv").read_text().replace("\n", ",").rstrip(",").split(",")
    (code,) = blocks("tasks.md", "python")
    checked = subprocess.run(
        [sys.executable, "-c", code + "assert images.shape == (4, 3, 64, 64)"], capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stderr


@pytest.mark.drill
def test_the_runs_of_the_theory(place):
    for block in blocks("theory.md", "sh"):
        for command in block.splitlines():
            run(command)
    assert all(list((place / "runs" / name / "checkpoints").iterdir()) for name in ("signal", "dirac"))
    assert (place / "dirac.png").is_file()


def of_extending(place: Path) -> list[str]:
    """Write the modules of the page, whose first lines name the files, and return its commands."""
    for code in blocks("extending.md", "python"):
        (place / code.split()[1]).write_text(code)
    return [line for block in blocks("extending.md", "sh") for line in block.splitlines()]


def test_configs_with_a_network_a_loss_and_a_game_of_ones_own_are_in_order(place):
    trained = [command.removesuffix(" --validate") for command in of_extending(place) if " train " in command]
    assert len(trained) == 5
    different = sorted(set(trained))
    said = run(*(f"{command} --validate" for command in different))
    assert said.count("in order") == len(different)


@pytest.mark.drill
def test_a_network_a_loss_and_a_game_of_ones_own(place):
    commands = of_extending(place)
    assert len(commands) == 7
    for command in commands:
        said = run(command)
        if command.startswith("ganrun train"):
            assert ("in order" if "--validate" in command else "finished: 192 images") in said
    assert len(list((place / "coloured").rglob("*.png"))) == 80
    lines = [line for file in (place / "runs/codes/metrics").iterdir() for line in file.read_text().splitlines()]
    parts = {key for line in lines for key in json.loads(line) if key.startswith("loss/")}
    assert parts == {"loss/compressor", "loss/compressor/error", "loss/compressor/size"}
    measured = "".join(file.read_text() for file in (place / "runs/measures/metrics").iterdir())
    assert '"contrast": ' in measured
    assert json.loads((place / "runs/measures/best.json").read_text())["score"] > 0
    assert "weight: 0.1" in next((place / "runs/codes/checkpoints").glob("*192-*/config.yaml")).read_text()
