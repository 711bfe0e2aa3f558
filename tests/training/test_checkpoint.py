"""A checkpoint is complete or absent, whatever fails, and nothing of a run is lost in it."""

import errno
import io
import json
import pickle

import pytest
import torch

from ganrun.errors import RunError
from ganrun.games.build import build_game
from ganrun.run_folder.run_folder import Pointer, RunFolder
from ganrun.slots import Slots
from ganrun.storage import Folder
from ganrun.training import checkpoint
from ganrun.training.checkpoint import RunProgress, Snapshot, take_snapshot
from ganrun.training.new_state import new_state
from tests.conftest import config_of
from tests.training.test_loop import source

CPU, MANIFEST = torch.device("cpu"), "manifest.json"
FILES = {"weights.safetensors": b"w" * 1000, "state.json": b"{}"}


class Full(Folder):
    """A disk that is full from its `writes`-th write on."""

    writes = 10**9
    deletes = True

    def write(self, name, data):
        self.writes -= 1
        if self.writes < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        super().write(name, data)

    def delete(self, name):
        if not self.deletes:
            raise OSError(errno.EIO, "Input/output error")
        super().delete(name)


@pytest.fixture
def folder(tmp_path):
    folder = RunFolder(Full(tmp_path / "run"))
    folder.begin_attempt()
    return folder


@pytest.fixture
def state(values):
    """A play after two rounds, the first since its last tick."""
    return played(values)


def played(values, rounds=2, **changes):
    config = config_of(values, **changes)
    state, batches = new_state(config, CPU, Slots(config.slots)), source()
    for _ in range(rounds):
        state.round(batches)
    return state


def save(folder, name, files=FILES, best=False, attempt=1):
    images = int(name.split("-")[0])
    checkpoint.write(folder, name, files, {"images": images, "attempt": attempt})
    checkpoint.make_visible(folder, Pointer(name, images, attempt), best)


def names(*images):
    return [f"{number:012d}-0001" for number in images]


def snapshot_of(state, progress=None, spare=None):
    return take_snapshot(state.state_dict(), progress or RunProgress(), "run: {}", spare)


def files_of(state, progress=None):
    return snapshot_of(state, progress).files()


def restore(state, files):
    snapshot = Snapshot.parse(files, "runs/a/checkpoints/b")
    state.load_state_dict(snapshot.state)
    return snapshot.progress


# The round trip.


def test_a_checkpoint_is_read_as_it_was_written(folder):
    save(folder, *names(100))
    assert checkpoint.read(folder.storage, f"checkpoints/{names(100)[0]}") == FILES
    assert folder.storage.list(f"checkpoints/{names(100)[0]}") == [MANIFEST, "state.json", "weights.safetensors"]


def test_the_manifest_says_what_is_in_it(folder):
    save(folder, *names(100))
    manifest = json.loads(folder.storage.read(f"checkpoints/{names(100)[0]}/{MANIFEST}"))
    assert manifest["format"] == 2
    assert (manifest["images"], manifest["attempt"]) == (100, 1)
    assert manifest["files"]["weights.safetensors"]["bytes"] == 1000
    assert manifest["versions"].keys() == {"ganrun", "torch", "python"}


def test_the_manifest_is_written_last(tmp_path):
    written = []

    class Noting(Folder):
        def write(self, name, data):
            written.append(name.rpartition("/")[2])
            super().write(name, data)

    checkpoint.write(RunFolder(Noting(tmp_path)), "a", FILES, {})
    assert written[-1] == MANIFEST
    assert sorted(written) == sorted([*FILES, MANIFEST])


def test_a_play_is_restored_whole(values, state):
    state.rollback_count = 3
    state.collapse_detector.streaks["gradient_vanished"] = 4
    files = files_of(state, RunProgress(12.5, 99.0))
    fresh = played(values, rounds=0, run__name="fresh")
    with torch.no_grad():
        for network in fresh.game.networks.values():
            for parameter in network.parameters():
                parameter.normal_()
    assert restore(fresh, files) == RunProgress(12.5, 99.0)
    assert (fresh.images, fresh.rollback_count) == (24, 3)
    again = files_of(fresh, RunProgress(12.5, 99.0))
    assert again == files


@pytest.mark.parametrize("precision", ["float32", "float64", "bf16"])
def test_a_restored_play_goes_on_as_if_it_had_not_stopped(values, precision):
    state = played(values, train__precision=precision)
    fresh = played(values, rounds=0, train__precision=precision)
    restore(fresh, files_of(state))
    for each in (state, fresh):
        batches = source()
        for _ in range(3):
            each.round(batches)
    states = [files_of(each) for each in (state, fresh)]
    assert states[0] == states[1]
    assert state.recorder.read() == fresh.recorder.read()


def test_a_snapshot_holds_every_network_average_optimizer_and_the_config(state):
    files = files_of(state)
    assert set(files) == {
        "generator.safetensors",
        "discriminator.safetensors",
        "generator_ema.safetensors",
        "optimizer_generator.safetensors",
        "optimizer_discriminator.safetensors",
        "recorder.safetensors",
        "state.json",
        "config.yaml",
    }


