"""Invalid input to `ganrun prepare` gives one line and exit code 2, and leaves no partial data set."""

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from ganrun.preparation.pack import write_tar
from tests.preparation.making import folder_of, idx, noise, png, prepare


def broken_folder(tmp_path: Path, name: str, data: bytes) -> list[str]:
    place = folder_of(tmp_path / "in", 2)
    (place / "cat" / name).write_bytes(data)
    return [f"folder:{place}", str(tmp_path / "out"), "--strict"]


def header_bomb() -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def with_image(tmp_path: Path, image: Image.Image, beside: int = 2, name: str = "odd.png") -> list[str]:
    place = folder_of(tmp_path / "in", beside, ("cat",))
    (place / "cat").mkdir(parents=True, exist_ok=True)
    image.save(place / "cat" / name)
    return [f"folder:{place}", str(tmp_path / "out"), "--strict"]


def with_fields(tmp_path: Path, text: str, name: str = "fields.csv", images: int = 1) -> list[str]:
    (tmp_path / name).write_text(text)
    source = folder_of(tmp_path / "in", images, ())
    return [f"folder:{source}", str(tmp_path / "out"), "--fields", str(tmp_path / name)]


def with_shard(tmp_path: Path, data: bytes, *arguments: str) -> list[str]:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "0.tar").write_bytes(data)
    return [f"shards:{tmp_path / 'in'}", *arguments]


def tar_of(tmp_path: Path, *names_and_images: tuple[str, Image.Image]) -> bytes:
    return write_tar([(name, {"png": png(image, tmp_path)}) for name, image in names_and_images])[0]


def made(path: Path, *, file: str = "") -> Path:
    path.mkdir()
    if file:
        (path / file).write_text("mine")
    return path


def scratched(tmp_path: Path) -> bytes:
    data = png(noise(5), tmp_path)
    return data[:60] + bytes(20) + data[80:]


def jpeg(tmp_path: Path) -> bytes:
    noise(5).save(tmp_path / "one.jpg")
    return (tmp_path / "one.jpg").read_bytes()


Case = Callable[[Path], list[str]]
FOLDER: dict[str, tuple[Case, str]] = {
    "missing folder": (lambda p: [f"folder:{p}/none", f"{p}/out"], "no such folder"),
    "empty folder": (lambda p: [f"folder:{made(p / 'in')}", f"{p}/out"], "no images; it holds nothing"),
    "no images": (
        lambda p: [f"folder:{made(p / 'in', file='notes.txt')}", f"{p}/out"],
        "it holds 1 .txt (notes.txt); give",
    ),
    "all images unreadable": (
        lambda p: [f"folder:{made(p / 'in', file='a.png')}", f"{p}/out"],
        "no readable image",
    ),
    "corrupt image": (lambda p: broken_folder(p, "a.png", scratched(p)), "a.png: unreadable (corrupt"),
    "empty file": (lambda p: broken_folder(p, "a.png", b""), "the file is empty"),
    "text called png": (lambda p: broken_folder(p, "a.png", b"hello"), "not an image format that Pillow can read"),
    "truncated jpeg": (lambda p: broken_folder(p, "a.jpg", jpeg(p)[:-40]), "a.jpg: unreadable (corrupt"),
    "50,000 x 50,000": (lambda p: broken_folder(p, "a.png", header_bomb()), "2500000000 pixels"),
    "not square": (
        lambda p: with_image(p, noise(0, (8, 6)), 0),
        "8x6 pixels, not square; crop the centre square with --size N",
    ),
    "sizes differ": (lambda p: with_image(p, noise(0, (9, 9))), "resize all images with --size N"),
    "grey among colours": (
        lambda p: with_image(p, noise(0, channels=1)),
        "convert all with --channels 1 or --channels 3",
    ),
    "float pixels": (lambda p: with_image(p, noise(0).convert("F"), 0, "a.tif"), "whose range is unknown"),
    "csv names a missing file": (lambda p: with_fields(p, "file,age\nx.png,1\n"), "no image 'x.png' in"),
    "csv without rows": (lambda p: with_fields(p, "file,age\n"), "no rows; add one per image"),
    "csv leaves an image out": (
        lambda p: with_fields(p, "file,age\n000.png,1\n", images=2),
        "no row for '001.png'",
    ),
    "csv row too short": (
        lambda p: with_fields(p, "file,age\n000.png\n"),
        "line 2: 1 cells, but the header has 2",
    ),
    "csv path twice": (lambda p: with_fields(p, "file,age\n000.png,1\n000.png,2\n"), "duplicate path"),
    "negative label": (lambda p: with_fields(p, "file,label\n000.png,-1\n"), "label -1"),
    "fields no json": (lambda p: with_fields(p, "{", "f.jsonl"), "line 1: invalid JSON"),
    "fields of another kind": (lambda p: with_fields(p, "", "f.xlsx"), "unsupported ending; give a .csv or a .jsonl"),
}


