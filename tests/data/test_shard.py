"""A tar is read as Python's tarfile reads it; a corrupt one is refused."""

import gzip
import hashlib
import io
import tarfile

import pytest

from ganrun.data.index import Shard
from ganrun.data.shard import open_shard, read_samples
from ganrun.data.ustar import plain_members
from ganrun.data.webdataset_tar import tar_members
from ganrun.errors import UserError

LONG, BLOCK = "folder/" * 30 + "name", 512


def tar_of(names: list[str], kind: int = tarfile.USTAR_FORMAT, mtime: float = 0) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=kind) as tar:
        for number, name in enumerate(names):
            member = tarfile.TarInfo(name)
            content = f"content {number}".encode() * 100
            member.size, member.mtime = len(content), mtime  # type: ignore[assignment]
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def record(data: bytes, samples: int) -> Shard:
    return Shard("0.tar", samples, len(data), hashlib.sha256(data).hexdigest())


NAMES = ["a", "deep/er/a", "folder/" * 20 + "n" * 60, "späße"]
DIALECTS = [
    *((kind, name) for kind in (tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT, tarfile.GNU_FORMAT) for name in NAMES),
    *((kind, LONG) for kind in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT)),  # USTAR has no such names
]


@pytest.mark.parametrize(("kind", "name"), DIALECTS)
@pytest.mark.parametrize("mtime", [0, 1.5])
def test_all_dialects_read_as_tarfile_reads_them(kind: int, mtime: float, name: str) -> None:
    data = tar_of([f"{name}.png", f"{name}.CLS", "b.seg.png"], kind, mtime)
    found = {
        f"{key}.{kind}": bytes(content) for key, members in read_samples(data, "x") for kind, content in members.items()
    }
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        expected = {m.name.replace("CLS", "cls"): tar.extractfile(m).read() for m in tar}  # type: ignore[union-attr]
    assert found == expected
    assert [key for key, _ in read_samples(data, "x")] == [name, "b"]


def test_folders_links_and_files_without_ending_are_no_samples() -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, kind in (("d", tarfile.DIRTYPE), ("l.png", tarfile.SYMTYPE), ("README", tarfile.REGTYPE)):
            member = tarfile.TarInfo(name)
            member.type = kind
            tar.addfile(member)
    assert read_samples(buffer.getvalue(), "x") == []


def test_gzip() -> None:
    data = tar_of(["a.png", "a.cls", "b.png"])
    packed = gzip.compress(data)
    assert len(open_shard(packed, record(packed, 2), "x")) == 2
    with pytest.raises(UserError, match="x: corrupt gzip"):
        read_samples(packed[:-30], "x")


def test_members_are_not_copied() -> None:
    data = tar_of(["a.png"])
    (_, members), *_ = read_samples(data, "x")
    assert members["png"].obj is data


NAMES = ["a.png", "a.cls", "b.png"]
MEMBER = 2 * BLOCK + BLOCK  # a header, and 900 bytes in two blocks


@pytest.mark.parametrize("place", [*range(0, 8), 100, 124, 130, 148, 156, 257, 345, 500])
def test_a_flipped_bit_in_a_header_is_seen(place: int) -> None:
    data = bytearray(tar_of(NAMES))
    data[MEMBER + place] ^= 1
    with pytest.raises(UserError, match=f"x: not a tar, or corrupt: bad header at byte {MEMBER}"):
        read_samples(bytes(data), "x")


@pytest.mark.parametrize("size", [0, 100, BLOCK, BLOCK + 10, MEMBER, MEMBER + 100, 2 * MEMBER, 3 * MEMBER])
def test_a_cut_is_seen(size: int) -> None:
    with pytest.raises(UserError, match="x: not a whole tar"):
        read_samples(tar_of(NAMES)[:size], "x")


@pytest.mark.parametrize(
    "damage", [b"", b"no length", b"99999 path=x\n", b"9 path=xxxx\n", b"0 path=x\n", b"9 size=x\n"]
)
def test_corrupt_pax_records_are_no_traceback(damage: bytes) -> None:
    data = tar_of([LONG + ".png"], tarfile.PAX_FORMAT)
    start = data.index(b" path=") - 3
    length = data.index(b"\n", start) - start + 1
    data = data[:start] + (damage or b"\0").ljust(length, b"\0") + data[start + length :]
    with pytest.raises(UserError, match="x: "):
        read_samples(data, "x")


