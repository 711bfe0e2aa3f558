"""Files from strangers: they end in one line, run no code, and take no more memory than they are worth."""

import io
import json
import os
import pickle
import resource
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save

from ganrun import evaluate, export, runs, sample, train
from ganrun.config.load import parse
from ganrun.data.index import Index, Shard, open_data
from ganrun.errors import RunError, UserError
from ganrun.models.extractors import inception_v3, torchscript
from ganrun.run_folder.run_folder import RunFolder
from ganrun.storage import TooLargeError, open_storage
from ganrun.training import checkpoint
from tests.conftest import config_of, write_data, write_yaml
from tests.ranks import run_folder, run_ranks
from tests.security.refused import refused

GIB = 2**30


class Hostile:
    """Unpickled, it leaves its mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


@pytest.fixture
def mark(tmp_path):
    """A path where nothing is, and nothing may be after the test."""
    path = tmp_path / "code-was-run"
    yield path
    assert not path.exists()


def pickled(mark: Path) -> bytes:
    return pickle.dumps(Hostile(mark))


def saved_by_torch(mark: Path) -> bytes:
    buffer = io.BytesIO()
    torch.save(Hostile(mark), buffer)
    return buffer.getvalue()


def test_the_pickle_of_these_tests_would_run(tmp_path):
    pickle.loads(pickled(tmp_path / "mark"))
    assert (tmp_path / "mark").exists()


# Pickles.


@pytest.fixture
def run(values, tmp_path):
    """The folder of a run with a checkpoint, and its config."""
    small = config_of(values, train__total_images=12, data__slots=1)
    run_ranks(small, 1, tmp_path / "unused")
    folder = run_folder(small)
    (folder / "config.yaml").write_text(small.to_yaml())
    return folder


def put(run: Path, file: str, data: bytes) -> None:
    """Puts a file into the newest checkpoint as its maker would: the manifest agrees."""
    directory = next((run / "checkpoints").iterdir())
    (directory / file).write_bytes(data)
    manifest = json.loads((directory / "manifest.json").read_text())
    manifest["files"][file] = {"bytes": len(data), "sha256": checkpoint._hash(data)}
    (directory / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize("hostile", [pickled, saved_by_torch])
@pytest.mark.parametrize("entry_point", [sample, export, evaluate])
def test_a_pickle_for_weights_is_refused(run, mark, hostile, entry_point, tmp_path, capsys):
    put(run, "generator_ema.safetensors", hostile(mark))
    out = {sample: ["--out", str(tmp_path / "a.png")], export: ["--out", str(tmp_path / "a.safetensors")]}.get(
        entry_point, []
    )
    assert entry_point.main([str(run), *out]) == 1
    error = capsys.readouterr().err
    assert "generator_ema.safetensors is corrupt: it is no whole safetensors file" in error
    assert "Traceback" not in error


@pytest.mark.parametrize("hostile", [pickled, saved_by_torch])
def test_a_pickle_is_not_resumed_from(run, values, mark, hostile, tmp_path):
    put(run, "optimizer_generator.safetensors", hostile(mark))
    with pytest.raises(RunError, match=r"optimizer_generator\.safetensors is corrupt: it is no whole safetensors file"):
        run_ranks(config_of(values, train__total_images=24, data__slots=1), 1, tmp_path / "unused")


@pytest.mark.parametrize("hostile", [pickled, saved_by_torch])
def test_a_pickle_for_an_extractor_is_refused(mark, hostile, tmp_path):
    (tmp_path / "x.pt").write_bytes(hostile(mark))
    with pytest.raises(UserError, match="is corrupt or no TorchScript program"):
        torchscript(str(tmp_path / "x.pt"))
    with pytest.raises(UserError, match="is corrupt or no file of tensors"):
        inception_v3(str(tmp_path / "x.pt"))


def test_a_pickle_for_a_vector_is_refused(mark):
    array = np.empty(1, object)
    array[0] = Hostile(mark)
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    refused("npy", buffer.getvalue(), "vector")


# YAML.


@pytest.mark.parametrize(
    "tag",
    ["!!python/object/apply:os.mkdir [{mark}]", "!!python/object/new:os.mkdir [{mark}]", "!!python/name:os.mkdir"],
)
def test_tags_are_refused(tag, mark, run, values, tmp_path, capsys):
    hostile = f"run: {{name: {tag.format(mark=mark)}}}\n"
    (tmp_path / "bad.yaml").write_text(hostile)
    assert train.main([str(tmp_path / "bad.yaml"), "--dry-run"]) == 2
    good = write_yaml(tmp_path / "good.yaml", values)
    assert train.main([str(good), f"run.name={tag.format(mark=mark)}", "--dry-run"]) == 2
    put(run, "config.yaml", hostile.encode())
    assert sample.main([str(run), "--out", str(tmp_path / "a.png")]) == 1
    (run / "config.yaml").write_text(hostile)
    assert runs.main(["show", str(run)]) == 1
    assert "Traceback" not in capsys.readouterr().err


LAUGHS = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 30))
DOUBLES = "run:\n  name: x\n  a0: x\n" + "".join(f"  a{n}: {f'${{run.a{n - 1}}}' * 9}\n" for n in range(1, 30))


@pytest.mark.parametrize(
    "hostile", [LAUGHS, DOUBLES, "[" * 100_000, "a: &a [*a]"], ids=["aliases", "${}", "deep", "ring"]
)
def test_what_unfolds_without_end_is_refused(hostile, run, tmp_path, capsys):
    (tmp_path / "bad.yaml").write_text(hostile)
    begun = time.process_time()
    assert train.main([str(tmp_path / "bad.yaml"), "--dry-run"]) == 2
    (run / "config.yaml").write_text(hostile)
    assert runs.main(["show", str(run)]) in (1, 2)
    with pytest.raises(RunError, match="is corrupt"):
        parse(hostile.encode(), "config.yaml")
    assert time.process_time() - begun < 20  # It would be centuries.
    assert "Traceback" not in capsys.readouterr().err


def test_a_secret_of_the_environment_is_no_value(values, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "marked-secret")
    good = write_yaml(tmp_path / "good.yaml", values)
    for nested in ("${oc.env:AWS_SECRET_ACCESS_KEY}", "${oc.env:AWS_${oc.env:UNSET,SECRET}_ACCESS_KEY}"):
        assert train.main([str(good), f"run.name={nested}", "--dry-run"]) in (0, 2)
        assert train.main([str(good), f"run.name={nested}", "--validate"]) == 2
    said = capsys.readouterr()
    assert "the name of a secret" in said.err
    assert "marked-secret" not in said.err + said.out


# Records of a GB.


def grow(path: Path, begin: bytes = b'{"format": 1, "x": "') -> None:
    """A GiB that takes no room on the disk."""
    with path.open("wb") as file:
        file.write(begin)
        file.truncate(GIB)


@pytest.fixture
def _little_memory():
    """A GiB more than there is now, and any test fails that reads one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + GIB // 2, hard))
    yield
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@pytest.mark.usefixtures("_little_memory")
def test_records_of_a_gb_are_not_read(run, values, tmp_path, capsys):
    directory = next((run / "checkpoints").iterdir())
    for file in (run / "latest.json", directory / "manifest.json", directory / "generator_ema.safetensors"):
        before = file.read_bytes()
        grow(file)
        assert sample.main([str(run), "--out", str(tmp_path / "a.png")]) == 1
        file.write_bytes(before)
    grow(run / "lease.json")
    assert runs.main(["show", str(run)]) == 1
    (run / "lease.json").unlink()
    grow(run / "config.yaml", b"run: {name: ")
    assert runs.main(["show", str(run)]) == 1
    data = write_data(tmp_path / "data", sizes=(3,))
    grow(data / "index.json")
    values["data"]["shards"] = str(data)
    assert train.main([str(write_yaml(tmp_path / "x.yaml", values)), "--validate"]) == 2
    error = capsys.readouterr().err
    assert error.count("1,073,741,824 bytes, at most") + error.count("File too large") == 6
    assert "Traceback" not in error


