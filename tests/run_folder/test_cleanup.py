"""What may be deleted of a run, and what never is."""

import json
import shutil

import pytest

from ganrun.errors import RunError, UserError
from ganrun.run_folder import cleanup
from ganrun.run_folder.status import live_holder
from ganrun.storage import Folder
from tests.run_folder.making import SAVED, TOTAL, make_runs, write_lease


@pytest.fixture(scope="module")
def made(data_folder):
    return make_runs(data_folder)


@pytest.fixture
def run(made, tmp_path):
    """A copy of the run that finished."""
    return shutil.copytree(made / "finished", tmp_path / "runs" / "run")


def files(path):
    return {found.relative_to(path).as_posix() for found in path.rglob("*") if found.is_file()} - {".lock"}


def test_a_deleted_run_leaves_nothing(run):
    assert cleanup.delete_run(Folder(run)) == []
    assert not run.exists()
    assert run.parent.exists()


def test_what_ganrun_did_not_write_stays(run):
    (run / "notes.txt").write_text("mine")
    (run / ".git").mkdir()
    (run / ".git/HEAD").write_text("mine too")
    assert cleanup.delete_run(Folder(run)) == [".git", "notes.txt"]
    assert files(run) == {"notes.txt", ".git/HEAD"}


def test_a_live_run_is_not_touched(run):
    write_lease(run, 50)
    (run / ".ray").mkdir()
    (run / ".ray/x").write_text("")
    before = files(run)
    for act in (cleanup.delete_run, cleanup.delete_orphans):
        with pytest.raises(RunError, match=r"is running: process 7 on far holds its lease until \d\d:\d\d:\d\d"):
            act(Folder(run))
    assert files(run) == before


def test_a_dead_lease_is_in_nobodys_way(run):
    write_lease(run, -1)
    cleanup.delete_run(Folder(run))
    assert not run.exists()


@pytest.mark.parametrize("act", [cleanup.delete_run, cleanup.delete_orphans])
def test_nobody_can_start_the_run_meanwhile(run, act):
    class Watched(Folder):
        held = None

        def delete(self, name):
            if name.startswith(".ray"):
                self.held = live_holder(self)
            super().delete(name)

    (run / ".ray").mkdir()
    (run / ".ray/x").write_text("")
    storage = Watched(run)
    act(storage)
    assert storage.held is not None
    assert not (run / "lease.json").exists()


def test_a_deletion_that_was_cut_off_can_be_done_again(run):
    class Failing(Folder):
        def delete(self, name):
            if name == "events":
                raise OSError("away")
            super().delete(name)

    with pytest.raises(OSError, match="away"):
        cleanup.delete_run(Failing(run))
    assert not (run / "checkpoints").exists()
    cleanup.delete_run(Folder(run))
    assert not run.exists()


def test_a_project_with_a_config_of_its_own_is_no_run(run, tmp_path):
    project = tmp_path / "project"
    (project / "checkpoints").mkdir(parents=True)
    (project / "checkpoints/precious").write_text("mine")
    shutil.copy(run / "config.yaml", project)
    with pytest.raises(UserError, match="is no run"):
        cleanup.delete_run(Folder(project))
    assert files(project) == {"config.yaml", "checkpoints/precious"}


# Orphans.


def orphan_names(path):
    return [orphan.name for orphan in cleanup.orphans(Folder(path))]


def test_a_healthy_run_has_no_orphans(made):
    assert [orphan_names(made / name) for name in ("finished", "resumed", "crashed", "new")] == [[], [], [], []]


def test_orphans_are_found_with_their_sizes_and_deleted_alone(run):
    healthy = files(run)
    newer, incomplete = f"checkpoints/{TOTAL + 48:012d}-0001", f"checkpoints/{SAVED:012d}-0002"
    shutil.copytree(run / f"checkpoints/{SAVED:012d}-0001", run / newer)
    (run / incomplete).mkdir()
    (run / incomplete / "generator.safetensors").write_bytes(bytes(7))
    (run / incomplete / ".part-b").write_bytes(bytes(4))
    (run / "samples/.part-a").write_bytes(bytes(5))
    (run / ".ray/session").mkdir(parents=True)
    (run / ".ray/session/marker").write_bytes(bytes(3))
    found = {orphan.name: orphan for orphan in cleanup.orphans(Folder(run))}
    assert list(found) == [incomplete, newer, ".ray", "samples/.part-a"]
    assert [found[name].bytes for name in (incomplete, ".ray", "samples/.part-a")] == [11, 3, 5]
    assert found[newer].bytes == sum(path.stat().st_size for path in (run / newer).iterdir())
    assert "no manifest" in found[incomplete].reason
    assert "newer than" in found[newer].reason
    assert cleanup.delete_orphans(Folder(run)) == list(found.values())
    assert files(run) == healthy


def test_the_best_checkpoint_is_no_orphan_though_it_is_newer(run):
    first = f"{SAVED:012d}-0001"
    (run / "latest.json").write_text(json.dumps({"checkpoint": first, "images": SAVED, "attempt": 1}))
    pointed = json.loads((run / "best.json").read_text())["checkpoint"]
    assert pointed == f"{TOTAL:012d}-0001"
    assert orphan_names(run) == [f"checkpoints/{2 * SAVED:012d}-0001"]


def test_without_latest_json_whole_checkpoints_are_kept(run):
    (run / "latest.json").unlink()
    (run / "best.json").unlink()
    assert orphan_names(run) == []


def test_where_a_pointer_is_corrupt_nothing_is_an_orphan(run):
    (run / "latest.json").write_text("{")
    before = files(run)
    with pytest.raises(RunError, match=r"latest\.json is corrupt"):
        cleanup.delete_orphans(Folder(run))
    assert files(run) == before
