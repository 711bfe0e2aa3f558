"""Shards and pictures from strangers: they touch no file, and no header of theirs is believed."""

import gzip
import io
import resource
import struct
import subprocess
import sys
import tarfile
import zlib

import pytest

from ganrun import prepare
from ganrun.config.schema import FieldConfig
from ganrun.data.decode import Decoder
from ganrun.data.index import Index
from ganrun.data.shard import OpenShard, read_samples
from ganrun.errors import UserError
from tests.security.refused import refused
from tests.waiting import WAIT


def tar(members: dict[str, bytes], links: dict[str, str] | None = None) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as file:
        for name, target in (links or {}).items():
            for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
                link = tarfile.TarInfo(name)
                link.type, link.linkname = kind, target
                file.addfile(link)
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def png(width: int, height: int, stated: tuple[int, int] | None = None) -> bytes:
    """A PNG of zeros of 1 channel; a real one, compressed as zeros are: 1,000 to 1."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    packer, size = zlib.compressobj(9, wbits=-15), (1 + width) * height
    row = packer.compress(bytes(1 + width)) + packer.flush(zlib.Z_FULL_FLUSH)  # Whole bytes, so that it can repeat.
    packed = b"\x78\xda" + row * height + b"\x03\0" + struct.pack(">HH", size % 65521, 1)
    header = struct.pack(">IIBBBBB", *(stated or (width, height)), 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def test_links_and_paths_of_a_tar_touch_no_file(tmp_path, capsys, monkeypatch):
    """They are no samples; and a shard whose names lead out of a folder is not handed on."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret").write_bytes(b"secret")
    links = {"000.png": str(tmp_path / "secret"), "001.png": "/dev/zero", "../002.png": "../../etc/passwd"}
    picture = png(16, 16)
    assert read_samples(tar({}, links), "x") == []
    found = read_samples(tar({"../../out.png": picture, "/abs/out.png": picture}, links), "x")
    assert [key for key, _ in found] == ["../../out", "/abs/out"]
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "0.tar").write_bytes(tar({"../../out.png": picture}, links))
    assert prepare.main([f"shards:{tmp_path / 'in'}", str(tmp_path / "made"), "--workers", "1"]) == 2
    assert "would be unpacked outside its folder" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "made") == ["in", "secret"]
    assert not list((tmp_path / "made").glob("*.tar"))


def test_a_gzip_that_unpacks_to_gigabytes_is_refused(tmp_path):
    bomb = gzip.compress(bytes(2**20), 9) * 1024  # Members one after another are one stream: a GiB.
    limit = 3 * 2**30
    code = (
        "import resource, sys; from ganrun.data.shard import read_samples; data = sys.stdin.buffer.read()\n"
        f"resource.setrlimit(resource.RLIMIT_AS, ({limit}, {limit}))\n"
        "read_samples(data * 8, 'x.tar.gz')"
    )
    done = subprocess.run([sys.executable, "-c", code], input=bomb, capture_output=True, check=False)
    assert b"not a shard of samples" in done.stderr


@pytest.mark.parametrize("field", [b"9" * 11 + b"\0", b"-7777777777\0", b"\xff" * 12, b"7" * 11 + b"\0"])
def test_a_size_that_no_member_has(field):
    header = bytearray(tar({"a.png": b"x"})[:512])
    header[124:136], header[148:156] = field, b" " * 8
    header[148:156] = f"{sum(header):06o}\0 ".encode()
    with pytest.raises(UserError, match="x: not a"):
        read_samples(bytes(header) + bytes(1024), "x")


# Pictures.

HUGE = png(50_000, 50_000)
"""2.5 GB of pixels, a few MB as a file."""


def jpeg(width: int, height: int) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("L", (16, 16)).save(buffer, "jpeg")
    data = bytearray(buffer.getvalue())
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def webp(lossless: bool, width: int, height: int) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (width, height)).save(buffer, "webp", lossless=lossless)
    return buffer.getvalue()


