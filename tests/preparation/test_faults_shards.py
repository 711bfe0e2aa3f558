"""Shards as people have them: labels that are identifiers or missing, links, tars one after another, odd names."""

import io
import os
import tarfile
from pathlib import Path

import pytest

from ganrun.data.index import open_data
from ganrun.preparation.pack import write_tar
from tests.preparation.making import noise, png, prepare, read_all, shards_of


@pytest.mark.parametrize(
    "label", [b"99999999999", b"9" * 5000, b"02119789", b"1000000", b"-1", b"1_0", "١".encode(), b""]
)
@pytest.mark.parametrize("copied", [False, True])
def test_an_identifier_is_no_label(
    label: bytes, copied: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = shards_of(tmp_path / "in", [("0", {"png": png(noise(0), tmp_path), "cls": label})])
    assert prepare(f"shards:{source}", *([tmp_path / "out"] if copied else [])) == 2
    err = capsys.readouterr().err
    assert f"0.tar, sample '0': its .cls is {label[:20]!r}" in err
    assert "it must be a class number, an integer from 0 to 999999" in err
    assert err.count("\n") == 1
    assert not (source / "index.json").exists()


def test_labels_far_above_their_number_are_refused_others_are_classes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = png(noise(0), tmp_path)
    assert prepare(f"shards:{shards_of(tmp_path / 'a', [('0', {'png': image, 'cls': b'1101'})])}") == 2
    assert "shards: .cls: label 1101, but only 1 labels; number classes from 0 up" in capsys.readouterr().err
    assert prepare(f"shards:{shards_of(tmp_path / 'b', [('0', {'png': image, 'cls': b'1100'})])}") == 0
    assert len(open_data(str(tmp_path / "b")).index.classes) == 1101


def test_a_shard_that_changed_is_another_source(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = shards_of(tmp_path / "in", [("0", {"png": png(noise(0), tmp_path)})])
    assert prepare(f"shards:{source}", tmp_path / "out") == 0
    assert prepare(f"shards:{source}", tmp_path / "out") == 0
    (source / "0.tar").write_bytes(write_tar([("0", {"png": png(noise(1), tmp_path)})])[0])
    os.utime(source / "0.tar", ns=(0, 1))
    assert prepare(f"shards:{source}", tmp_path / "out") == 2
    assert "have changed since" in capsys.readouterr().err


def test_samples_without_a_label_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = png(noise(0), tmp_path)
    samples = [(str(n), {"png": image, **({} if n == 2 else {"cls": b"0", "txt": b"x"})}) for n in range(4)]
    source = shards_of(tmp_path / "in", samples)
    assert prepare(f"shards:{source}") == 0
    err = capsys.readouterr().err
    assert f"1 of 4 samples have no .cls (the first: {source}/0.tar, sample '2')" in err
    assert "1 of 4 samples have no .txt" in err
    assert open_data(str(source)).index.made["members"] == {"cls": 3, "txt": 3}


def tar_with(tmp_path: Path, *links: tuple[str, bytes]) -> bytes:
    buffer, image = io.BytesIO(), png(noise(0), tmp_path)
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name in ("0.png", "1.png"):
            member = tarfile.TarInfo(name)
            member.size = len(image)
            tar.addfile(member, io.BytesIO(image))
        for name, kind in links:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "0.png"
            tar.addfile(member)
    return buffer.getvalue()


@pytest.mark.parametrize("copied", [False, True])
def test_links_and_files_without_ending_are_counted_and_named(
    copied: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    links = (
        ("2.png", tarfile.LNKTYPE),
        ("3.png", tarfile.SYMTYPE),
        ("4.png", tarfile.FIFOTYPE),
        ("README", tarfile.REGTYPE),
    )
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "0.tar").write_bytes(tar_with(tmp_path, *links, ("folder", tarfile.DIRTYPE)))
    dest = tmp_path / "out" if copied else tmp_path / "in"
    assert prepare(f"shards:{tmp_path / 'in'}", *([dest] if copied else [])) == 0
    index, samples = read_all(dest)
    assert (list(samples), index.made["skipped"]) == (["0", "1"], 4)
    names = [line.partition(", member ")[2] for line in (dest / "skipped.txt").read_text().splitlines()]
    assert names == [
        "'README': no ending, hence part of no sample",
        "'2.png': a link to '0.png', not a file; pack the file itself",
        "'3.png': a link to '0.png', not a file; pack the file itself",
        "'4.png': not a regular file",
    ]
    assert "2 images, 4 skipped" in capsys.readouterr().err


def test_tars_one_after_another_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tar = tar_with(tmp_path)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "0.tar").write_bytes(tar + tar)
    assert prepare(f"shards:{tmp_path / 'in'}") == 2
    assert f"members after it from byte {len(tar)}, which no reader sees" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["\u3000", "a\xa0b", "{0}", "[1]", "\\", "é", "a b", "a.b"])
def test_train_reads_what_prepare_writes_whatever_a_shard_is_called(name: str, tmp_path: Path) -> None:
    source = tmp_path / f"set {name}"
    source.mkdir()
    (source / f"{name}.tar").write_bytes(tar_with(tmp_path))
    assert prepare(f"shards:{source}") == 0
    for place in (source, source / f"{name}.tar"):
        assert open_data(str(place)).read(0) == (source / f"{name}.tar").read_bytes()


@pytest.mark.parametrize("name", ["a\nb", "\x1b[2J", os.fsdecode(b"\xe9")])
def test_a_shard_name_that_no_index_may_have_is_refused(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / f"{name}.tar").write_bytes(tar_with(tmp_path))
    assert prepare(f"shards:{tmp_path / 'in'}") == 2
    assert "has a control character or is not UTF-8; rename it" in capsys.readouterr().err


def test_dots_in_keys_are_explained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = shards_of(tmp_path / "in", [("v1", {"0.png": png(noise(0), tmp_path)})])
    assert prepare(f"shards:{source}") == 2
    err = capsys.readouterr().err
    assert "only .0.png; the ending begins at the first dot of a file name: replace the other dots of 'v1.0.png'" in err


def test_shards_that_would_overwrite_each_other_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = shards_of(tmp_path / "in", [("0", {"png": png(noise(0), tmp_path)})])
    (source / "0.tar.gz").write_bytes((source / "0.tar").read_bytes())
    assert prepare(f"shards:{source}", tmp_path / "out") == 2
    assert "0.tar and 0.tar.gz would both become 0.tar; rename one" in capsys.readouterr().err


def test_members_that_would_overwrite_each_other_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = png(noise(0), tmp_path)
    source = shards_of(tmp_path / "in", [("0", {"png": image, "jpg": b"other"})])
    assert prepare(f"shards:{source}", tmp_path / "out", "--format", "jpg") == 2
    assert "sample '0': has two members that would be .jpg once converted" in capsys.readouterr().err


def test_other_files_beside_shards_are_told_and_other_images_copied(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    noise(0).save(tmp_path / "one.bmp")
    source = shards_of(tmp_path / "in", [("0", {"bmp": (tmp_path / "one.bmp").read_bytes()})])
    (source / "1.tgz").write_bytes(b"")
    assert prepare(f"shards:{source}", tmp_path / "out") == 0
    assert set(read_all(tmp_path / "out")[1]["0"]) == {"png"}
    assert "left out: 1 .tgz (1.tgz)" in capsys.readouterr().err
    assert prepare(f"shards:{source}") == 2
    assert "the sample has no image (png, jpg, jpeg, webp), only .bmp" in capsys.readouterr().err