def test_what_differs_from_the_index_is_named() -> None:
    data = tar_of(NAMES)
    assert [key for key, _ in open_shard(data, record(data, 2), "x")] == ["a", "b"]
    with pytest.raises(UserError, match=rf"x: {len(data) - 1} bytes, but the index says {len(data)}; .*ganrun.prepare"):
        open_shard(data[:-1], record(data, 2), "x")
    flipped = data[:600] + b"?" + data[601:]
    with pytest.raises(UserError, match=r"x: sha256 .* but the index says"):
        open_shard(flipped, record(data, 2), "x")
    with pytest.raises(UserError, match="x: 2 samples, but the index says 3"):
        open_shard(data, record(data, 3), "x")


def test_a_key_in_two_places_is_refused() -> None:
    with pytest.raises(UserError, match="members of sample 'a' do not stand together"):
        read_samples(tar_of(["a.png", "b.png", "a.cls"]), "x")


@pytest.mark.parametrize("names", [["a.png", "a.png"], ["a.png", "a.cls", "a.PNG"]])
def test_a_member_that_comes_twice_is_refused(names: list[str]) -> None:
    with pytest.raises(UserError, match="x: sample 'a' has two members 'png'"):
        read_samples(tar_of(names), "x")


def members_of(data: bytes) -> list[tuple[str, bytes]] | None:
    found = plain_members(data)
    return None if found is None else [(name, bytes(content)) for name, content in found]


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT])
def test_a_plain_tar_is_read_in_place_as_webdataset_reads_it(kind: int) -> None:
    data = tar_of(["a/b.png", "a/b.cls", "sp\u00e4\u00dfe.json", "n" * 96 + ".png"], kind)
    assert members_of(data) == [(name, bytes(content)) for name, content in tar_members(data, "x")]
    (_, content), *_ = plain_members(data) or []
    assert content.obj is data


@pytest.mark.parametrize(("kind", "name"), DIALECTS)
def test_only_pax_headers_and_long_names_are_left_to_webdataset(kind: int, name: str) -> None:
    plain = len(name) < 96 and (kind != tarfile.PAX_FORMAT or name.isascii())
    assert (plain_members(tar_of([f"{name}.png"], kind)) is not None) == plain
    if kind == tarfile.PAX_FORMAT:
        assert plain_members(tar_of([f"{name}.png"], kind, mtime=1.5)) is None


def test_a_gap_and_a_missing_end_mark_are_not_plain() -> None:
    inner = tar_of(["c.png"])
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        member = tarfile.TarInfo("a.tar")
        member.size = len(inner)
        tar.addfile(member, io.BytesIO(inner))
    assert plain_members(buffer.getvalue()) is None  # The header within is none of its own.
    assert [key for key, _ in read_samples(buffer.getvalue(), "x")] == ["a"]
    assert plain_members(tar_of(["a.png"])[: 3 * BLOCK]) is None  # No end mark.
    assert plain_members(b"") is None
    assert plain_members(bytes(2 * BLOCK)) is None


@pytest.mark.parametrize("place", [0, 99, *range(124, 136), *range(148, 154), 156, 300, 345, 511])
def test_a_header_with_a_wrong_checksum_is_not_plain(place: int) -> None:
    data = bytearray(tar_of(["a.png", "b.png"]))
    data[place] ^= 1
    assert plain_members(bytes(data)) is None


@pytest.mark.parametrize("field", [b"0000000009\0\0", b"00000000 17\0", b"\x80" + bytes(10) + b"\x05", b"000000000057"])
def test_a_size_that_is_not_eleven_octal_digits_is_not_plain(field: bytes) -> None:
    data = bytearray(tar_of(["a.png"]))
    data[124:136], data[148:156] = field, b" " * 8
    data[148:156] = f"{sum(data[:BLOCK]):06o}\0 ".encode()
    assert plain_members(bytes(data)) is None