@pytest.mark.usefixtures("_little_memory")
def test_a_shard_of_a_gb_is_not_read(tmp_path):
    from ganrun.data.fetch import Fetcher

    data = write_data(tmp_path / "data", sizes=(3,))
    grow(data / "000000.tar")
    with pytest.raises(UserError, match=r"000000\.tar: 1073741824 bytes, but the index says"):
        Fetcher(open_data(str(data))).fetch(0)


def test_a_record_in_a_bucket_is_bounded(s3):
    storage = open_storage(s3)
    storage.write("latest.json", bytes(16 * 2**20 + 1))
    with pytest.raises(TooLargeError, match="16,777,217 bytes, at most 16,777,216 are allowed"):
        RunFolder(storage).pointer("latest")


@pytest.mark.parametrize("deep", ["[" * 100_000, '{"a":' * 100_000])
def test_json_too_deep_to_parse(run, deep, capsys, tmp_path):
    with pytest.raises(UserError, match="not a valid index"):
        Index.from_json(deep.encode(), "index.json")
    (run / "latest.json").write_text(deep)
    (run / "events" / "0001.jsonl").write_text(deep)
    assert sample.main([str(run), "--out", str(tmp_path / "a.png")]) == 1
    assert "Traceback" not in capsys.readouterr().err
    refused("json", deep.encode(), "vector")