def canvas(width: int, height: int) -> bytes:
    body = b"WEBPVP8X" + struct.pack("<I", 10) + bytes(4) + (width - 1).to_bytes(3, "little")
    body += (height - 1).to_bytes(3, "little")
    return b"RIFF" + struct.pack("<I", len(body)) + body


@pytest.mark.parametrize(
    ("content", "size"),
    [
        (HUGE, "50000x50000"),
        (png(50_000, 2), "2x50000"),
        (jpeg(50_000, 40_000), "40000x50000"),
        (jpeg(65_500, 65_500), "65500x65500"),
        (webp(True, 2_000, 1_000), "1000x2000"),
        (webp(False, 2_000, 1_000), "1000x2000"),
        (canvas(2**24, 2**24), "16777216x16777216"),
    ],
    ids=["png", "wide", "jpeg", "largest-jpeg", "lossless-webp", "webp", "canvas"],
)
def test_the_stream_does_not_decode_a_picture_of_another_size(content, size):
    assert size in refused("png", content)


@pytest.mark.parametrize(
    "begin", [b"GIF89a\xff\xff\xff\xff", b"\x89PNG\r\n\x1a\n", b"RIFF\0\0\0\0WEBP", b"", b"\xff\xd8"]
)
def test_what_is_no_picture_of_a_shard(begin):
    assert "is not a readable image" in (said := refused("png", begin + bytes(40))) or "3x0x0" in said


def test_a_picture_that_lies_about_its_size():
    """16x16 by its header, 50,000x5,000 of pixels: no more is decoded than the header says."""
    decoder = Decoder("image", FieldConfig(kind="image"), Index(16, 1, (), ()))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    content = png(50_000, 5_000, stated=(16, 16))
    assert not decoder.image(OpenShard("x.tar", []), "k", {"png": memoryview(content)}).any()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000


def test_a_vector_that_states_more_than_it_has():
    for count in (10**9, 10**15):
        header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': ({count},)}}".ljust(117) + "\n"
        refused("npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + bytes(80), "vector")


@pytest.mark.parametrize("name", ["huge.png", "huge.gif", "huge.bmp", "huge.tiff"])
def test_prepare_passes_over_a_picture_of_50000_by_50000(name, tmp_path):
    (tmp_path / "in").mkdir()
    for number in range(3):
        (tmp_path / "in" / f"{number}.png").write_bytes(png(16, 16))
    hostile = {
        "huge.png": HUGE,
        "huge.gif": b"GIF89a"
        + struct.pack("<HH", 50_000, 50_000)
        + b"\x80\0\0"
        + bytes(6)
        + b",\0\0\0\0PPPP\0\2\2D\1\0;",
        "huge.bmp": b"BM" + bytes(8) + struct.pack("<IIiiHHIIiiII", 54, 40, 50_000, 50_000, 1, 24, 0, 0, 0, 0, 0, 0),
        "huge.tiff": b"II*\0\x08\0\0\0\x02\0"
        + struct.pack("<HHIIHHII", 256, 4, 1, 50_000, 257, 4, 1, 50_000)
        + bytes(4),
    }[name]
    (tmp_path / "in" / name).write_bytes(hostile)
    code = "import re, sys; from ganrun import prepare; code = prepare.main(sys.argv[1:]); "
    # Not ru_maxrss, in which is what the process that runs the tests had.
    code += r"print(re.search(r'VmHWM:\s*(\d+)', open('/proc/self/status').read())[1]); sys.exit(code)"
    options = [f"folder:{tmp_path / 'in'}", str(tmp_path / "made"), "--size", "16", "--workers", "1"]
    said = subprocess.run([sys.executable, "-c", code, *options], capture_output=True, text=True, timeout=WAIT)
    assert said.returncode == 0, said.stderr
    assert name in said.stderr
    assert Index.from_json((tmp_path / "made" / "index.json").read_bytes(), "x").samples == 3
    assert 10_000 < int(said.stdout.split()[-1]) < 1_500_000  # KiB; decoded it would be 7 million.
