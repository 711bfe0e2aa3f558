"""Data sets of an older ganrun, which knew its source by less: kept if that agrees, and refused in one line if not."""

import hashlib
import json
from pathlib import Path

import pytest

from tests.preparation.making import bytes_of, folder_of, noise, prepare, shards_of


def age(out: Path, content: str) -> None:
    """Replace the hash of the source by one of an older ganrun."""
    index = json.loads((out / "index.json").read_text())
    index["made"]["content"] = content
    (out / "index.json").write_text(json.dumps(index))


def old_hash(source: Path) -> str:
    """As ganrun 0.2 had it before it knew files by their times."""
    numbers = {"cat": b"0", "dog": b"1"}
    digest = hashlib.sha256()
    for path in sorted(source.rglob("*.png")):
        entry = (path.relative_to(source).as_posix(), path.stat().st_size, {"cls": numbers[path.parent.name]})
        digest.update(repr(entry).encode())
    return digest.hexdigest()[:16]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return folder_of(tmp_path / "in")


def test_names_and_sizes_that_agree_are_enough_and_said(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "out"
    assert prepare(f"folder:{source}", out) == 0
    age(out, old_hash(source))
    before = bytes_of(out)
    assert prepare(f"folder:{source}", out) == 0
    (said,) = caplog.messages
    assert "of an older ganrun, which recorded no times of files: names and sizes agree, so it is kept" in said
    assert "if a picture has changed since, choose another folder or delete this one" in said
    assert bytes_of(out) == before
    noise(99).save(source / "cat" / "099.png")
    assert prepare(f"folder:{source}", out) == 2
    assert "by an older ganrun that cannot tell" in capsys.readouterr().err
    assert bytes_of(out) == before


def test_a_file_of_another_size_is_refused(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prepare(f"folder:{source}", tmp_path / "out") == 0
    age(tmp_path / "out", old_hash(source))
    with (source / "cat" / "000.png").open("ab") as file:
        file.write(b"more")
    capsys.readouterr()
    assert prepare(f"folder:{source}", tmp_path / "out") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "or by an older ganrun that cannot tell; choose another folder or delete this one" in line


def test_shards_of_which_only_names_were_known_are_refused(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = (source / "cat" / "000.png").read_bytes()
    shards = shards_of(tmp_path / "shards", [(f"{n}", {"png": image}) for n in range(4)])
    assert prepare(f"shards:{shards}", tmp_path / "out") == 0
    age(tmp_path / "out", hashlib.sha256(b"0.tar").hexdigest()[:16])
    capsys.readouterr()
    assert prepare(f"shards:{shards}", tmp_path / "out") == 2
    assert "by an older ganrun that cannot tell" in capsys.readouterr().err


def test_an_option_that_was_not_recorded_is_named(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert prepare(f"folder:{source}", tmp_path / "out") == 0
    index = json.loads((tmp_path / "out/index.json").read_text())
    del index["made"]["transparency"]
    (tmp_path / "out/index.json").write_text(json.dumps(index))
    capsys.readouterr()
    assert prepare(f"folder:{source}", tmp_path / "out") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "has a data set made by a ganrun that knew no transparency; choose another folder or delete this one" in line
