"""Commands on runs and data in a bucket of a real server: the same output as for a folder."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ganrun import export, prepare, runs, sample, train
from ganrun.storage import open_storage
from tests.conftest import config_of, write_yaml
from tests.ranks import latest_tensors, run_ranks
from tests.run_folder.making import SAVED, TOTAL, make_runs
from tests.s3 import BUCKET
from tests.storage.making import policy_without
from tests.test_documents import blocks

PAGE = "object-storage.md"


def put(folder, uri):
    """Copies a folder into the bucket."""
    place = open_storage(uri)
    for file in Path(folder).rglob("*"):
        if file.is_file() and not file.name.startswith("."):
            place.write(file.relative_to(folder).as_posix(), file.read_bytes())
    return uri


@pytest.fixture(scope="module")
def made(data_folder):
    return make_runs(data_folder)


@pytest.fixture
def storage(made, s3):
    """All four runs, and what is none."""
    open_storage(s3).write("runs/notes.txt", b"mine")
    return put(made, f"{s3}/runs")


@pytest.fixture
def call(capsys):
    """Exit code, stdout, stderr of a command."""

    def call(entry_point, *arguments):
        code = entry_point.main([str(argument) for argument in arguments])
        return code, *capsys.readouterr()

    return call


def write_lease(run, seconds):
    place = open_storage(run)
    lease = {"id": "x", "holder": "process 7 on far", "expires": place.now() + seconds}
    place.write("lease.json", json.dumps(lease).encode())


# Runs.


def test_runs_are_listed_and_shown_as_those_of_a_folder(call, storage, made):
    code, output, error = call(runs, "list", storage, "--json")
    assert (code, error) == (0, "")
    here = {run["name"]: run for run in json.loads(call(runs, "list", made, "--json")[1])["runs"]}
    there = {run["name"]: run for run in json.loads(output)["runs"]}
    assert there.keys() == here.keys() - {"new"} == {"finished", "resumed", "crashed"}
    for name, run in there.items():
        assert run["place"] == f"{storage}/{name}"
        for key in ("state", "images", "attempts", "best_score", "images_per_second", "active"):
            assert run[key] == here[name][key]
    assert call(runs, "list", storage)[1].split()[0] == "NAME"
    output = call(runs, "show", f"{storage}/crashed/")[1]
    assert output.startswith(f"crashed: failed, {SAVED} of {TOTAL} images (40 %)")
    assert f"ganrun train {storage}/crashed/config.yaml run.storage={storage} run.name=crashed" in output


def test_a_curve_is_merged_and_plotted(call, storage, made, tmp_path):
    code, output, error = call(runs, "curve", f"{storage}/resumed")
    assert (code, output, error) == call(runs, "curve", made / "resumed")
    assert call(runs, "curve", f"{storage}/resumed", "--plot", tmp_path / "a.png")[0] == 0
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_what_is_no_run_is_refused(call, storage, s3):
    for place in (s3, f"{storage}/notes.txt", f"{storage}/typo"):
        for verb in ("show", "curve", "delete"):
            code, output, error = call(runs, verb, place)
            assert (code, output) == (2, "")
            assert f"{place} is no run" in error
    assert call(runs, "list", f"{s3}/typo") == (0, "", f"{s3}/typo: no runs\n")
    assert "it is a run itself" in call(runs, "list", f"{storage}/finished")[2]


def test_a_deletion_leaves_nothing_but_what_is_not_ganruns(call, storage):
    run = open_storage(f"{storage}/finished")
    run.write("mine/notes.txt", b"mine")
    code, output, error = call(runs, "delete", f"{storage}/finished", "--yes")
    assert (code, output.startswith(f"deleted {storage}/finished, ")) == (0, True)
    assert "not written by ganrun: mine" in error
    assert list(run.objects()) == ["mine/notes.txt"]
    # config.yaml goes last; without it there is no run to delete.
    assert call(runs, "delete", f"{storage}/resumed", "--yes")[0] == 0
    assert not open_storage(f"{storage}/resumed").objects()
    assert open_storage(storage).list() == ["crashed", "finished", "new", "notes.txt"]


def test_a_live_run_is_not_deleted(call, storage):
    write_lease(f"{storage}/finished", 50)
    code, _, error = call(runs, "delete", f"{storage}/finished", "--yes")
    assert code == 1
    assert "process 7 on far holds its lease until" in error
    assert call(runs, "list", storage)[1].split().count("running") == 1
    write_lease(f"{storage}/finished", -1)
    assert call(runs, "delete", f"{storage}/finished", "--yes")[0] == 0


def test_orphans_are_listed_and_deleted(call, storage):
    run = open_storage(f"{storage}/finished")
    run.write(f"checkpoints/{TOTAL:012d}-0009/generator.safetensors", bytes(2048))
    run.write(".ray/x", b"1")
    whole = f"checkpoints/{2 * TOTAL:012d}-0009"
    for file in ("manifest.json", "state.json"):
        run.write(f"{whole}/{file}", b"{}")
    lines = call(runs, "gc", storage)[1].splitlines()
    assert [line.split()[0].removeprefix(f"{storage}/finished/") for line in lines[:3]] == [
        f"checkpoints/{TOTAL:012d}-0009",
        whole,
        ".ray",
    ]
    assert lines[3].startswith("3 orphans")
    before = set(run.objects())
    assert call(runs, "gc", storage, "--yes")[1].splitlines()[-1].endswith("deleted")
    assert len(before - set(run.objects())) == 4
    assert call(runs, "gc", f"{storage}/finished")[1] == "no orphans\n"


def test_a_bucket_that_is_not_there(call, s3):
    for entry_point, arguments in (
        (runs, ["list", "s3://nowhere/runs"]),
        (runs, ["show", "s3://nowhere/runs/a"]),
        (runs, ["gc", "s3://nowhere/runs"]),
        (sample, ["s3://nowhere/runs/a", "--out", "a.png"]),
        (export, ["s3://nowhere/runs/a", "--out", "a.pt2"]),
        (train, ["s3://nowhere/runs/a/config.yaml"]),
    ):
        code, output, error = call(entry_point, *arguments)
        assert code
        assert not output
        assert error.startswith("ganrun: s3://nowhere/runs")
        assert error.endswith("no such bucket: 'nowhere'\n")


# Models.


def test_pictures_and_programs_are_those_of_the_run_in_a_folder(call, storage, made, tmp_path):
    for entry_point, file in ((sample, "a.png"), (export, "a.safetensors")):
        for place, name in ((made, "here"), (storage, "there")):
            out = tmp_path / name / file
            out.parent.mkdir(exist_ok=True)
            assert call(entry_point, f"{place}/finished", "--out", out) == (0, f"{out}\n", "")
    assert (tmp_path / "here/a.png").read_bytes() == (tmp_path / "there/a.png").read_bytes()
    here, there = (load_file(tmp_path / name / "a.safetensors") for name in ("here", "there"))
    torch.testing.assert_close(here, there, rtol=0, atol=0)
    out = tmp_path / "old.png"
    assert call(sample, f"{storage}/finished/checkpoints/{SAVED:012d}-0001", "--out", out)[0] == 0
    assert out.read_bytes() != (tmp_path / "here/a.png").read_bytes()


def test_a_corrupt_checkpoint_is_named(call, storage, tmp_path):
    run = open_storage(f"{storage}/finished")
    file = f"checkpoints/{TOTAL:012d}-0001/generator_ema.safetensors"
    run.write(file, run.read(file)[:-1] + b"?")
    code, _, error = call(sample, f"{storage}/finished", "--out", tmp_path / "a.png")
    fault = f"{storage}/finished/{file} is corrupt: its sha256 is not the manifest's"
    assert (code, error) == (1, f"ganrun: {fault}; restore it from a backup, or use another checkpoint\n")
    run.delete(file)
    error = call(sample, f"{storage}/finished", "--out", tmp_path / "a.png")[2]
    assert "is not complete: generator_ema.safetensors is missing" in error


def test_a_run_begins_with_the_weights_of_one_in_a_bucket(storage, values, tmp_path, made):
    still = {"generator": {"learning_rate": 1e-15}, "discriminator": {"learning_rate": 1e-15}}
    source = f"{storage}/finished"
    config = config_of(values | {"optimizer": still}, run__start_from=source, train__total_images=12, data__slots=2)
    run_ranks(config, 1, tmp_path / "unused")
    mine = latest_tensors(config)
    theirs = latest_tensors(config_of(values, run__name="finished", run__storage=str(made)))
    weights = [name for name, tensor in theirs.items() if name.startswith("generator/") and tensor.dim() == 4]
    assert weights
    for name in weights:
        torch.testing.assert_close(mine[name], theirs[name], rtol=0, atol=1e-12)


# What is checked before a run.


@pytest.fixture
def config(values, data_folder, s3, tmp_path):
    values["data"]["shards"] = put(data_folder, f"{s3}/data")
    values["run"]["storage"] = f"{s3}/runs"
    return write_yaml(tmp_path / "run.yaml", values)


def validate(call, config, *overrides):
    return call(train, config, "--validate", *overrides)


@pytest.mark.parametrize(
    "shards",
    ["data", "data/{000000..000004}.tar", "data/*.tar", "d?ta/0000*[0-2].tar"],
    ids=["prefix", "braces", "glob", "globs"],
)
def test_data_may_be_named_in_any_way(call, config, s3, shards):
    code, _, error = validate(call, config, f"data.shards={s3}/{shards}")
    assert (code, error) == (0, "")


@pytest.mark.parametrize(
    ("shards", "reason"),
    [
        ("/data/*.zip", "no file matches"),
        ("/data/{000003..000009}.tar", "000005.tar' is not in s3://"),
        ("/typo", "holds no shards and no index, or is not there"),
        ("/gone", "000001.tar: the index names this shard, but it does not exist"),
    ],
    ids=["glob", "braces", "prefix", "shard"],
)
def test_data_that_is_not_there_is_named(call, config, s3, data_folder, tmp_path, shards, reason):
    if shards == "/gone":
        shutil.copytree(data_folder, tmp_path / "gone")
        (tmp_path / "gone" / "000001.tar").unlink()
        put(tmp_path / "gone", f"{s3}/gone")
    code, _, error = validate(call, config, f"data.shards={s3}{shards}")
    assert (code, len(error.splitlines())) == (2, 1)
    assert reason in error


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        (["read from"], "data.shards: cannot read {s3}/data/index.json: access denied (AccessDenied)"),
        (["write to", "delete in"], "run.storage: cannot write to, delete in {s3}/runs (access denied (AccessDenied))"),
    ],
)
def test_missing_rights_are_named(call, config, s3, s3_server, monkeypatch, missing, said):
    monkeypatch.setattr("ganrun.storage.s3_client._filesystems", {})
    for name, value in s3_server.user(policy_without(missing)).items():
        monkeypatch.setenv(name, value)
    code, _, error = validate(call, config)
    assert code == 2
    assert said.format(s3=s3) in error
    assert not {line for line in error.splitlines() if "Traceback" in line}


def test_the_policy_of_the_documents_is_enough(call, config, s3, s3_server, monkeypatch, tmp_path):
    """For all that a run asks of the storage, and to prepare data; and the rule for cut-off uploads is one."""
    policy, rule = (json.loads(block.replace("s3:::ganrun", f"s3:::{BUCKET}")) for block in blocks(PAGE, "json"))
    monkeypatch.setattr("ganrun.storage.s3_client._filesystems", {})
    for name, value in s3_server.user(policy).items():
        monkeypatch.setenv(name, value)
    code, output, error = validate(call, config)
    assert (code, error) == (0, "")
    assert output.startswith("data: 141 samples to train on, none held out\n")
    assert output.endswith(f"{config}: config, data, storage, hardware and game are in order\n")
    assert call(prepare, f"shards:{s3}/data", f"{s3}/copy", "--workers", 1)[0] == 0
    place = open_storage(f"{s3}/runs")
    place.write("large", bytes(33 * 2**20))
    assert place.create("x", b"1")
    assert place.replace("x", b"2", place.read_version("x")[1])
    place.delete("")
    assert not place.objects()
    s3_server.client().put_bucket_lifecycle_configuration(Bucket=BUCKET, LifecycleConfiguration=rule)
    s3_server.client().delete_bucket_lifecycle(Bucket=BUCKET)


def test_a_config_is_read_from_a_bucket(call, storage):
    code, output, error = call(train, f"{storage}/crashed/config.yaml", "--dry-run", "run.name=other")
    assert (code, error) == (0, "")
    assert "name: other" in output
    open_storage(storage).write("bad.yaml", b"run: {name: [")
    code, _, error = call(train, f"{storage}/bad.yaml", "--dry-run")
    assert (code, error.startswith(f"ganrun: {storage}/bad.yaml: not YAML")) == (2, True)
    assert "no such config file" in call(train, f"{storage}/none.yaml", "--dry-run")[2]
    assert "no such bucket" in call(train, f"s3://not-{BUCKET}/c.yaml", "--dry-run")[2]


@pytest.mark.parametrize("bucket", ["nowhere", "no_Bucket!"])
def test_a_bucket_that_is_not_there_is_wrong_input(call, s3, values, tmp_path, bucket):
    yaml = write_yaml(tmp_path / "small.yaml", values)
    code, output, error = call(train, yaml, "--validate", f"data.shards=s3://{bucket}/data")
    assert (code, output, len(error.splitlines())) == (2, "", 1)
    assert f"s3://{bucket}/data" in error