DEST: dict[str, tuple[Case, str]] = {
    "unknown scheme": (lambda p: [f"zip:{p}", f"{p}/out"], "unknown; use folder:PATH"),
    "no scheme": (lambda p: [str(p), f"{p}/out"], "unknown; use folder:PATH"),
    "no DEST": (lambda p: [f"folder:{p}"], "DEST is missing"),
    "DEST not writable": (
        lambda p: [f"folder:{folder_of(p / 'in')}", f"{made(p / 'out', file='file')}/file/below"],
        "DEST: cannot write to",
    ),
    "DEST holds other files": (
        lambda p: [f"folder:{folder_of(p / 'in')}", f"{made(p / 'out', file='thesis.tex')}"],
        "not empty (has 'thesis.tex')",
    ),
    "DEST inside SOURCE": (lambda p: [f"folder:{folder_of(p / 'in')}", f"{p}/in/out"], "is inside SOURCE"),
    "option of another source": (lambda p: [f"shards:{p}", f"{p}/out", "--limit", "3"], "--limit: only for"),
    "resize in place": (lambda p: [f"shards:{p}", "--size", "32"], "--size: needs a DEST"),
}
FASHION: dict[str, tuple[Case, str]] = {
    "no idx files": (lambda p: [f"fashion-mnist:{p}/none", f"{p}/out"], "no train-images-idx3-ubyte.gz"),
    "idx truncated": (
        lambda p: [f"fashion-mnist:{idx(p / 'in', cut=5000)}", f"{p}/out"],
        "do not match the shape",
    ),
    "idx wrong magic": (
        lambda p: [f"fashion-mnist:{idx(p / 'in', magic=1)}", f"{p}/out"],
        "starts with 00000801",
    ),
    "fewer labels": (
        lambda p: [f"fashion-mnist:{idx(p / 'in', labels=9)}", f"{p}/out"],
        "12 images but 9 labels",
    ),
    "idx gzip cut": (
        lambda p: [
            f"fashion-mnist:{idx(p / 'in')}",
            f"{p}/out",
            cut(p / "in" / "train-images-idx3-ubyte.gz"),
        ],
        "cannot read it",
    ),
}


def cut(file: Path) -> str:
    file.write_bytes(file.read_bytes()[:-20])
    return "--strict"


SHARDS: dict[str, tuple[Case, str]] = {
    "folder without shards": (lambda p: [f"shards:{p}"], "no *.tar or *.tar.gz;"),
    "tar that is no tar": (lambda p: with_shard(p, b"x" * 2000), "0.tar: not a tar"),
    "tar cut off": (lambda p: with_shard(p, tar_of(p, ("a", noise(0)))[:1024]), "not a whole tar"),
    "shard without images": (
        lambda p: with_shard(p, write_tar([("a", {"txt": b"x"})])[0]),
        "no readable image",
    ),
    "sample without image": (
        lambda p: with_shard(p, write_tar([("a", {"png": png(noise(0), p)}), ("b", {"txt": b""})])[0]),
        "0.tar, sample 'b': unreadable (the sample has no image (png, jpg, jpeg, webp), only .txt); give a DEST",
    ),
    "duplicate keys": (
        lambda p: with_shard(p, tar_of(p, ("a", noise(0)), ("b", noise(0)), ("a", noise(0)))),
        "members of sample 'a'",
    ),
    "shard sizes differ": (
        lambda p: with_shard(p, tar_of(p, ("a", noise(0)), ("b", noise(0, (9, 9)))), f"{p}/out"),
        "0.tar, sample 'b': 9x9 pixels, the other images have 8x8",
    ),
    "shard channels differ": (
        lambda p: with_shard(p, tar_of(p, ("a", noise(0)), ("b", noise(0, channels=1)))),
        "sample 'b': grey, the other images are in colour",
    ),
    "transparent in place": (
        lambda p: with_shard(p, tar_of(p, ("a", noise(0).convert("RGBA")))),
        "sample 'a': needs conversion",
    ),
    "class no number": (
        lambda p: with_shard(p, write_tar([("a", {"png": png(noise(0), p), "cls": b"cat"})])[0]),
        "its .cls is b'cat'",
    ),
}
BAD = {**FOLDER, **DEST, **FASHION, **SHARDS}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_clear_line(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    case, expected = BAD[name]
    assert prepare(*case(tmp_path)) == 2
    out, err = capsys.readouterr()
    assert expected in err
    assert err.count("\n") == 1
    assert err.startswith("ganrun: ")
    assert out == ""
    left = {file.name for folder in ("out", "in") for file in (tmp_path / folder).glob("*.json")}
    assert not left
    assert not list((tmp_path / "out").glob("*.tar*"))


@pytest.mark.parametrize("size", ["0", "-3", "three", "100000"])
def test_bad_size(size: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        prepare(f"folder:{tmp_path}", tmp_path / "out", f"--size={size}")
    assert end.value.code == 2
    assert "give an integer from 4 to 4096" in capsys.readouterr().err