def test_plain_values_stand_in_one_file_in_the_order_of_format_2(state):
    record = json.loads(files_of(state, RunProgress(12.5, 99.0, 3))["state.json"])
    assert list(record) == [
        *("images", "rollback_count", "recorded", "suspected"),
        *("best_score", "seconds", "exploit"),
    ]
    assert [record[name] for name in ("images", "best_score", "seconds", "exploit")] == [24, 12.5, 99.0, 3]
    assert record["recorded"] == state.recorder.names


def test_a_snapshot_is_taken_in_the_memory_of_a_spare_one(state):
    spare = snapshot_of(state)
    state.round(source())
    taken = snapshot_of(state, spare=spare)
    assert places(taken.state) == places(spare.state)
    assert taken.files() == files_of(state)


def test_what_is_loaded_shares_no_memory_with_where_it_came_from(values, state):
    """Broadcast tensors are views of one buffer: a single view that stays would keep all of it in memory."""
    given = snapshot_of(state).state
    fresh = played(values, rounds=0, objective__ada_target=0.6)
    given.tensors["augmentation"] = {
        key: each.clone() for key, each in fresh.state_dict().tensors["augmentation"].items()
    }
    fresh.load_state_dict(given)
    assert places(fresh.state_dict()).isdisjoint(places(given))
    assert places(given) > set()


def places(state):
    """Return the addresses of its tensors, but of empty ones."""
    return {each.data_ptr() for group in state.tensors.values() for each in group.values() if each.numel()}


def test_a_snapshot_does_not_change_when_the_play_goes_on(state):
    taken = snapshot_of(state)
    before = taken.files()
    state.round(source())
    assert taken.files() == before


def test_equal_plays_have_equal_tensors_whatever_the_clock(values):
    first, second = (files_of(played(values), RunProgress(seconds=seconds)) for seconds in (1.0, 2.0))
    assert {name for name in first if first[name] != second[name]} == {"state.json"}


def test_nothing_is_unpickled(values, state, folder, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("unpickled")

    for module, name in ((pickle, "load"), (pickle, "loads"), (pickle, "Unpickler"), (torch, "load")):
        monkeypatch.setattr(module, name, refuse)
    save(folder, *names(24), files=files_of(state))
    name, _, _ = checkpoint.newest_complete(folder)
    restore(played(values, rounds=0), checkpoint.read(folder.storage, f"checkpoints/{name}"))


def test_a_pickle_in_place_of_tensors_is_refused(values, state):
    file = io.BytesIO()
    torch.save(state.game.networks["generator"].state_dict(), file)
    files = files_of(state)
    files["generator.safetensors"] = file.getvalue()
    with pytest.raises(RunError, match=r"checkpoints/b/generator\.safetensors is corrupt: it is no whole safetensors"):
        restore(played(values, rounds=0), files)


@pytest.mark.parametrize("change", [{"model__width": 8}, {"model__latent_size": 4}, {"data__channels": 3}])
def test_a_checkpoint_of_other_networks_is_refused(values, state, change):
    files = files_of(state)
    with pytest.raises(RunError, match="does not fit the networks of this config"):
        restore(played(values, rounds=0, **change), files)


@pytest.mark.parametrize("file", ["generator", "generator_ema", "optimizer_discriminator", "recorder"])
def test_a_checkpoint_without_a_part_is_refused(values, state, file):
    files = files_of(state)
    del files[f"{file}.safetensors"]
    with pytest.raises(RunError, match=file):
        restore(played(values, rounds=0), files)


SOUND = {"images": 24, "rollback_count": 0, "recorded": []}
WRONG = ({"images": "24"}, {"recorded": 3}, {"suspected": []}, {"best_score": "1"}, {"seconds": None}, {"exploit": "x"})
TEXTS = [b"[]", b"null", b"3", b"{}", b"{", b"[" * 100_000, b'{"images": 24}', b"\xff"]


@pytest.mark.parametrize("text", [*TEXTS, *(json.dumps(SOUND | wrong).encode() for wrong in WRONG)])
def test_a_record_that_is_corrupt_is_refused(state, text):
    with pytest.raises(RunError, match=r"state.json .*is corrupt.*; restore it from a backup"):
        Snapshot.parse(files_of(state) | {"state.json": text}, "x")


def test_one_network_is_loaded_by_name(values, state, folder):
    save(folder, *names(24), files=files_of(state))
    network = build_game(config_of(values, run__seed=9), CPU).networks["generator"]
    checkpoint.load_network(folder.storage, f"checkpoints/{names(24)[0]}", "generator_ema", network)
    expected = state.ema["generator"].network.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in network.state_dict().items())
    with pytest.raises(RunError, match=r"critic\.safetensors is missing"):
        checkpoint.load_network(folder.storage, f"checkpoints/{names(24)[0]}", "critic", network)


# Damage.


def flip(data):
    return bytes([data[0] ^ 1]) + data[1:]


