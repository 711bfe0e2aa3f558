"""What holds of a shard whatever its members are called and hold: it is read as Python's tarfile and webdataset read
it, and what is cut off or changed is refused and never quietly fewer samples."""

import gzip
import hashlib
import io
import random
import re
import tarfile
from dataclasses import dataclass
from functools import cached_property

import pytest
from hypothesis import given
from hypothesis import strategies as st
from webdataset import TarWriter

from ganrun.data.index import Shard
from ganrun.data.shard import open_shard, read_samples
from ganrun.errors import UserError
from tests.properties import examples

USTAR, GNU, PAX = tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT
WORDS = st.text("abZ0 _-\né雪", min_size=1, max_size=4)
FOLDERS = st.lists(WORDS | st.sampled_from([".", "v1.0", "folder" * 9, "é" * 40]), max_size=4).map("/".join)
STEMS = st.builds(lambda folder, word: f"{folder}/{word}" if folder else word, FOLDERS, WORDS | st.just("n" * 97))
ENDINGS = st.sampled_from(["png", "PNG", "cls", "seg.png", "json", "é"])
BITS = st.integers(1, 255)
SIZES = st.sampled_from([0, 1, 511, 512, 513, 1024]) | st.integers(0, 1_500)


def tar_of(members, dialect=USTAR, mtime=0.0):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=dialect) as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size, member.mtime = len(content), mtime
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


NOISE, ZEROS, HEADERS = random.Random(0).randbytes(1_500), bytes(1_500), tar_of([("in.png", b"x")])[:1_500]
CONTENTS = st.builds(lambda kind, size: kind[:size], st.sampled_from([NOISE, ZEROS, HEADERS]), SIZES)
"""Among them what stands at the end of a tar, and at its beginning."""


@st.composite
def samples(draw, most=6):
    """Samples as webdataset has them: a key, and members by extension."""
    keys = draw(st.lists(STEMS, min_size=1, max_size=most, unique=True))
    members = st.dictionaries(ENDINGS.map(str.lower), CONTENTS, min_size=1, max_size=3)
    return [(key, draw(members)) for key in keys]


def members_of(samples):
    return [(f"{key}.{ending}", content) for key, members in samples for ending, content in members.items()]


def fits(members, dialect):
    """Whether tarfile has a way to write such long names."""
    try:
        tar_of(members, dialect)
    except ValueError:
        return False
    return True


def plain(found):
    return [(key, {ending: bytes(content) for ending, content in members.items()}) for key, members in found]


def read(data):
    """Return the samples of a tar; None if it is refused."""
    try:
        return plain(read_samples(data, "x"))
    except UserError:
        return None


def grouped(data):
    """The samples that Python's tarfile finds, put together by webdataset's rule; None if two members clash."""
    found = []
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        for member in tar:
            match = re.fullmatch(r"((?:.*/)?[^./]+)\.([^/]+)", member.name, re.DOTALL)
            if not match:
                continue
            key, ending = match[1], match[2].lower()
            if not found or found[-1][0] != key:
                found.append((key, {}))
            if ending in found[-1][1]:
                return None
            found[-1][1][ending] = tar.extractfile(member).read()
    return found if len({key for key, _ in found}) == len(found) else None


def record(data, samples):
    return Shard("0.tar", samples, len(data), hashlib.sha256(data).hexdigest())


def end_of(data):
    """Where the last member ends, in whole blocks, and the end mark begins."""
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        last = tar.getmembers()[-1]
    return last.offset_data + (last.size + 511) // 512 * 512


def places_of(data, first_and_last):
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {place for member in tar for place in range(*first_and_last(member))}


def long_names(data):
    """Bytes of records that name the member after them: no checksum covers these but the index's."""
    return places_of(data, lambda member: (member.offset + 512, member.offset_data - 512))


def contents(data):
    return places_of(data, lambda member: (member.offset_data, member.offset_data + member.size))