def test_endless_files_are_not_opened(run, tmp_path, capsys):
    (run / "config.yaml").unlink()
    (run / "config.yaml").symlink_to("/dev/zero")
    assert runs.main(["show", str(run)]) == 2
    (run / "config.yaml").unlink()
    os.mkfifo(run / "config.yaml")
    assert runs.main(["show", str(run)]) == 2
    assert "is not a regular file" in capsys.readouterr().err


def test_names_do_not_lead_out_of_their_folder(run, tmp_path, capsys):
    (tmp_path / "other").write_bytes(b"x")
    with pytest.raises(PermissionError, match="is outside its folder"):
        open_storage(str(run)).read("../other")
    directory = next((run / "checkpoints").iterdir())
    manifest = json.loads((directory / "manifest.json").read_text())
    manifest["files"]["../../../../other"] = {"bytes": 1, "sha256": checkpoint._hash(b"x")}
    (directory / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(RunError, match="no name of a file"):
        checkpoint.read(open_storage(str(run)), f"checkpoints/{directory.name}")
    for checkpoint_name in ("../../x", "/etc"):
        (run / "latest.json").write_text(json.dumps({"checkpoint": checkpoint_name, "images": 1, "attempt": 1}))
        assert sample.main([str(run), "--out", str(tmp_path / "a.png")]) == 1
    for name in ("../x.tar", "/etc/x.tar", "a/../../x.tar", "\x1b[2Jx.tar"):
        with pytest.raises(UserError, match="not a valid shard name"):
            Index.from_json(Index(8, 1, (), (Shard(name, 1, 512, ""),)).to_json(), "index.json")
    for samples in (-1, 10**12, True, "9"):
        with pytest.raises(UserError, match="not a valid index"):
            Index.from_json(Index(8, 1, (), (Shard("x.tar", samples, 512, ""), Shard("y", 1, 1, ""))).to_json(), "i")


def test_a_network_of_other_shapes_is_told_from_a_corrupt_one(run, values, tmp_path, capsys):
    from ganrun.games.build import build_game

    other = build_game(config_of(values, model__width=8), torch.device("cpu")).networks["generator"]
    tensors = {name: tensor.contiguous() for name, tensor in other.state_dict().items()}
    put(run, "generator_ema.safetensors", save(tensors))
    assert sample.main([str(run), "--out", str(tmp_path / "a.png")]) == 1
    error = capsys.readouterr().err
    assert "generator_ema.safetensors is of another network than its config.yaml describes: " in error
    assert "layers.0.weight is [8, 16, 4, 4], not [8, 8, 4, 4]" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    "text", ["{", "[]", "3", "{}", '{"format": 2, "images": 1, "files": []}', '{"format": 2, "files": {}}']
)
def test_a_manifest_that_is_corrupt_is_named(run, text, tmp_path, capsys):
    (directory,) = (run / "checkpoints").iterdir()
    (directory / "manifest.json").write_text(text)
    for entry_point, out in ((sample, ["--out", str(tmp_path / "a.png")]), (evaluate, [])):
        assert entry_point.main([str(run), *out]) == 1
        error = capsys.readouterr().err
        assert "manifest.json is corrupt: " in error
        assert "; restore it from a backup, or use another checkpoint" in error
        assert error.count("\n") == 1
