"""`ganrun prepare hub:PATH`: Hugging Face data sets in a folder, as files of a hub, and in the local cache."""

import io
import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ganrun.data.index import open_data
from ganrun.preparation import hub
from tests.preparation.making import png as encoded
from tests.preparation.making import prepare, read_all

COUNT = 20


@pytest.fixture(scope="module")
def datasets():
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # No test asks the hub.
    return pytest.importorskip("datasets")


@pytest.fixture(scope="module")
def rows(datasets, tmp_path_factory):
    """A data set with two pictures, labels, texts and other columns."""
    place = tmp_path_factory.mktemp("pictures")

    def pictures(channels: str, sign: int) -> list[dict[str, bytes]]:
        shades = (Image.new(channels, (8, 8), (100 + sign * n,) * len(channels)) for n in range(COUNT))
        return [{"bytes": encoded(shade, place)} for shade in shades]

    columns = {
        "img": (pictures("RGB", 1), datasets.Image()),
        "Line Art": (pictures("L", -1), datasets.Image()),
        "label": ([n % 3 - 1 for n in range(COUNT)], datasets.ClassLabel(names=["cat", "dog"])),
        "source": (["a", "b"] * (COUNT // 2), datasets.Value("string")),
        "caption": ([f"number {n}" for n in range(COUNT)], datasets.Value("string")),
        "tags": ([["x", "y"]] * COUNT, datasets.List(datasets.Value("string"))),
        "box": ([{"x": 1}] * COUNT, {"x": datasets.Value("int32")}),
    }
    features = datasets.Features({name: feature for name, (_, feature) in columns.items()})
    return datasets.Dataset.from_dict({name: values for name, (values, _) in columns.items()}, features=features)


@pytest.fixture(scope="module")
def saved(rows, tmp_path_factory):
    place = tmp_path_factory.mktemp("hub") / "saved"
    rows.save_to_disk(str(place))
    return place


def assert_is_the_data_set(place: Path) -> None:
    data = open_data(str(place))
    assert (data.index.samples, data.index.image_size, data.index.classes) == (COUNT, 8, ("cat", "dog"))
    assert data.index.pictures["line_art"].channels == 1
    for members in read_all(place)[1].values():
        number = int(bytes(members["txt"]).split()[1])
        assert bytes(members.get("cls", b"-1")) == str(number % 3 - 1).encode()  # Rows without a label have no .cls.
        assert json.loads(bytes(members["json"])) == {"source": "ab"[number % 2], "tags": ["x", "y"]}
        for extension, shade in (("png", 100 + number), ("line_art.png", 100 - number)):
            pixels = np.asarray(Image.open(io.BytesIO(bytes(members[extension]))))
            assert (pixels == shade).all()


def test_a_saved_data_set(saved, tmp_path, capsys):
    assert prepare(f"hub:{saved}", tmp_path / "out") == 0
    assert_is_the_data_set(tmp_path / "out")
    error = capsys.readouterr().err
    assert "left out: column box: neither pictures, numbers nor words" in error
    assert "classes: 2 (cat 7, dog 6); column label" in error
    assert prepare(f"hub:{saved}", tmp_path / "out") == 0  # It is there already.
    assert prepare(f"hub:{saved}", tmp_path / "few", "--limit", 4, "--channels", 1) == 0
    assert open_data(str(tmp_path / "few")).index.samples == 4


def test_files_of_a_hub_in_a_folder_and_splits(rows, datasets, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "repo/data").mkdir(parents=True)
    rows.to_parquet(tmp_path / "repo/data/train-00000-of-00001.parquet")
    rows.select(range(3)).to_parquet(tmp_path / "repo/data/test-00000-of-00001.parquet")
    assert prepare(f"hub:{tmp_path / 'repo'}", tmp_path / "out") == 0
    assert_is_the_data_set(tmp_path / "out")
    assert prepare(f"hub:{tmp_path / 'repo'},test", tmp_path / "test") == 0
    assert open_data(str(tmp_path / "test")).index.samples == 3


def test_a_name_in_the_local_cache(rows, saved, datasets, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "repo").mkdir()
    rows.to_parquet(tmp_path / "repo/train.parquet")
    datasets.load_dataset(str(tmp_path / "repo"))
    made = next((tmp_path / "cache").glob("*/*/*/*/dataset_info.json")).parent
    kept = tmp_path / "cache/org___drawings/default/0.0.0" / made.name  # As a download of org/drawings leaves it.
    shutil.copytree(made, kept)
    for arrow in kept.glob("*.arrow"):
        arrow.rename(kept / arrow.name.replace(arrow.name.split("-")[0], "drawings"))
    shutil.rmtree(tmp_path / "repo")
    assert prepare("hub:org/drawings", tmp_path / "out") == 0
    assert_is_the_data_set(tmp_path / "out")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("{saved},test", "no split 'test'; it was saved as one: leave the split out"),
        ("org/unknown", "hub:org/unknown: no data set that can be read"),
        ("{place}", "no data set that can be read"),
    ],
)
def test_what_is_no_data_set_is_said_in_a_line(saved, datasets, tmp_path, capsys, path, message):
    (tmp_path / "empty").mkdir()
    source = path.format(saved=saved, place=tmp_path / "empty")
    assert prepare(f"hub:{source}", tmp_path / "out") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not (tmp_path / "out").exists()


def test_rows_without_pictures_and_sets_without_columns(rows, datasets, tmp_path, capsys):
    rows.remove_columns(["img", "Line Art"]).save_to_disk(str(tmp_path / "words"))
    assert prepare(f"hub:{tmp_path / 'words'}", tmp_path / "out") == 2
    assert "no column of pictures, only label, source, caption, tags, box" in capsys.readouterr().err
    first = rows.select(range(8)).remove_columns(["Line Art"])
    holes = first.map(lambda row, number: {"img": None if number == 2 else row["img"]}, with_indices=True)
    holes.save_to_disk(str(tmp_path / "holes"))
    assert prepare(f"hub:{tmp_path / 'holes'}", tmp_path / "whole") == 0
    assert "row 2: a row without its picture" in capsys.readouterr().err
    assert open_data(str(tmp_path / "whole")).index.samples == 7


def test_the_extra_to_install_is_named(saved, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert prepare(f"hub:{saved}", tmp_path / "out") == 2
    assert capsys.readouterr().err == (
        "ganrun: hub: the package datasets is not installed; run: pip install 'ganrun[hub]'\n"
    )


def test_names_of_columns_become_names_of_fields():
    assert hub._field("Image", {"image"}) == "image_"
    assert [hub._field(name, ()) for name in ("edges", "Line Art", "2nd", "__x", "é")] == [
        *("edges", "line_art", "nd", "x"),
        "picture",
    ]
