"""Fuzzing of `ganrun prepare`: whatever the names, pictures, tables and tars are, it ends as it promises.

It exits with 0, 1 or 2 and never with a traceback; a failure is one line on stderr; and every file or member that goes
in is a sample of the index, or is counted as skipped or left out. `make test` runs some examples, `make drill` an hour.
"""

import contextlib
import csv
import gzip
import io
import os
import re
import signal
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from ganrun.data.index import Index, open_data
from ganrun.data.shard import METADATA, open_shard, split_name
from ganrun.errors import escaped
from ganrun.prepare import main

WATCHDOG_SECONDS = 120
"""Longest time of one command. It takes milliseconds; this ends a hang only."""
EXAMPLES = {"folder": 150, "pairs": 150, "fields": 150, "shards": 150}
"""Examples in `make test`: 0.02 to 0.03 s of CPU time each, and the time of the disk."""
DRILL_SECONDS = 3600
MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV", "I", "I;16", "F")


class HangError(BaseException):
    """The command did not end. No Exception, which it would catch."""


def _hang(*_: object) -> None:
    raise HangError


def run(*arguments: str) -> tuple[int, str, str]:
    """Run the command in this process; return its exit code, stdout and stderr, which take UTF-8 only."""
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
    before = signal.signal(signal.SIGALRM, _hang)
    signal.alarm(WATCHDOG_SECONDS)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main([*arguments, "--workers", "1"])
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    return code, *(stream.buffer.getvalue().decode() for stream in (out, err))  # type: ignore[attr-defined]


def check_end(code: int, out: str, err: str, dest: Path) -> Index | None:
    """Check exit code, last line and the data set; return its index, or None if the command refused its input."""
    assert code in (0, 1, 2), (code, err)
    assert "Traceback" not in err, err
    if code:
        assert err.startswith("ganrun: "), err
        assert err.count("\n") == 1, err
        assert not out
        return None
    assert out.splitlines() == [str(dest)]
    data = open_data(str(dest))
    for number, shard in enumerate(data.index.shards):
        open_shard(data.read(number), shard, data.where(number))
    skipped = dest / "skipped.txt"
    lines = skipped.read_text("utf-8").split("\n")[:-1] if skipped.exists() else []
    assert len(lines) == data.index.made["skipped"], lines
    return data.index


def counted(index: Index) -> int:
    """Return the number of samples and of files that the index accounts for."""
    left_out = sum(int(line.split()[0].replace(",", "")) for line in index.made.get("left_out", ()))
    return index.samples + int(index.made["skipped"]) + left_out


# Names and pictures.

signs = st.text(max_size=12) | st.sampled_from(
    ["01", "set [1]", "a\nb", "\udce9\udcff", "x" * 240, "a.b", "{1}", "\\", "~x"]
)
endings = st.sampled_from(
    [
        "",
        ".png",
        ".PNG",
        ".jpg",
        ".jfif",
        ".avif",
        ".heic",
        ".gif",
        ".tif",
        ".webp",
        ".txt",
        ".0",
        ".png.",
        ".eps",
        ".tga",
    ]
)


@st.composite
def names(draw: st.DrawFn) -> bytes:
    """Draw a name that a file system takes: 1 to 255 bytes, not all UTF-8."""
    text = draw(signs) + draw(endings)
    data = text.encode(
        errors="surrogateescape" if all(sign < "\ud800" or sign > "\udfff" for sign in text) else "replace"
    )
    data = draw(st.sampled_from([data, data + b"\xe9", b"\xff" + data])).replace(b"/", b"").replace(b"\0", b"")[-255:]
    return data if data.strip(b".") else b"a" + data[:200]


@st.composite
def pictures(draw: st.DrawFn) -> bytes:
    """Draw an encoded picture of any mode, size and format; some are cut or have a wrong byte."""
    size = draw(st.sampled_from([(8, 8), (8, 8), (8, 8), (1, 1), (9, 5), (1, 40)]))
    pixels = np.random.default_rng(draw(st.integers(0, 9))).integers(0, 256, (*size[::-1], 3), np.uint8)
    kind = draw(st.sampled_from(["PNG", "PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP", "PPM", "TGA", "AVIF", "ICO"]))
    image, buffer = Image.fromarray(pixels), io.BytesIO()
    with contextlib.suppress(ValueError):
        image = image.convert(draw(st.sampled_from((*MODES, "RGB", "RGB", "RGB"))))
    try:
        image.save(buffer, kind)
    except (OSError, ValueError, KeyError, SystemError):  # The format has no such mode.
        Image.fromarray(pixels).save(buffer, "PNG")
    data = bytearray(buffer.getvalue())
    match draw(st.sampled_from(["whole", "whole", "whole", "cut", "changed", "empty", "text"])):
        case "cut":
            del data[draw(st.integers(0, len(data))) :]
        case "changed":
            data[draw(st.integers(0, len(data) - 1))] ^= draw(st.integers(1, 255))
        case "empty":
            data = bytearray()
        case "text":
            data = bytearray(b"hello")
    return bytes(data)


