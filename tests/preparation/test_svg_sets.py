"""`ganrun prepare iconify:`, and the data set that was made with it and travels with ganrun."""

import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ganrun.data.index import open_data
from ganrun.data.shard import open_shard
from tests.preparation.making import bytes_of, prepare, read_all, svg_set


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    svg_set(tmp_path / "lines.json", "currentColor", ["red-ball", "blue-ball", "ink"])
    return svg_set(tmp_path / "flat.json", "#f00", ["red-ball", "blue-ball", "paint"])


def test_sets_are_paired_by_name_and_drawn_on_white(
    flat: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = f"iconify:{flat},lines.json"
    assert prepare(source, tmp_path / "out", "--names", "image,lines", "--size", 32, "--verify") == 0
    index, samples = read_all(tmp_path / "out")
    assert (index.image_size, index.channels, index.samples) == (32, 3, 2)
    assert {name: (shape.size, shape.channels) for name, shape in index.pictures.items()} == {"lines": (32, 1)}
    assert {bytes(each["txt"]) for each in samples.values()} == {b"red ball", b"blue ball"}
    for each in samples.values():
        assert set(each) == {"png", "lines.png", "txt"}
        image, lines = (np.asarray(Image.open(io.BytesIO(each[kind]))) for kind in ("png", "lines.png"))
        assert [tuple(image[at]) for at in ((16, 16), (0, 0))] == [(255, 0, 0), (255, 255, 255)]
        assert [lines[at] for at in ((16, 16), (0, 0))] == [0, 255]
    err = capsys.readouterr().err
    assert "1 drawings that not every set has (flat.json: paint)" in err
    assert "1 aliases of drawings (lines.json: turned)" in err
    assert index.made["licences"] == [
        f"{name} by A. Painter: licence MIT, https://example.org/licence" for name in ("Flat", "Lines")
    ]


def test_a_set_alone_has_one_picture_of_64_pixels_and_any_box_is_drawn_in_the_centre(tmp_path: Path) -> None:
    icons = {"wide": {"body": '<path d="M0 0h64v32H0z" fill="#00f"/>', "width": 64}}
    file = svg_set(tmp_path / "one.json", "#f00", [], icons=icons)
    assert prepare(f"iconify:{file}", tmp_path / "out") == 0
    index, samples = read_all(tmp_path / "out")
    assert (index.image_size, index.pictures) == (64, {})
    (sample,) = samples.values()
    blue = (np.asarray(Image.open(io.BytesIO(sample["png"]))) == (0, 0, 255)).all(2)
    assert (blue.all(1) == (np.arange(64) // 16 % 3 > 0)).all()  # rows 16 to 47


def test_drawings_that_cannot_be_drawn_are_named(
    flat: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = json.loads(flat.read_text())
    content["icons"]["paint"]["body"] = "<g>"
    flat.write_text(json.dumps(content))
    assert prepare(f"iconify:{flat}", tmp_path / "out") == 0
    assert "flat.json, 'paint': cannot be drawn" in capsys.readouterr().err
    assert read_all(tmp_path / "out")[0].samples == 2
    assert prepare(f"iconify:{flat}", tmp_path / "strict", "--strict") == 2


@pytest.mark.parametrize(
    ("source", "more", "message"),
    [
        ("{}/folder", [], "a folder; name the file of a set in it, such as"),
        ("{}/none.json", [], "No such file or directory; give the JSON file of a set"),
        ("{}/text.json", [], "not a set in Iconify's format"),
        ("{}/list.json", [], "not a set in Iconify's format"),
        ("{}/flat.json,other.json", [], "no drawing is in all sets"),
        ("{}/flat.json,lines.json,lines.json", [], "--names image,source: 2 for 3 sets"),
        ("{}/flat.json", ["--names", "image,lines"], "--names image,lines: 2 for 1 sets"),
        ("{}/flat.json", ["--limit", "3"], "--limit: only for"),
    ],
)
def test_wrong_sets_are_one_line(
    flat: Path, tmp_path: Path, source: str, more: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "text.json").write_text("hello")
    (tmp_path / "list.json").write_text('{"icons": [1]}')
    svg_set(tmp_path / "other.json", "#f00", ["alone"])
    assert prepare(f"iconify:{source.format(tmp_path)}", tmp_path / "out", *more) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("names", ["lines", "image,image", "image,Lines", "image,a.b", "image,"])
def test_wrong_names_of_fields(flat: Path, tmp_path: Path, names: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        prepare(f"iconify:{flat},lines.json", tmp_path / "out", "--names", names)
    assert "give different names of lower-case letters" in capsys.readouterr().err


def test_without_the_renderer_the_extra_is_named(
    flat: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "resvg_py", None)
    assert prepare(f"iconify:{flat}", tmp_path / "out") == 2
    assert "pip install 'ganrun[svg]'" in capsys.readouterr().err


def test_equal_sets_give_equal_bytes_with_any_number_of_processes(flat: Path, tmp_path: Path) -> None:
    for name, workers in (("a", 1), ("b", 2)):
        source = f"iconify:{flat},lines.json"
        assert prepare(source, tmp_path / name, "--shard-samples", 1, "--workers", workers) == 0
    assert bytes_of(tmp_path / "a") == bytes_of(tmp_path / "b")


def test_the_drawings_that_travel() -> None:
    data = open_data("package:fluent-emoji")
    index, folder = data.index, Path(data.places[0].uri)
    assert (index.samples, index.image_size, index.channels, len(index.shards)) == (1594, 64, 3, 8)
    assert {name: (shape.size, shape.channels) for name, shape in index.pictures.items()} == {"lines": (64, 1)}
    assert sum(file.stat().st_size for file in folder.iterdir()) < 5 << 20
    samples = [each for n, shard in enumerate(index.shards) for each in open_shard(data.read(n), shard, data.where(n))]
    assert {frozenset(members) for _, members in samples} == {frozenset({"png", "lines.png", "txt", "text.npy"})}
    assert (index.embedding.encoder, index.embedding.size, index.embedding.captions) == ("minilm", 384, 1)
    assert len({bytes(members["txt"]) for _, members in samples}) == 1594
    assert "Microsoft" in (folder / "LICENSE").read_text()
    assert all("licence MIT" in line for line in index.made["licences"])
