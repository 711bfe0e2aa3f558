"""Folders as people have them: odd names, odd files, odd endings. Nothing is lost without being counted and named."""

import os
import socket
from pathlib import Path

import pytest
from PIL import Image

from tests.preparation.making import folder_of, noise, prepare, read_all


def skipped(dest: Path) -> list[str]:
    return (dest / "skipped.txt").read_text("utf-8").splitlines()


def test_what_is_no_regular_file_is_skipped_and_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = folder_of(tmp_path / "in", 4, ())
    (source / "dangling.png").symlink_to("nowhere")
    (source / "loop.png").symlink_to("loop.png")
    os.mkfifo(source / "pipe.png")
    (source / "folder.png").mkdir()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(source / "socket"))
        assert prepare(f"folder:{source}", tmp_path / "out") == 0
    index, samples = read_all(tmp_path / "out")
    assert (len(samples), index.made["skipped"]) == (4, 5)
    assert skipped(tmp_path / "out") == [
        f"{source}/dangling.png: a link that leads nowhere (No such file or directory)",
        f"{source}/folder.png: a folder, not a file",
        f"{source}/loop.png: a link that leads nowhere (Too many levels of symbolic links)",
        f"{source}/pipe.png: a named pipe, not a file",
        f"{source}/socket: a socket, not a file",
    ]
    assert "skipped" in capsys.readouterr().err
    assert prepare(f"folder:{source}", tmp_path / "strict", "--strict") == 2
    assert "dangling.png: a link that leads nowhere" in capsys.readouterr().err


def test_a_second_link_to_a_folder_is_told_a_loop_is_not(tmp_path: Path) -> None:
    source = folder_of(tmp_path / "in", 4)
    (source / "cat" / "up").symlink_to(source)
    (source / "more").symlink_to(source / "cat")
    assert prepare(f"folder:{source}", tmp_path / "out") == 0
    assert read_all(tmp_path / "out")[0].samples == 4
    assert skipped(tmp_path / "out") == [f"{source}/more: a link to {source}/cat, whose images are taken already"]


@pytest.mark.parametrize(
    "ending", [".jfif", ".jpe", ".avif", ".jp2", ".qoi", ".tga", ".pbm", ".ico", "", ".0", ".heic"]
)
def test_what_pillow_reads_is_read(ending: str, tmp_path: Path) -> None:
    source = folder_of(tmp_path / "in", 2, ())
    kinds = {".jfif": "jpeg", ".jpe": "jpeg", ".pbm": "ppm", ".jp2": "jpeg2000"}
    noise(5, (16, 16)).save(source / f"odd{ending}", kinds.get(ending, ending[1:] if len(ending) == 4 else "png"))
    assert prepare(f"folder:{source}", tmp_path / "out", "--size", 8) == 0
    index, _ = read_all(tmp_path / "out")
    assert (index.samples, index.made["skipped"], index.made.get("left_out")) == (3, 0, None)


def test_other_files_are_counted_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = folder_of(tmp_path / "in", 2, ())
    (source / "photo.heic").write_bytes(b"\0\0\0\x20ftypheic")
    for name in ("a.txt", "b.txt", "README", ".hidden"):
        (source / name).write_text("words")
    assert prepare(f"folder:{source}", tmp_path / "out") == 0
    made = read_all(tmp_path / "out")[0].made
    assert made["left_out"] == ["2 .txt (a.txt, ...)", "1 without ending (README)"]
    assert skipped(tmp_path / "out") == [
        f"{source}/photo.heic: Pillow does not read .heic here; convert it to .png or .jpg"
    ]
    err = capsys.readouterr().err
    assert "2 images, 1 skipped" in err
    assert "left out: 2 .txt (a.txt, ...); 1 without ending (README)" in err


def test_postscript_is_not_run(tmp_path: Path) -> None:
    source = folder_of(tmp_path / "in", 1, ())
    Image.new("RGB", (8, 8)).save(source / "program.png", "EPS")
    assert prepare(f"folder:{source}", tmp_path / "out") == 0
    assert skipped(tmp_path / "out") == [f"{source}/program.png: not an image format that Pillow can read"]


def test_names_that_are_no_utf8_or_break_lines_are_escaped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = folder_of(tmp_path / "in", 2, ("a\nb", os.fsdecode(b"caf\xe9")))
    (source / "a\nb" / os.fsdecode(b"\xff\t.png")).write_bytes(b"no picture")
    assert prepare(f"folder:{source}", tmp_path / "out") == 0
    assert read_all(tmp_path / "out")[0].classes == ("a\\nb", "caf\\xe9")
    line = f"{source}/a\\nb/\\xff\\t.png: not an image format that Pillow can read"
    assert skipped(tmp_path / "out") == [line]
    assert f"skipped {line}\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("folders", "classes", "order"),
    [
        ([str(number) for number in range(12)], [str(number) for number in range(12)], "numeric"),
        (["10", "9", "08"], ["08", "9", "10"], "numeric"),
        (["10", "9", "b"], ["10", "9", "b"], "alphabetical"),
    ],
)
def test_numbered_folders_are_classes_in_their_order(
    folders: list[str], classes: list[str], order: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = folder_of(tmp_path / "in", len(folders), tuple(folders))
    assert prepare(f"folder:{source}", tmp_path / "out") == 0
    index, samples = read_all(tmp_path / "out")
    assert index.classes == tuple(classes)
    originals = {file.read_bytes(): file.parent.name for file in source.rglob("*.png")}
    assert {bytes(s["png"]): classes[int(bytes(s["cls"]))] for s in samples.values()} == originals
    assert f"sub-folders in {order} order" in capsys.readouterr().err


@pytest.mark.parametrize("change", ["file", "label", "class", "left out"])
def test_a_source_is_known_by_all_that_decides_its_content(
    change: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, fields = folder_of(tmp_path / "in", 2, ()), tmp_path / "fields.csv"
    fields.write_text("file,label\n000.png,a\n001.png,b\n")
    arguments = [f"folder:{source}", tmp_path / "out", "--fields", fields]
    assert prepare(*arguments) == 0
    assert prepare(*arguments) == 0
    match change:
        case "file":  # Another image of the same size in bytes.
            data = bytearray((source / "000.png").read_bytes())
            data[50] ^= 1
            (source / "000.png").write_bytes(data)
            os.utime(source / "000.png", ns=(0, 1))
        case "label":
            fields.write_text("file,label\n000.png,b\n001.png,a\n")
        case "class":
            fields.write_text("file,label\n000.png,x\n001.png,y\n")
        case "left out":
            (source / "new.heic").write_bytes(b"")
    capsys.readouterr()
    assert prepare(*arguments) == 2
    assert (
        "has a data set made of other files, or of files, fields or classes that have changed"
        in capsys.readouterr().err
    )


def test_a_folder_whose_name_is_that_of_no_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder_of(Path("~nobody-of-this-name"), 2, ())
    assert prepare("folder:~nobody-of-this-name", tmp_path / "out") == 0