options = st.lists(
    st.sampled_from(["--size=8", "--size=4", "--channels=1", "--channels=3", "--format=jpg", "--gzip", "--strict"]),
    max_size=3,
    unique_by=lambda option: option.split("=")[0],
)


# Folders.

kinds = st.sampled_from(["file"] * 12 + ["dangling", "loop", "pipe", "folder", "link"])
folders = st.lists(st.tuples(st.none() | names(), names(), kinds, pictures()), min_size=1, max_size=6)


def make_folder(root: bytes, entries: list[tuple[bytes | None, bytes, str, bytes]]) -> None:
    os.makedirs(root)
    for folder, name, kind, data in entries:
        place = os.path.join(root, folder) if folder else root
        path = os.path.join(place, name)
        with contextlib.suppress(FileExistsError, NotADirectoryError):  # The name is taken.
            os.makedirs(place, exist_ok=True)
            if kind == "pipe":
                os.mkfifo(path)
            elif kind == "folder":
                os.mkdir(path)
            elif kind == "file":
                with open(path, "xb") as file:
                    file.write(data)
            else:
                os.symlink({"dangling": b"nowhere", "loop": name, "link": b"/dev/null"}[kind], path)


def entries_of(root: bytes) -> int:
    """Count what is not hidden and not a folder."""
    number = 0
    for _, below, files in os.walk(root):
        below[:] = [name for name in below if not name.startswith(b".")]
        number += sum(not name.startswith(b".") for name in files)
    return number


def fuzz_folder(name: bytes, entries: list[tuple[bytes | None, bytes, str, bytes]], chosen: list[str]) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        root = os.path.join(os.fsencode(temporary), name)
        make_folder(root, entries)
        dest = Path(temporary, "made")
        index = check_end(*run(f"folder:{os.fsdecode(root)}", str(dest), *chosen), dest)
        if index:
            skipped = (dest / "skipped.txt").read_text() if (dest / "skipped.txt").exists() else ""
            assert counted(index) == entries_of(root) + skipped.count(": a folder, not a file\n")


# Pairs.

stems = st.sampled_from(["a", "b", "b", "c", "d/e", "d/e", "a.b", "\n"])
halves = st.lists(st.tuples(stems, endings, pictures()), min_size=1, max_size=6)
ALONE = re.compile(": (no partner in |ambiguous: [0-9]+ files here|Pillow does not read )")
"""Reasons why a file is in no pair. All other lines are about a pair, hence two files."""


def fuzz_pairs(ours: list[tuple[str, str, bytes]], theirs: list[tuple[str, str, bytes]], chosen: list[str]) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        roots, dest = [os.path.join(temporary, name) for name in ("ours", "theirs")], Path(temporary, "made")
        for root, files in zip(roots, (ours, theirs), strict=True):
            entries = [
                (os.path.dirname(stem).encode(), os.path.basename(stem + end), data) for stem, end, data in files
            ]
            make_folder(root.encode(), [(folder, name.encode(), "file", data) for folder, name, data in entries])
        index = check_end(*run(f"pairs:{roots[0]},{roots[1]}", str(dest), *chosen), dest)
        if index:
            skipped = (dest / "skipped.txt").read_text("utf-8") if (dest / "skipped.txt").exists() else ""
            of_pairs = index.samples + int(index.made["skipped"]) - len(ALONE.findall(skipped))
            assert counted(index) + of_pairs == sum(entries_of(root.encode()) for root in roots)


# Tables of fields.

labels = st.sampled_from(
    ["01", " 1", "1", "2", "cat", "é", "-1", "99999999999", "1.0", "", "a\tb", "9" * 5000, "x;y"]
) | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=6)


@st.composite
def tables(draw: st.DrawFn) -> tuple[bytes, list[str]]:
    """Draw a CSV as spreadsheets write it, and the label of each of its 4 images."""
    drawn = draw(st.lists(labels, min_size=4, max_size=4))
    buffer = io.StringIO(newline="")
    writer = csv.writer(
        buffer, delimiter=draw(st.sampled_from(",;\t")), lineterminator=draw(st.sampled_from(["\n", "\r\n"]))
    )
    blank, more = draw(st.sampled_from([[], ["", "", ""], [""]])), draw(st.sampled_from([[], [""], ["", ""]]))
    writer.writerow(["file", "label", "note", *more])
    for number, label in enumerate(drawn):
        writer.writerow([f"{number}.png", label, draw(st.sampled_from(["", "007", "1e5", "x"])), *more])
        if draw(st.booleans()):
            writer.writerow(blank)
    text = buffer.getvalue() + draw(st.sampled_from(["", "\n", "\r\n\r\n", " \n"]))
    return draw(st.sampled_from([text.encode(), text.encode("utf-8-sig"), text.encode("utf-16")])), drawn