def flipped(data, place, bits):
    changed = bytearray(data)
    changed[place] ^= bits
    return bytes(changed)


def lengths(samples):
    return [(key, {ending: len(content) for ending, content in members.items()}) for key, members in samples]


@dataclass
class Tar:
    """Samples in a dialect that can hold their names."""

    samples: list
    dialect: int
    mtime: float

    @cached_property
    def data(self):
        members = members_of(self.samples)
        return tar_of(members, self.dialect if fits(members, self.dialect) else GNU, self.mtime)


TARS = st.builds(Tar, samples(), st.sampled_from([USTAR, GNU, PAX]), st.sampled_from([0.0, 1.5]))


@examples(100)
@given(TARS)
def test_a_tar_is_read_as_tarfile_reads_it(tar):
    assert read(tar.data) == grouped(tar.data) == tar.samples


@examples(40)
@given(samples(), st.booleans(), st.sampled_from([None, 0.0]))
def test_what_webdataset_writes_is_read(made, packed, mtime):
    buffer = io.BytesIO()
    with TarWriter(buffer, encoder=False, compress=packed, mtime=mtime) as writer:
        for key, members in made:
            writer.write({"__key__": key, **members})
    assert read(buffer.getvalue()) == [(key, dict(sorted(members.items()))) for key, members in made]


@examples(100)
@given(st.lists(st.tuples(st.sampled_from(["a.", "a.b.", "a/b.", "b.", ".", "c"]), ENDINGS, CONTENTS), max_size=6))
def test_members_in_any_order_make_samples_or_are_refused(members):
    data = tar_of([(stem + ending, content) for stem, ending, content in members])
    assert read(data) == grouped(data)


@examples(25)
@given(TARS, st.data())
def test_a_cut_is_refused_until_the_end_mark_is_there(tar, data):
    whole, made = tar.data, tar.samples
    end = end_of(whole)
    near = [block + shift for block in range(0, len(whole) + 1, 512) for shift in (-1, 0)]
    for size in [*near, *data.draw(st.lists(st.integers(0, len(whole)), max_size=8))]:
        if 0 <= size < len(whole):
            assert read(whole[:size]) == (made if size >= end + 512 else None)
            with pytest.raises(UserError, match="bytes, but the index says"):
                open_shard(whole[:size], record(whole, len(made)), "x")


@examples(60)
@given(TARS, st.data())
def test_a_changed_byte_is_refused_unless_all_members_keep_their_names_and_lengths(tar, data):
    whole, made = tar.data, tar.samples
    names, held = long_names(whole), contents(whole)
    places = st.integers(0, len(whole) - 1).filter(lambda place: place not in names)
    for place, bits in data.draw(st.lists(st.tuples(places, BITS), min_size=8, max_size=8)):
        changed = flipped(whole, place, bits)
        try:
            found = plain(read_samples(changed, "x"))
        except UserError:
            continue
        assert lengths(found) == lengths(made)
        assert found == made or place in held


@examples(20)
@given(TARS, st.data())
def test_the_index_tells_any_changed_byte(tar, data):
    whole, made = tar.data, tar.samples
    for place, bits in data.draw(st.lists(st.tuples(st.integers(0, len(whole) - 1), BITS), min_size=8, max_size=8)):
        with pytest.raises(UserError, match="sha256 "):
            open_shard(flipped(whole, place, bits), record(whole, len(made)), "x")


@examples(25)
@given(samples(), st.data())
def test_a_changed_byte_of_a_gzip_is_refused_or_does_not_matter(made, data):
    whole = gzip.compress(tar_of(members_of(made), GNU), mtime=0)
    for place, bits in data.draw(st.lists(st.tuples(st.integers(0, len(whole) - 1), BITS), min_size=8, max_size=8)):
        assert read(flipped(whole, place, bits)) in (None, made)
        assert read(whole[:place]) is None
