"""`ganrun prepare pairs:` and `side-by-side:`."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ganrun.data.index import Index, open_data
from tests.preparation.making import bytes_of, noise, prepare, read_all, shards_of
from tests.preparation.making import png as encoded


def pixels(content: memoryview) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)))


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Six pairs: photos in colour as .png, in sub-folders that are classes, and grey sketches as .bmp."""
    photos, sketches = tmp_path / "photos", tmp_path / "sketches"
    for number in range(6):
        folder = "ab"[number % 2]
        for root in (photos, sketches):
            (root / folder).mkdir(parents=True, exist_ok=True)
        photo = noise(number, (12, 10))
        photo.save(photos / folder / f"{number}.png")
        photo.convert("L").save(sketches / folder / f"{number}.bmp")
    return photos, sketches


def prepared(folders: tuple[Path, Path], dest: Path, *options: object) -> int:
    return prepare(f"pairs:{folders[0]},{folders[1]}", dest, *options)


def test_pairs_are_cropped_and_resized_alike(folders: tuple[Path, Path], tmp_path: Path) -> None:
    assert prepared(folders, tmp_path / "out", "--size", 8, "--filter", "box", "--verify") == 0
    index, samples = read_all(tmp_path / "out")
    assert (index.image_size, index.channels, index.classes, index.samples) == (8, 3, ("a", "b"), 6)
    assert {name: (shape.size, shape.channels) for name, shape in index.pictures.items()} == {"source": (8, 1)}
    for members in samples.values():
        assert set(members) == {"png", "source.png", "cls"}
        grey = np.asarray(Image.fromarray(pixels(members["png"])).convert("L")).astype(int)
        assert abs(grey - pixels(members["source.png"])).max() <= 1  # Rounded once more: the same crop, else far off.
    assert Image.open(tmp_path / "out" / "preview.png").size[0] == 8 * (2 * 8 + 2) + 2


def test_the_second_folder_may_hold_the_images(folders: tuple[Path, Path], tmp_path: Path) -> None:
    assert prepared(folders, tmp_path / "out", "--size", 8, "--names", "photo,image", "--channels", 1) == 0
    index = read_all(tmp_path / "out")[0]
    assert (index.channels, {name: shape.channels for name, shape in index.pictures.items()}) == (1, {"photo": 1})


