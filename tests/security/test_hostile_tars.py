"""Tars from strangers that webdataset reads: they end in one line, and open, run, unpickle and unpack nothing."""

import bz2
import gzip
import lzma
import subprocess
import sys
import tarfile
import time

import pytest

from ganrun import prepare
from ganrun.data.shard import read_samples
from ganrun.errors import UserError
from tests.waiting import WAIT

GIB, BLOCK = 2**30, tarfile.BLOCKSIZE
PAX_HEADER, LONG_NAME = tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME


def header(name: str = "a.png", kind: bytes = tarfile.REGTYPE, size: int | bytes = 0) -> bytes:
    """Return a header with a valid checksum; `size` as bytes goes into the field as it is."""
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size if isinstance(size, int) else 0
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    if isinstance(size, bytes):
        block[124:136] = size
        block[148:156] = b" " * 8
        block[148:156] = f"{sum(block):06o}\0 ".encode()
    return bytes(block)


def padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % BLOCK)


def pax(*records: tuple[str, str], kind: bytes = PAX_HEADER) -> bytes:
    """Return a PAX header with these records."""
    lines = b""
    for key, value in records:
        text = f" {key}={value}\n".encode()
        length = next(n for n in range(len(text), len(text) + 20) if len(str(n)) + len(text) == n)
        lines += str(length).encode() + text
    return header("pax", kind, len(lines)) + padded(lines)


END = bytes(2 * BLOCK)
MEMBER = header(size=1) + padded(b"x")
PAX_MEMBER = pax(("mtime", "1.5")) + MEMBER


def refused(data: bytes) -> str:
    """Return the line with which a tar is refused, soon and without the memory that it asks for."""
    begun = time.process_time()
    with pytest.raises(UserError, match=r"^x: [^\n]*$") as caught:
        read_samples(data, "x")
    assert time.process_time() - begun < 20
    return str(caught.value)


def test_the_tars_of_these_tests_are_read_where_nothing_is_wrong():
    assert [key for key, _ in read_samples(PAX_MEMBER + END, "x")] == ["a"]
    [(key, members)] = read_samples(pax(("path", "b.png"), ("size", "1")) + header() + padded(b"x") + END, "x")
    assert (key, bytes(members["png"])) == ("b", b"x")


# Memory and time.


def sparse(size: int) -> bytes:
    """A sparse file of GNU tar that is all holes."""
    block = bytearray(header(kind=tarfile.GNUTYPE_SPARSE))
    block[386:398], block[483:495] = b"00000000000\0", f"{size:011o}\0".encode()
    block[148:156] = b" " * 8
    block[148:156] = f"{sum(block):06o}\0 ".encode()
    return bytes(block)


@pytest.mark.parametrize(
    "member",
    [
        sparse(7 * GIB),
        pax(("GNU.sparse.map", "0,0"), ("GNU.sparse.size", str(10**13))) + header(),
        pax(("GNU.sparse.size", str(10**13)), ("GNU.sparse.offset", "0"), ("GNU.sparse.numbytes", "0")) + header(),
        pax(("GNU.sparse.major", "1"), ("GNU.sparse.minor", "0"), ("GNU.sparse.realsize", str(10**13)))
        + header(size=BLOCK)
        + padded(b"1\n0\n0\n"),
        pax(("GNU.sparse.map", "0,0"), ("GNU.sparse.size", str(10**13)), kind=tarfile.XGLTYPE) + MEMBER,
    ],
    ids=["gnu", "0.1", "0.0", "1.0", "global"],
)
def test_a_sparse_file_of_terabytes(member):
    assert "bad header at byte" in refused(PAX_MEMBER + member + END)


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_a_compressed_tar_in_a_tar_or_gzip_is_not_unpacked(pack):
    packed = pack(PAX_MEMBER + END)
    assert "not a" in refused(gzip.compress(packed))
    if pack is not gzip.compress:
        assert "not a" in refused(packed)


@pytest.mark.parametrize("magic", ["\x1f\x8b\x08", "BZh91AY&SY", "\xfd7zXZ", "]\0\0\x80"])
def test_a_name_like_the_beginning_of_a_compressed_file_is_a_name(magic):
    block = bytearray(header(kind=tarfile.SYMTYPE))
    block[: len(magic)] = magic.encode("latin-1")
    block[148:156] = b" " * 8
    block[148:156] = f"{sum(block):06o}\0 ".encode()
    assert [key for key, _ in read_samples(gzip.compress(block + PAX_MEMBER + END), "x")] == ["a"]