def fuzz_table(table: tuple[bytes, list[str]], damage: bytes, at: int) -> None:
    data, drawn = table
    with tempfile.TemporaryDirectory() as temporary:
        root, dest, file = (Path(temporary, name) for name in ("in", "made", "fields.csv"))
        root.mkdir()
        for number in range(4):
            Image.new("L", (8, 8), number * 60).save(root / f"{number}.png")
        file.write_bytes(data[:at] + damage + data[at:])
        index = check_end(*run(f"folder:{root}", str(dest), "--fields", str(file)), dest)
        if index:
            assert counted(index) == 4
        if damage:
            return
        wanted = [label.strip() for label in drawn]
        if index and any(wanted):
            assert labels_of(dest) == [escaped(label) for label in wanted]
        elif all(wanted) and all(label.isalpha() for label in wanted):
            raise AssertionError(f"refused: {wanted}")


def labels_of(dest: Path) -> list[str]:
    """Return the class names of the samples in the order of their grey."""
    data = open_data(str(dest))
    found = {}
    for number, shard in enumerate(data.index.shards):
        for _, members in open_shard(data.read(number), shard, ""):
            grey = np.asarray(Image.open(io.BytesIO(members["png"]))).flat[0]
            found[int(grey)] = data.index.classes[int(bytes(members["cls"]))]
    return [found[grey] for grey in sorted(found)]


# Shards.

FORMATS = (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)
TYPES = (tarfile.REGTYPE,) * 12 + (tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE)
keys = st.sampled_from(
    ["0", "1", "2", "a/0", "a/1", ".hidden", "__meta__", "v1.0", "k" * 120, "é", "日本\u3000"]
) | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0/"), min_size=1, max_size=5)
extensions = st.sampled_from(["png", "PNG", "jpg", "cls", "txt", "json", "seg.png", "tif", "0.5.png", ""])
contents = st.sampled_from([b"0", b"3\n", b"02119789", b"9" * 5000, b"cat", b"", b"99999999999"])


@st.composite
def tars(draw: st.DrawFn) -> bytes:
    """Draw a tar of any dialect; some are cut, gzipped or stand one after another."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=draw(st.sampled_from(FORMATS)), encoding="utf-8") as tar:
        for key in draw(st.lists(keys, min_size=1, max_size=4)):
            for extension in draw(st.lists(extensions, min_size=1, max_size=3)):
                member = tarfile.TarInfo(f"{key}.{extension}" if extension else key)
                member.type, member.linkname = draw(st.sampled_from(TYPES)), "0.png"
                ending = extension.lower()
                data = draw(pictures() if ending.endswith(("png", "jpg", "tif")) else contents)
                member.size = len(data) if member.isreg() else 0
                with contextlib.suppress(ValueError):  # The dialect has no room for such a name.
                    tar.addfile(member, io.BytesIO(data))
    data = buffer.getvalue()
    match draw(st.sampled_from(["whole"] * 6 + ["cut", "twice", "gzip"])):
        case "cut":
            return data[: draw(st.integers(0, len(data)))]
        case "twice":
            return data + data
        case "gzip":
            return gzip.compress(data)
    return data


def parts_of(data: bytes) -> int:
    """Count the samples of a tar, and the members that belong to none, without folders, hidden files and metadata."""
    samples, others = set(), 0
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        for member in tar:
            key, extension = split_name(member.name)
            if member.isreg() and key and extension:
                samples.add(key)
            elif not member.isdir() and not (member.isreg() and hidden(member.name)):
                others += 1
    return len(samples) + others


def hidden(name: str) -> bool:
    return name.rpartition("/")[2].startswith(".") or bool(METADATA.match(name))


def fuzz_shards(name: str, data: bytes, chosen: list[str], in_place: bool) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        root, dest = Path(temporary, "in"), Path(temporary, "made")
        root.mkdir()
        (root / f"{name}.tar").write_bytes(data)
        to = root if in_place else dest
        index = check_end(*run(f"shards:{root}", *([] if in_place else [str(dest), *chosen])), to)
        if index:
            assert counted(index) == parts_of(data)


shard_names = st.sampled_from(["0", "a b", "\u3000", "\xa0", "a\nb", "\udce9", "{0}", "[1]", "\\", "日本", "a.b"])
FUZZERS: dict[str, tuple[Callable[..., None], tuple[Any, ...]]] = {
    "folder": (fuzz_folder, (names(), folders, options)),
    "pairs": (fuzz_pairs, (halves, halves, options)),
    "fields": (fuzz_table, (tables(), st.sampled_from([b""] * 6) | st.binary(max_size=3), st.integers(0, 60))),
    "shards": (fuzz_shards, (shard_names, tars(), options, st.booleans())),
}


def fuzz(name: str, **changes: Any) -> None:
    check, strategies = FUZZERS[name]
    quiet = list(HealthCheck)
    settings(deadline=None, database=None, suppress_health_check=quiet, **changes)(given(*strategies)(check))()


@pytest.mark.parametrize("name", FUZZERS)
def test_whatever_goes_in_is_counted(name: str) -> None:
    fuzz(name, max_examples=EXAMPLES[name], derandomize=True)


@pytest.mark.drill
@pytest.mark.parametrize("name", FUZZERS)
def test_whatever_goes_in_is_counted_for_an_hour(name: str) -> None:
    end = time.monotonic() + DRILL_SECONDS / len(FUZZERS)
    while time.monotonic() < end:
        fuzz(name, max_examples=1000)