def test_equal_folders_give_equal_bytes_with_any_number_of_processes(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    for workers in (1, 2):
        assert prepared(folders, tmp_path / str(workers), "--size", 8, "--workers", workers) == 0
    assert bytes_of(tmp_path / "1") == bytes_of(tmp_path / "2")
    assert prepared(folders, tmp_path / "1", "--size", 8) == 0  # finished: nothing to do
    noise(9, (12, 10), 1).save(folders[1] / "a" / "0.bmp")
    assert prepared(folders, tmp_path / "1", "--size", 8) == 2  # the partner has changed


def test_a_limit_counts_pairs(folders: tuple[Path, Path], tmp_path: Path) -> None:
    (folders[1] / "a" / "0.bmp").unlink()
    assert prepared(folders, tmp_path / "out", "--size", 8, "--limit", 4) == 0
    assert read_all(tmp_path / "out")[0].samples == 4


def faults(folders: tuple[Path, Path]) -> list[str]:
    """Damage pairs in every way there is, and return what must be said of each."""
    photos, sketches = folders
    (sketches / "a" / "0.bmp").unlink()
    (photos / "b" / "1.png").unlink()
    noise(3).save(sketches / "a" / "2.jpg")
    noise(4, (9, 9), 1).save(sketches / "b" / "3.bmp")
    (sketches / "a" / "4.bmp").write_bytes(b"BM")
    ambiguous = "have this name apart from the ending; keep one in each folder"
    return [
        f"{photos}/a/0.png: no partner in {sketches}",
        f"{sketches}/b/1.bmp: no partner in {photos}",
        f"{photos}/a/2.png: ambiguous: 1 files here and 2 in {sketches} {ambiguous}",
        f"{sketches}/a/2.bmp: ambiguous: 2 files here and 1 in {photos} {ambiguous}",
        f"{sketches}/a/2.jpg: ambiguous: 2 files here and 1 in {photos} {ambiguous}",
        f"{photos}/b/3.png: its source {sketches}/b/3.bmp: 9x9 pixels, but the image has 12x10",
        f"{photos}/a/4.png: its source {sketches}/a/4.bmp: not an image format that Pillow can read",
    ]


def test_whatever_is_no_pair_is_named_and_counted(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = faults(folders)
    assert prepared(folders, tmp_path / "out", "--size", 8) == 0
    lines = (tmp_path / "out" / "skipped.txt").read_text().splitlines()
    assert sorted(lines) == sorted(said)
    index = read_all(tmp_path / "out")[0]
    assert (index.samples, index.made["skipped"]) == (1, 7)
    err = capsys.readouterr().err
    assert all(f"skipped {line}" in err for line in said)
    assert prepared(folders, tmp_path / "strict", "--size", 8, "--strict") == 2
    assert said[0] in capsys.readouterr().err


@pytest.mark.parametrize("fault", ["unlike", "corrupt"])
def test_strict_stops_at_a_pair_that_cannot_be_packed(
    folders: tuple[Path, Path], tmp_path: Path, fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    sketch = folders[1] / "b" / "3.bmp"
    noise(4, (9, 9), 1).save(sketch) if fault == "unlike" else sketch.write_bytes(sketch.read_bytes()[:-30])
    assert prepared(folders, tmp_path / "out", "--size", 8, "--strict") == 2
    err = capsys.readouterr().err
    assert f"{folders[0]}/b/3.png: unreadable (its source {sketch}: " in err
    assert err.splitlines()[-1].startswith("ganrun: ")


def test_a_pair_is_compared_as_it_is_seen(folders: tuple[Path, Path], tmp_path: Path) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    (folders[1] / "a" / "0.bmp").unlink()
    noise(0, (10, 12)).save(folders[1] / "a" / "0.jpg", exif=turned)  # 12x10 once turned
    assert prepared(folders, tmp_path / "out", "--size", 8, "--strict", "--channels", 1) == 0


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("pairs:{0}", [], "must be two folders with a comma between them"),
        ("pairs:{0},{1},{1}", [], "must be two folders with a comma between them"),
        ("pairs:{0},{1}", ["--names", "image,a,b"], "--names two fields"),
        ("pairs:{0},{0}/none", [], "no such folder"),
        ("pairs:{0},{0}/a", [], "no pair; a pair has the same name in both folders"),
        ("pairs:{0},{1}", [], "12x10 pixels, not square"),
        ("pairs:{0},{1}", ["--size", "8", "--samples", "3"], "--samples: only for"),
        ("side-by-side:{0}", ["--names", "image"], "name two fields, of the left and of the right half"),
        ("folder:{0}", ["--names", "image,b"], "--names: only for pairs, side-by-side, iconify"),
    ],
)
def test_wrong_commands_are_one_line(
    folders: tuple[Path, Path],
    tmp_path: Path,
    source: str,
    options: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert prepare(source.format(*folders), tmp_path / "out", *options) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


def test_the_place_of_the_data_set_is_in_neither_folder(folders: tuple[Path, Path]) -> None:
    assert prepared(folders, folders[1] / "out") == 2


def test_halves_are_pairs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in").mkdir()
    whole = noise(1, (16, 8))
    whole.save(tmp_path / "in" / "a.png")
    noise(2, (17, 8)).save(tmp_path / "in" / "odd.png")
    source = f"side-by-side:{tmp_path / 'in'}"
    assert prepare(source, tmp_path / "out") == 0
    assert "odd.png: 17 pixels wide, an odd number" in capsys.readouterr().err
    index, samples = read_all(tmp_path / "out")
    assert (index.image_size, index.samples, index.made["skipped"]) == (8, 1, 1)
    (members,) = samples.values()
    assert (pixels(members["png"]) == np.asarray(whole)[:, :8]).all()
    assert (pixels(members["source.png"]) == np.asarray(whole)[:, 8:]).all()
    assert prepare(source, tmp_path / "strict", "--strict") == 2
    (tmp_path / "in" / "odd.png").unlink()
    assert prepare(source, tmp_path / "other", "--names", "lines,image") == 0
    (members,) = read_all(tmp_path / "other")[1].values()
    assert (pixels(members["lines.png"]) == np.asarray(whole)[:, :8]).all()


def index_of(place: Path) -> dict[str, tuple[int, int]]:
    index = Index.from_json((place / "index.json").read_bytes(), "")
    return {name: (shape.size, shape.channels) for name, shape in index.pictures.items()}


def test_existing_shards_get_their_further_pictures_into_the_index(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    big, small = encoded(noise(1), tmp_path), encoded(noise(2, (4, 4), 1), tmp_path)
    place = shards_of(tmp_path / "in", [(str(n), {"png": big, "low.png": small, "x.png": big}) for n in range(3)])
    assert prepare(f"shards:{place}") == 0
    assert index_of(place) == {"low": (4, 1), "x": (8, 3)}
    assert prepare(f"shards:{place}", tmp_path / "copy", "--size", 6) == 0
    assert index_of(tmp_path / "copy") == {"low": (6, 1), "x": (6, 3)}
    mixed = shards_of(
        tmp_path / "mixed",
        [("0", {"png": big, "a.png": big, "b.png": big}), ("1", {"png": big, "a.png": small})],
    )
    assert prepare(f"shards:{mixed}") == 0
    assert index_of(mixed) == {}  # a differs in shape, b is not in all samples
    broken = shards_of(tmp_path / "broken", [("0", {"png": big, "a.png": b"text"})])
    assert prepare(f"shards:{broken}") == 2
    assert "sample '0': unreadable (its .a.png: not an image format" in capsys.readouterr().err


def test_parts_share_the_pictures_that_are_alike(folders: tuple[Path, Path], tmp_path: Path) -> None:
    assert prepared(folders, tmp_path / "pairs", "--size", 8) == 0
    assert prepare(f"folder:{folders[0]}", tmp_path / "alone", "--size", 8) == 0
    both = [str(tmp_path / "pairs"), str(tmp_path / "alone")]
    assert set(open_data(both[0]).index.pictures) == {"source"}
    assert open_data(both).index.pictures == {}
    assert open_data(f"{tmp_path}/pairs/shard-000000.tar").index.pictures.keys() == {"source"}
