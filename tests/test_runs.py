"""`ganrun runs` as a user calls it."""

import io
import json
import shutil
import subprocess
import sys

import pytest

from ganrun import runs as entry_point
from tests.run_folder.making import TOTAL, make_runs, write_lease
from tests.waiting import WAIT


@pytest.fixture(scope="module")
def made(data_folder):
    return make_runs(data_folder)


@pytest.fixture
def storage(made, tmp_path):
    """Copy of the storage, with files beside the runs that are not runs."""
    storage = shutil.copytree(made, tmp_path / "runs")
    (storage / "empty").mkdir()
    (storage / "notes.txt").write_text("mine")
    return storage


@pytest.fixture
def call(capsys):
    """Run a command; return exit code, stdout and stderr."""

    def call(*arguments):
        code = entry_point.main([str(argument) for argument in arguments])
        return code, *capsys.readouterr()

    return call


def test_list_has_the_newest_first_and_passes_over_what_is_no_run(call, storage):
    code, output, error = call("list", storage)
    assert (code, error) == (0, "")
    assert [line.split()[0] for line in output.splitlines()] == ["NAME", "crashed", "resumed", "finished"]


def test_list_as_json(call, storage):
    code, output, _ = call("list", storage, "--json")
    found = json.loads(output)
    assert code == 0
    assert [(run["name"], run["state"]) for run in found["runs"]] == [
        *(("crashed", "failed"), ("resumed", "finished"), ("finished", "finished"))
    ]


def test_a_corrupt_run_hides_no_other(call, storage):
    (storage / "resumed/latest.json").write_text("{")
    (storage / "finished/config.yaml").write_text("{")
    code, output, error = call("list", storage)
    assert code == 0
    assert [line.split()[0] for line in output.splitlines()] == ["NAME", "crashed"]
    assert "skipped: " in error
    assert "resumed/latest.json is corrupt" in error
    assert "finished/config.yaml is corrupt" in error


def test_a_storage_without_runs(call, storage):
    assert call("list", storage / "empty") == (0, "", f"{storage}/empty: no runs\n")
    assert "it is a run itself, see ganrun runs show" in call("list", storage / "finished")[2]
    code, output, error = call("list", storage / "typo")
    assert (code, output) == (2, "")
    assert "typo: no such folder" in error


def test_show(call, storage):
    code, output, error = call("show", storage / "finished")
    assert (code, error) == (0, "")
    assert output.startswith(f"finished: finished, {TOTAL} of {TOTAL} images (100 %)")
    found = json.loads(call("show", storage / "finished", "--json")[1])
    assert (found["state"], found["images"], found["latest"]["images"]) == ("finished", TOTAL, TOTAL)
    assert found["config"]["model"]["width"] == 4


@pytest.mark.parametrize("verb", ["show", "curve", "delete"])
def test_a_folder_that_is_no_run_is_refused(call, storage, verb):
    for place in ("empty", "notes.txt", "typo"):
        code, output, error = call(verb, storage / place)
        assert (code, output) == (2, "")
        assert "is no run" in error
    assert (storage / "empty").exists()


def test_curve_prints_json_lines(call, storage):
    code, output, error = call("curve", storage / "resumed")
    assert (code, error) == (0, "")
    images = [json.loads(line)["images"] for line in output.splitlines()]
    assert images == [24, 24, 48, 72, 96, 120, 120]


def test_curve_says_what_is_corrupt(call, storage):
    metrics = storage / f"crashed/metrics/0001-{0:012d}.jsonl"
    metrics.write_bytes(metrics.read_bytes()[:-10])
    code, output, error = call("curve", storage / "crashed")
    assert code == 0
    assert [json.loads(line)["images"] for line in output.splitlines()] == [24, 24, 48]
    assert "line 4 is corrupt" in error
    assert "Traceback" not in error


def test_curve_is_plotted(call, storage, tmp_path):
    picture = tmp_path / "new" / "curve.png"
    assert call("curve", storage / "finished", "--plot", picture) == (0, f"{picture}\n", "")
    assert picture.read_bytes().startswith(b"\x89PNG")
    code, _, error = call("curve", storage / "finished", "--plot", tmp_path / "curve.pdf")
    assert code == 2
    assert "give a .png file" in error
    shutil.rmtree(storage / "crashed/metrics")
    assert call("curve", storage / "crashed", "--plot", picture)[0] == 1


def test_delete_asks_for_the_name(call, storage, monkeypatch):
    for answer, code in (("", 2), ("finish\n", 1), ("y\n", 1)):
        monkeypatch.setattr(sys, "stdin", io.StringIO(answer))
        assert call("delete", storage / "finished")[0] == code
        assert (storage / "finished/latest.json").exists()
    monkeypatch.setattr(sys, "stdin", io.StringIO("finished\n"))
    code, output, error = call("delete", storage / "finished")
    assert (code, output.startswith(f"deleted {storage}/finished, ")) == (0, True)
    assert "type finished to delete" in error
    assert not (storage / "finished").exists()


def test_delete_with_yes_asks_nothing(call, storage, monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    assert call("delete", storage / "resumed", "--yes")[0] == 0
    assert not (storage / "resumed").exists()
    assert (storage / "finished").exists()


def test_a_run_whose_pointer_is_corrupt_can_be_deleted(call, storage):
    (storage / "finished/latest.json").write_text("{")
    assert call("delete", storage / "finished", "--yes")[0] == 0
    assert not (storage / "finished").exists()


def test_a_live_run_is_not_deleted(call, storage):
    write_lease(storage / "crashed", 50)
    code, _, error = call("delete", storage / "crashed", "--yes")
    assert code == 1
    assert "process 7 on far holds its lease until" in error
    assert (storage / "crashed/latest.json").exists()


def test_gc_lists_and_only_with_yes_deletes(call, storage):
    for name in ("finished", "crashed"):
        (storage / name / "samples/.part-x").write_bytes(bytes(2048))
    write_lease(storage / "crashed", 50)
    code, output, error = call("gc", storage)
    assert code == 0
    assert output.splitlines() == [
        f"{storage}/finished/samples/.part-x  2.0 KiB  an interrupted write",
        "1 orphan, 2.0 KiB; nothing deleted, use --yes",
    ]
    assert "crashed is running" in error
    assert (storage / "finished/samples/.part-x").exists()
    assert call("gc", storage, "--yes")[1].splitlines()[-1] == "1 orphan, 2.0 KiB deleted"
    assert not (storage / "finished/samples/.part-x").exists()
    assert (storage / "crashed/samples/.part-x").exists()
    assert call("gc", storage / "finished")[1] == "no orphans\n"


def test_runs_are_read_without_torch_ray_and_matplotlib(storage):
    code = "import sys\nfrom ganrun.runs import main\n"
    code += "for verb in ('list', 'gc'): main([verb, sys.argv[1]])\n"
    code += "for verb in ('show', 'curve'): main([verb, sys.argv[1] + '/finished'])\n"
    code += "assert not {'torch', 'ray', 'matplotlib'} & sys.modules.keys()"
    done = subprocess.run([sys.executable, "-c", code, storage], capture_output=True, text=True, timeout=WAIT)
    assert done.returncode == 0, done.stderr


def test_nothing_is_deleted_where_nobody_sees_the_question(call, storage):
    code, output, error = call("delete", storage / "finished", "--quiet")
    assert (code, output) == (2, "")
    assert error == "ganrun: --quiet: nobody would see the question whether to delete the run; add --yes\n"
    assert (storage / "finished/latest.json").exists()
