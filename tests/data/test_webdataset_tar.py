"""The same samples are read from a plain tar, in place, and from PAX and GNU tars, by webdataset."""

import io
import subprocess
import sys
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st
from webdataset import TarWriter
from webdataset.tariterators import group_by_keys, tar_file_expander

from ganrun.data.shard import read_samples, split_name
from ganrun.data.ustar import plain_members
from ganrun.data.webdataset_tar import tar_members
from ganrun.errors import UserError
from ganrun.preparation.pack import write_tar
from tests.data.test_any_tar import ENDINGS, GNU, PAX, TARS, members_of, plain, samples, tar_of
from tests.properties import examples
from tests.waiting import WAIT

STRANGERS = ["__meta__.json__", "__info__/a.png", "README", "dir/.hidden", "a folder/.png", "end.", "x/"]
"""Files that belong to no sample."""


def tar_with_strangers(members, dialect, sizes=False):
    """Write members with a folder, links and files that belong to no sample between them; `sizes`: also as PAX records,
    as files from 8 GiB have theirs.
    """
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=dialect, pax_headers={"comment": "é" * 5_000}) as tar:
        for number, (name, content) in enumerate(members):
            for kind in (tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE):
                stranger = tarfile.TarInfo(f"{number}.link.png")
                stranger.type, stranger.linkname = kind, name
                tar.addfile(stranger)
            for other in STRANGERS:
                tar.addfile(tarfile.TarInfo(other))
            member = tarfile.TarInfo(name)
            member.size = len(content)
            member.pax_headers = {"size": str(len(content))} if sizes else {}
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def written_by_webdataset(made, **options):
    buffer = io.BytesIO()
    with TarWriter(buffer, encoder=False, **options) as writer:
        for key, members in made:
            writer.write({"__key__": key, **members})
    return buffer.getvalue()


@examples(60)
@given(samples(), st.booleans())
def test_all_writers_and_dialects_give_the_same_samples(made, sizes):
    expected = [(key, dict(sorted(members.items()))) for key, members in made]
    members = members_of(expected)
    tars = [
        write_tar(expected)[0],
        tar_of(members, PAX, mtime=1.5),
        tar_of(members, GNU),
        tar_with_strangers(members, PAX, sizes),
        tar_with_strangers(members, GNU),
        written_by_webdataset(made),
        written_by_webdataset(made, mtime=0),
        written_by_webdataset(made, compress=True),
    ]
    assert [plain(read_samples(data, "x")) for data in tars] == [expected] * len(tars)


@examples(60)
@given(samples())
def test_webdatasets_own_pipeline_gives_the_same_samples(made):
    data = tar_of(members_of(made), PAX, mtime=1.5)
    files = tar_file_expander([{"url": "x", "stream": io.BytesIO(data)}])
    theirs = [
        (each.pop("__key__"), {key: each[key] for key in each if key != "__url__"}) for each in group_by_keys(files)
    ]
    # Its pattern of a key takes no line break in a folder and joins it with what follows.
    if not any("\n" in key for key, _ in made):
        assert plain(read_samples(data, "x")) == theirs


@examples(100)
@given(TARS)
def test_a_plain_tar_has_the_same_members_both_ways(tar):
    in_place = plain_members(tar.data)
    if in_place is not None:
        assert in_place == list(tar_members(tar.data, "x"))


NAMES = st.text("ab_./\néÀ", min_size=1, max_size=12).map(lambda name: name.rstrip("/") or "a") | st.sampled_from(
    STRANGERS
)


@examples(150)
@given(st.lists(NAMES, max_size=5, unique=True))
def test_any_names_are_grouped_the_same_both_ways(names):
    def outcome(data):
        try:
            return plain(read_samples(data, "x"))
        except UserError as error:
            return str(error)

    members = [(name, b"content") for name in names]
    assert outcome(tar_of(members)) == outcome(tar_of(members, PAX, mtime=1.5))


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("a.png", ("a", "png")),
        ("v1.0/a.seg.PNG", ("v1.0/a", "seg.png")),
        ("./a.cls", ("./a", "cls")),
        ("__a__.png", ("__a__", "png")),
        ("b/__a__/c.png", ("b/__a__/c", "png")),
        *((stranger, None) for stranger in [*STRANGERS, "__a__/b/c.png"]),
    ],
)
def test_the_key_is_the_path_up_to_the_first_dot_of_the_file_name(name, parts):
    assert (split_name(name) if all(split_name(name)) else None) == parts


@examples(30)
@given(st.binary(min_size=1, max_size=8).filter(lambda name: not set(b"\0./\n") & set(name)), ENDINGS)
def test_names_that_are_not_utf8_are_the_same_both_ways(stem, ending):
    name = (stem + b"." + ending.encode()).decode(errors="surrogateescape")
    data = tar_of([(name, b"x")], GNU)
    assert plain_members(data) == list(tar_members(data, "x"))
    [(key, _)] = read_samples(tar_of([("n" * 120 + name, b"x")], GNU), "x")
    assert key == "n" * 120 + stem.decode(errors="replace")


def test_webdataset_is_imported_when_a_pax_tar_is_read_and_not_before():
    code = (
        "import sys\n"
        "import ganrun.data.shard as shard\n"
        "tars = sys.stdin.buffer.read()\n"
        f"shard.read_samples(tars[:{tarfile.RECORDSIZE}], 'x')\n"
        "assert not {'torch', 'webdataset'} & sys.modules.keys()\n"
        "import ganrun.data.stream\n"
        "assert 'webdataset' not in sys.modules\n"
        f"shard.read_samples(tars[{tarfile.RECORDSIZE}:], 'x')\n"
        "assert 'webdataset' in sys.modules\n"
    )
    tars = tar_of([("a.png", b"x")]) + tar_of([("a.png", b"x")], PAX, mtime=1.5)
    done = subprocess.run([sys.executable, "-c", code], input=tars, capture_output=True, timeout=WAIT, check=False)
    assert done.returncode == 0, done.stderr