@pytest.mark.parametrize(
    "size",
    [b"\xff" * 12, b"\xff" * 10 + b"\xfe\0", b"-7777777777\0", b"\x80" + b"\x7f" * 11, b"77777777777\0", b"9" * 12],
    ids=["-1", "-512", "-octal", "2^87", "8 GiB", "no octal"],
)
@pytest.mark.parametrize("kind", [tarfile.REGTYPE, LONG_NAME, PAX_HEADER, b"V"])
def test_a_size_that_no_member_has(kind, size):
    data = PAX_MEMBER + header("b.png", kind, size) + MEMBER.replace(b"a.png", b"c.png", 1) + END
    assert "x: not a" in refused(data)


@pytest.mark.parametrize("size", ["-512", str(2**80), "1" * 5_000])
def test_a_size_of_a_pax_record_that_no_member_has(size):
    assert "x: not a" in refused(pax(("size", size)) + MEMBER + END)


def test_headers_that_follow_each_other_without_end():
    for one in (pax(("path", "b.png")), header(kind=LONG_NAME, size=2) + padded(b"b\0")):
        assert "x: not a" in refused(one * 3_000 + MEMBER + END)


def test_a_pax_header_that_takes_hours_to_parse():
    """Quadratic in tarfile before Python 3.11.10."""
    refused(pax(("comment", "1" * 4_000_000)) + MEMBER + END)


# What would be lost.


@pytest.mark.parametrize(
    "records", [b"9 path=xx", b"1 path=b.png\n", b"99 path=b.png\n", b"x path=b.png\n", b"13path=b.png\n", b"\0"]
)
def test_records_that_tarfile_would_pass_over(records):
    assert "bad header at byte 0" in refused(header("pax", PAX_HEADER, len(records)) + padded(records) + MEMBER + END)


def test_a_header_that_tarfile_takes_for_the_end():
    bad = bytearray(MEMBER)
    bad[150] ^= 1
    at = len(PAX_MEMBER)
    assert f"not a tar, or corrupt: bad header at byte {at}" in refused(PAX_MEMBER + bytes(bad) + MEMBER + END)
    assert f"not a whole tar: it ends at byte {at} without an end mark" in refused(PAX_MEMBER)
    cut = PAX_MEMBER + header("b.png", size=5_000) + bytes(4_000)
    assert f"not a whole tar: it ends at byte {len(cut)} without an end mark" in refused(cut)


def test_a_hostile_tar_is_one_line_of_prepare(tmp_path, capsys):
    for number, data in enumerate([PAX_MEMBER, PAX_MEMBER + sparse(GIB) + END, pax(("size", "-512")) + MEMBER + END]):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "0.tar").write_bytes(data)
        assert prepare.main([f"shards:{tmp_path / str(number)}", "--workers", "1"]) == 2
        [line] = capsys.readouterr().err.splitlines()
        assert "0.tar: not a" in line


# Files, processes, pickles.


def test_names_and_contents_are_not_acted_on(tmp_path):
    names = ["pipe:touch marked.png", "a.pyd", "b.pickle", "c.pth", "d.__url__", "e.__local_path__", "f.__bad__",
             "g.__key__", "../h.png", "/i.png", "file:j.json", "k.npy.gz"]  # fmt: skip
    content = b"cos\nmkdir\n(S'marked'\ntR."  # A pickle that makes a folder.
    data = b"".join(pax(("path", name)) + header(size=len(content)) + padded(content) for name in names) + END
    code = (
        "import sys\n"
        "from ganrun.data.shard import read_samples\n"
        "import webdataset.tariterators\n"
        "data = sys.stdin.buffer.read()\n"
        "seen = []\n"
        "sys.addaudithook(lambda event, arguments: seen.append(event))\n"
        "samples = read_samples(data, 'x')\n"
        f"assert sum(len(members) for _, members in samples) == {len(names)}, samples\n"
        "print({event for event in seen if not event.startswith(('object.', 'sys._getframe', 'code.'))})\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], input=data, capture_output=True, timeout=WAIT, check=False, cwd=tmp_path
    )
    assert (done.returncode, done.stdout) == (0, b"set()\n"), done.stderr
    assert not list(tmp_path.iterdir())
