"""`index.json` and what `data.shards` can name."""

import json
from pathlib import Path

import pytest

from ganrun.data.index import Index, Shard, open_data
from ganrun.data.shard import open_shard
from ganrun.errors import UserError


def index_of(*names: str, size: int = 8) -> Index:
    return Index(size, 3, ("cat", "dog"), tuple(Shard(name, 5, 10, "0" * 64) for name in names), {"by": "hand"})


def place(root: Path, *names: str, size: int = 8) -> Path:
    root.mkdir()
    for name in names:
        (root / name).write_bytes(name.encode())
    (root / "index.json").write_bytes(index_of(*names, size=size).to_json())
    return root


def test_json_and_back() -> None:
    index = index_of("0.tar", "1.tar")
    assert Index.from_json(index.to_json(), "x") == index
    assert index.samples == 10
    assert json.loads(index.to_json())["format"] == 1


def changed(**fields: object) -> bytes:
    content = {**json.loads(index_of("0.tar").to_json()), **fields}
    return json.dumps({key: value for key, value in content.items() if value is not None}).encode()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{",
        b"\xff",
        changed(format=2),
        changed(format=None),
        changed(shards=None),
        changed(shards=[{"name": "0.tar"}]),
        changed(image_size=None),
        changed(unknown=1),
        changed(shards=[]),
    ],
)
def test_what_is_no_index_is_refused(data: bytes) -> None:
    with pytest.raises(UserError, match=r"here/index.json: .*ganrun.prepare"):
        Index.from_json(data, "here/index.json")


def test_ways_to_name_shards(tmp_path: Path) -> None:
    root = place(tmp_path / "a", "s-0.tar", "s-1.tar", "s-2.tar.gz")
    whole = ["s-0.tar", "s-1.tar", "s-2.tar.gz"]
    for shards, expected in (
        (str(root), whole),
        (f"{root}/", whole),
        (f"file://{root}", whole),
        (f"{root}/s-{{0..1}}.tar", whole[:2]),
        (f"{root}/*.tar", whole[:2]),
        (f"{root}/s-2.tar.gz", whole[2:]),
        ([f"{root}/s-1.tar", f"{root}/s-0.tar"], ["s-1.tar", "s-0.tar"]),
    ):
        data = open_data(shards)  # type: ignore[arg-type]
        assert [shard.name for shard in data.index.shards] == expected, shards
        assert data.read(0) == expected[0].encode()
        assert data.where(0) == f"{root}/{expected[0]}"


@pytest.mark.parametrize("name", ["set [1]", "a{b", "a}b", "{0..1}", "a\\b", "*", "?", "x.tar", "~nobody-of-this-name"])
def test_a_place_that_exists_is_taken_as_it_is(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    place(Path(name), "s-0.tar", "s-1.tar", "[s].tar")
    for shards, expected in (
        (name, ["s-0.tar", "s-1.tar", "[s].tar"]),
        (f"{tmp_path}/{name}/", ["s-0.tar", "s-1.tar", "[s].tar"]),
        (f"file://{tmp_path}/{name}", ["s-0.tar", "s-1.tar", "[s].tar"]),
        (f"{name}/[s].tar", ["[s].tar"]),
        (f"{name}/s-{{0..1}}.tar", ["s-0.tar", "s-1.tar"]),
        (f"{tmp_path}/{name}/s-*.tar", ["s-0.tar", "s-1.tar"]),
    ):
        assert [shard.name for shard in open_data(shards).index.shards] == expected, shards


def test_two_data_sets_become_one_if_they_are_alike(tmp_path: Path) -> None:
    parts = [str(place(tmp_path / name, f"{name}.tar")) for name in "ab"]
    data = open_data(parts)
    assert data.index.samples == 10
    assert [data.read(number) for number in range(2)] == [b"a.tar", b"b.tar"]
    with pytest.raises(UserError, match="parts of different image size"):
        open_data([*parts, str(place(tmp_path / "c", "c.tar", size=16))])


@pytest.mark.parametrize(
    ("shards", "message"),
    [
        ("{}/none", "no shards and no index.*ganrun prepare"),
        ("{}/bare", "1 shards but no index.json; index them: ganrun prepare shards:"),
        ("{}/bare/*.tgz", "no file matches"),
        ("{}/good/other.tar", "is not in"),
        ("package:mnist", "ganrun carries fashion-mnist-10k"),
        ("ftp://host/data", "unsupported storage"),
        ([], "names no shard"),
        ("{}/good/{0..1", "does not exist, and has unbalanced braces; correct the path or the range"),
    ],
)
def test_wrong_names(tmp_path: Path, shards: str | list[str], message: str) -> None:
    place(tmp_path / "bare", "0.tar")
    (tmp_path / "bare" / "index.json").unlink()
    place(tmp_path / "good", "0.tar")
    with pytest.raises(UserError, match=message):
        open_data(shards.replace("{}", str(tmp_path)) if isinstance(shards, str) else shards)


def test_the_data_set_that_travels() -> None:
    data = open_data("package:fashion-mnist-10k")
    index = data.index
    assert (index.samples, index.image_size, index.channels, len(index.classes)) == (10_000, 32, 1, 10)
    assert len(index.shards) == 8
    assert sum(shard.bytes for shard in index.shards) < 15 << 20
    samples = open_shard(data.read(0), index.shards[0], data.where(0))
    assert set(samples[0][1]) == {"png", "cls"}
    assert "Zalando" in (Path(data.places[0].uri) / "LICENSE").read_text()