DAMAGES = {
    "file missing": ("state.json", None),
    "file empty": ("weights.safetensors", lambda data: b""),
    "file truncated": ("weights.safetensors", lambda data: data[:-1]),
    "file longer": ("weights.safetensors", lambda data: data + b"w"),
    "file flipped": ("weights.safetensors", flip),
    "manifest missing": (MANIFEST, None),
    "manifest empty": (MANIFEST, lambda data: b""),
    "manifest truncated": (MANIFEST, lambda data: data[:-20]),
    "manifest no text": (MANIFEST, lambda data: b"\xff\xfe" + data),
    "manifest a list": (MANIFEST, lambda data: b"[]"),
    "manifest null": (MANIFEST, lambda data: b"null"),
    "manifest without files": (MANIFEST, lambda data: b'{"format": 1}'),
    "manifest with odd files": (MANIFEST, lambda data: b'{"format": 1, "files": ["a"]}'),
    "manifest of another format": (MANIFEST, lambda data: data.replace(b'"format": 2', b'"format": 99')),
}


def harm(folder, checkpoint_name, kind):
    file, change = DAMAGES[kind]
    name = f"checkpoints/{checkpoint_name}/{file}"
    if change is None:
        folder.storage.delete(name)
    else:
        folder.storage.write(name, change(folder.storage.read(name)))
    return file


@pytest.mark.parametrize("kind", DAMAGES)
def test_from_a_corrupt_checkpoint_the_run_goes_back_to_the_one_before(folder, kind):
    first, second, third = names(100, 200, 300)
    for name in (first, second, third):
        save(folder, name)
    file = harm(folder, third, kind)
    found, files, faults = checkpoint.newest_complete(folder)
    assert found == second
    assert files == FILES
    assert len(faults) == 1
    assert third in faults[0]
    assert file in faults[0] or "format" in kind


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_run_none_of_whose_checkpoints_is_whole_does_not_begin_anew(folder, kind):
    for name in names(100, 200):
        save(folder, name)
        harm(folder, name, kind)
    with pytest.raises(RunError, match=r"no checkpoint of .* is intact") as caught:
        checkpoint.newest_complete(folder)
    assert all(name in str(caught.value) for name in names(100, 200))


def test_a_run_whose_checkpoints_are_gone_does_not_begin_anew(folder):
    save(folder, *names(100))
    folder.storage.delete("checkpoints")
    with pytest.raises(RunError, match=r"no checkpoint of .* is intact"):
        checkpoint.newest_complete(folder)


def test_a_run_without_a_checkpoint_begins(folder):
    assert checkpoint.newest_complete(folder) == (None, {}, [])


def test_a_checkpoint_that_no_pointer_made_visible_is_not_taken(folder):
    save(folder, *names(100))
    checkpoint.write(folder, *names(200), FILES, {})
    assert checkpoint.newest_complete(folder) == (names(100)[0], FILES, [])


# A storage that fails.


@pytest.mark.parametrize("deletes", [True, False])
@pytest.mark.parametrize("k", range(len(FILES) + 1))
def test_a_write_that_fails_leaves_nothing_to_go_on_from(folder, k, deletes):
    save(folder, *names(100))
    folder.storage.writes, folder.storage.deletes = k, deletes
    with pytest.raises(OSError, match="No space left"):
        save(folder, *names(200))
    if deletes:
        assert folder.storage.list("checkpoints") == names(100)
    assert folder.pointer("latest").checkpoint == names(100)[0]
    assert checkpoint.newest_complete(folder) == (names(100)[0], FILES, [])


def test_a_pointer_that_cannot_be_moved_stays(folder):
    save(folder, *names(100), best=True)
    folder.storage.writes = len(FILES) + 1
    with pytest.raises(OSError, match="No space left"):
        save(folder, *names(200), best=True)
    assert folder.pointer("latest").checkpoint == folder.pointer("best").checkpoint == names(100)[0]
    folder.storage.writes = 100
    save(folder, *names(300))
    assert checkpoint.newest_complete(folder) == (names(300)[0], FILES, [])


# What is kept.


def test_the_newest_are_kept_and_the_best(folder):
    for images in (100, 200, 300, 400, 500):
        save(folder, *names(images), best=images == 200)
        checkpoint.delete_old(folder, keep=2)
    assert folder.storage.list("checkpoints") == names(200, 400, 500)


def test_one_is_enough(folder):
    for images in (100, 200):
        save(folder, *names(images))
        checkpoint.delete_old(folder, keep=1)
    assert folder.storage.list("checkpoints") == names(200)


def test_what_a_crash_left_does_not_count_and_goes(folder):
    save(folder, *names(100))
    folder.storage.write(f"checkpoints/{names(150)[0]}/state.json", b"{}")  # no manifest
    save(folder, *names(200))
    checkpoint.delete_old(folder, keep=2)
    assert folder.storage.list("checkpoints") == names(100, 200)


def test_what_lies_after_the_pointer_is_left_alone(folder):
    """A checkpoint that is being written is not yet pointed to."""
    for images in (100, 200):
        save(folder, *names(images))
    checkpoint.write(folder, *names(300), FILES, {})
    checkpoint.delete_old(folder, keep=1)
    assert folder.storage.list("checkpoints") == names(200, 300)
