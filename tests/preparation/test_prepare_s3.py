"""`ganrun prepare` with buckets of a real server: the same bytes as with folders."""

import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from ganrun.data.index import Index
from ganrun.preparation import folder as module
from ganrun.preparation.folder import open_folder
from ganrun.prepare import main
from ganrun.storage import open_storage
from ganrun.storage.s3 import S3
from tests.preparation.making import bytes_of, folder_of, prepare
from tests.s3 import Server
from tests.storage.proxy import Fault, proxied
from tests.waiting import until


def put(folder: Path, uri: str) -> str:
    """Copies a folder into the bucket."""
    place = open_storage(uri)
    for file in folder.rglob("*"):
        if file.is_file():
            place.write(file.relative_to(folder).as_posix(), file.read_bytes())
    return uri


def objects_of(uri: str) -> dict[str, bytes]:
    place = open_storage(uri)
    return {name: place.read(name) for name in place.objects()}


def test_to_and_from_a_bucket_gives_the_bytes_of_a_folder(
    tmp_path: Path, s3: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures = folder_of(tmp_path / "in", 20)
    (pictures / "cat" / ".hidden.png").write_bytes(b"")
    (pictures / "notes.txt").write_text("no picture")
    options = ["--size", "6", "--shard-samples", "5", "--workers", "2", "--verify"]
    assert main([f"folder:{pictures}", str(tmp_path / "out"), *options]) == 0
    wanted = bytes_of(tmp_path / "out")
    assert main([f"folder:{pictures}", f"{s3}/out", *options]) == 0
    assert objects_of(f"{s3}/out") == wanted
    assert capsys.readouterr().out.splitlines()[-1] == f"{s3}/out"
    assert main([f"folder:{put(pictures, f'{s3}/in')}/", f"{s3}/again", *options]) == 0
    again = objects_of(f"{s3}/again")
    made, made_again = (json.loads(objects.pop("index.json")) for objects in (wanted, again))
    del made["made"]["content"], made_again["made"]["content"]  # A bucket has times of its own.
    assert (again, made_again) == (wanted, made)
    assert main([f"folder:{s3}/in", f"{s3}/again", *options]) == 0  # It is there already.


def test_pairs_in_a_bucket_give_the_bytes_of_pairs_in_folders(tmp_path: Path, s3: str) -> None:
    roots = [folder_of(tmp_path / name, 6) for name in ("a", "b")]
    (roots[1] / "cat" / "000.png").unlink()
    uris = [put(root, f"{s3}/{root.name}") for root in roots]
    for (first, second), dest in ((roots, tmp_path / "out"), (uris, f"{s3}/out")):
        assert prepare(f"pairs:{first},{second}", dest, "--size", 6) == 0
    wanted, found = bytes_of(tmp_path / "out"), objects_of(f"{s3}/out")
    assert found.pop("skipped.txt") == f"{s3}/a/cat/000.png: no partner in {s3}/b\n".encode()
    assert wanted.pop("skipped.txt") == f"{roots[0]}/cat/000.png: no partner in {roots[1]}\n".encode()
    index, index_found = (Index.from_json(files.pop("index.json"), "") for files in (wanted, found))
    assert (found, index_found.shards, index_found.pictures) == (wanted, index.shards, index.pictures)


def test_shards_are_indexed_where_they_are_copied_and_checked(tmp_path: Path, s3: str) -> None:
    assert prepare(f"folder:{folder_of(tmp_path / 'in', 20)}", tmp_path / "made", "--shard-samples", 10) == 0
    for name in ("index.json", "preview.png"):
        (tmp_path / "made" / name).unlink()
    uri = put(tmp_path / "made", f"{s3}/made")
    assert prepare(f"shards:{tmp_path / 'made'}") == 0
    wanted = bytes_of(tmp_path / "made")
    assert main([f"shards:{uri}", "--workers", "2"]) == 0
    assert objects_of(uri) == wanted
    assert prepare(f"shards:{uri}", "--verify") == 0
    assert prepare(f"shards:{uri}", f"{s3}/grey", "--channels", 1) == 0
    assert prepare(f"shards:{uri}", tmp_path / "grey") == 0
    assert prepare(f"shards:{s3}/grey", tmp_path / "back") == 0
    open_storage(uri).write("shard-000001.tar", wanted["shard-000000.tar"])
    assert prepare(f"shards:{uri}", "--verify") == 2


def test_a_killed_command_goes_on(tmp_path: Path, s3: str, s3_server: Server) -> None:
    written: list[str] = []

    def hold(request: str) -> None:
        """The server takes some shards, and answers nothing to the next one."""
        if request.startswith("PUT") and ".tar" in request:
            written.append(request)
            if len(written) > 5:
                threading.Event().wait()

    pictures = folder_of(tmp_path / "in", 40)
    arguments = [f"folder:{pictures}", s3, "--shard-samples", "1", "--workers", "1"]
    place, command = open_storage(s3), [sys.executable, "-m", "ganrun.prepare", *arguments]
    with proxied(s3_server.ports["s3"]) as proxy:
        proxy.on_request = hold
        environment = os.environ | {"AWS_ENDPOINT_URL": proxy.url}
        killed = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
        until(lambda: len(written) > 5 or killed.poll() is not None)
        assert killed.poll() is None
        killed.kill()
        killed.wait()
    assert {"unfinished.json"} <= set(place.list()) < {*place.list(), "index.json"}
    done = {name: entry for name, entry in place.objects().items() if name.endswith(".tar")}
    assert 0 < len(done) < 40
    assert main(arguments) == 0
    after = place.objects()
    # The last one may have been written, and not yet noted.
    assert sum(after[name] == entry for name, entry in done.items()) >= len(done) - 1
    assert prepare(f"folder:{pictures}", tmp_path / "out", "--shard-samples", 1) == 0
    assert objects_of(s3) == bytes_of(tmp_path / "out")


def test_no_more_pictures_are_fetched_than_are_worked_on(
    tmp_path: Path, s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "AHEAD", 4)
    source = open_folder(put(folder_of(tmp_path / "in", 20), s3), None, None)
    fetched: list[str] = []
    read = S3.read
    monkeypatch.setattr(S3, "read", lambda self, name: fetched.append(name) or read(self, name))
    for taken, _ in enumerate(source.items(source.parts(20, 1)[0]), 1):
        assert taken <= len(fetched) < taken + 4
    assert len(fetched) == 20


@pytest.mark.parametrize("dest", ["photos", "photos/", "photos/in/it"])
def test_a_dest_inside_the_source_is_refused(s3: str, capsys: pytest.CaptureFixture[str], dest: str) -> None:
    assert prepare(f"folder:{s3}/photos", f"{s3}/{dest}") == 2
    assert f"DEST {s3}/{dest}: is inside SOURCE {s3}/photos" in capsys.readouterr().err


def test_a_bucket_is_no_path(
    tmp_path: Path, s3: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither lies in the working directory, nor do two whose names begin alike lie in each other."""
    pictures = folder_of(tmp_path / "in", 4)
    monkeypatch.chdir(pictures)
    assert prepare("folder:.", f"{s3}/photos") == 0
    assert prepare(f"shards:{s3}/photos", f"{s3}/photos2") == 0
    assert prepare(f"folder:{pictures}", f"file://{pictures}/out") == 2
    assert "is inside SOURCE" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["folder:{s3}/none", "out"], r"folder:s3://.*/none: no images;"),
        (["shards:{s3}/none"], r"shards:s3://.*/none: no \*\.tar"),
        (["shards:s3://nowhere/x"], r"shards:s3://nowhere/x: no such bucket: 'nowhere'; give"),
        (["folder:s3://nowhere/x", "out"], r"s3://nowhere/x: no such bucket: 'nowhere'"),
        (["folder:{tmp}/in", "s3://nowhere/x"], r"DEST: cannot write to s3://nowhere/x \(no such bucket"),
    ],
)
def test_what_is_not_there(
    tmp_path: Path,
    s3: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    reason: str,
) -> None:
    folder_of(tmp_path / "in", 2)
    monkeypatch.chdir(tmp_path)
    assert prepare(*(argument.format(s3=s3, tmp=tmp_path) for argument in arguments)) != 0
    (line,) = capsys.readouterr().err.splitlines()
    assert re.match(f"ganrun: {reason}", line)


def test_a_refusal_half_way_names_the_object(
    tmp_path: Path, s3: str, s3_server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures = folder_of(tmp_path / "in", 20)
    with proxied(s3_server.ports["s3"]) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        monkeypatch.setattr("ganrun.storage.s3_client._filesystems", {})
        proxy.faults = [Fault(403, r"PUT .*shard-000002\.tar"), Fault(503, r"PUT .*shard-000003\.tar", times=2)]
        arguments = [f"folder:{pictures}", s3, "--shard-samples", 5]
        assert prepare(*arguments) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert line == (
            f"ganrun: {s3}/shard-000002.tar: access denied (AccessDenied); fix it and run the same command to continue"
        )
        assert prepare(*arguments) == 0
    assert open_storage(s3).list()[:2] == ["index.json", "preview.png"]
