"""Checks before a run starts, and settings that its start fixes."""

import pytest

from ganrun.cli import preflight
from ganrun.config.load import load_config
from ganrun.config.run_spec import resolve
from ganrun.errors import RunError, UserError
from ganrun.run_folder import run_config
from ganrun.run_folder.run_folder import Pointer, RunFolder
from ganrun.storage import open_storage
from tests.commands import Train
from tests.conftest import config_of, write_data, write_yaml
from tests.preparation.making import noise, png, prepare, shards_of


def folder_of(config):
    return RunFolder(open_storage(config.run.uri))


def settle(values, **changes):
    """What a command does first; and then the run has a checkpoint."""
    config = config_of(values, **changes)
    folder = folder_of(config)
    config = run_config.settle(config, folder)
    run_config.write_config(config, folder)
    if not folder.pointer("latest"):
        folder.move_pointer("latest", Pointer("000000000012-0001", 12, 1))
    return config


# Checks.


def test_what_is_in_order_passes(values):
    preflight.check(config_of(values))


def test_a_config_that_holds_samples_out_passes_and_says_how_many(values, tmp_path):
    other = write_data(tmp_path / "other", sizes=(40,))
    for change, words in (
        ({}, "141 samples to train on, none held out"),
        ({"held_out_share": 0.2}, "113 samples to train on, 28 held out (evaluate.held_out_share=0.2)"),
        ({"shards": str(other)}, f"141 samples to train on, 40 held out (evaluate.shards={other} sha256:"),
    ):
        config = config_of(values | {"evaluate": {"every_images": 60, "samples": 28, **change}})
        preflight.check(config)
        assert preflight.describe_data(config.data, config.evaluate).startswith(words)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            {"held_out_share": 0.2, "samples": 29},
            r"samples: 29, but only 28 samples are held out \(.*; ask for at most 28",
        ),
        (
            {"held_out_share": 0.01, "every_images": 0},
            r"held_out_share: 0\.01 holds out no sample, since it is rounded",
        ),
        ({"held_out_share": 0.97}, r"data\.slots: 6, but evaluate\.held_out_share: 0\.97 leaves only 5 of 141 samples"),
        ({"shards": "nowhere"}, r"evaluate\.shards: 'nowhere' holds no shards"),
        ({"shards": "{tmp}/large"}, r"evaluate\.shards: image_size 32, but 16 in data\.shards; .* prepare --size 16"),
        ({"shards": "{tmp}/colour"}, r"evaluate\.shards: channels 3, but 1 in data\.shards; .* prepare --channels 1"),
        ({"shards": "{tmp}/few"}, r"samples: 20, but only 19 samples are held out \(evaluate\.shards=.*/few sha256:"),
        ({"shards": "{tmp}/classes"}, r"evaluate\.shards: classes a, b, d, but a, b, c in data\.shards; name data of"),
        ({"shards": "{data}/000003.tar"}, r"evaluate\.shards: 000003\.tar is a shard of data\.shards too, so it would"),
        ({"shards": "{tmp}/gone"}, r"gone/000000\.tar: the index names this shard, but it does not exist; restore it"),
    ],
)
def test_held_out_samples_that_cannot_be_had_are_refused(values, data_folder, tmp_path, change, reason):
    write_data(tmp_path / "large", sizes=(20,), image_size=32)
    write_data(tmp_path / "colour", sizes=(20,), channels=3)
    write_data(tmp_path / "few", sizes=(10, 9))
    index = write_data(tmp_path / "classes", sizes=(20,)) / "index.json"
    index.write_text(index.read_text().replace('"c"', '"d"'))
    (write_data(tmp_path / "gone", sizes=(20,)) / "000000.tar").unlink()
    if "shards" in change:
        change = {"shards": change["shards"].format(tmp=tmp_path, data=data_folder)}
    values["evaluate"] = {"every_images": 60, "samples": 20, **change}
    values["model"] |= {"classes": 3}
    values["data"] |= {"fields": {"image": "image", "label": "label"}}
    with pytest.raises(UserError, match=reason) as refused:
        preflight.check(config_of(values))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"data__image_size": 32}, r"data\.image_size: 32, but the index of .* says 16; set data\.image_size=16"),
        ({"data__channels": 3}, r"data\.channels: 3, but the index of .* says 1"),
        (
            {"model__classes": 4, "data__fields": {"image": "image", "label": "label"}},
            r"model\.classes: 4, but the index of .* names 3 classes; set model\.classes=3",
        ),
        (
            {"data__slots": 142, "data__batch_size": 142},
            r"data\.slots: 142, but data\.shards has only 141 samples",
        ),
        ({"data__shards": "nowhere"}, r"data\.shards: 'nowhere' holds no shards"),
    ],
)
def test_data_that_is_not_as_the_config_says_is_refused(values, change, reason):
    with pytest.raises(UserError, match=reason):
        preflight.check(config_of(values, **change))


def test_a_shard_that_is_not_there_is_named(values, tmp_path):
    folder = write_data(tmp_path / "data", sizes=(3, 3))
    (folder / "000001.tar").unlink()
    with pytest.raises(UserError, match=r"data/000001\.tar: the index names this shard, but it does not exist"):
        preflight.check(config_of(values, data__shards=str(folder), data__slots=1))


def test_a_field_that_samples_lack_is_refused(values, tmp_path):
    image = png(noise(0, (16, 16), 1), tmp_path)
    samples = [(str(n), {"png": image, **({} if n == 2 else {"cls": b"0"})}) for n in range(4)]
    folder = str(shards_of(tmp_path / "in", samples))
    assert prepare(f"shards:{folder}") == 0
    values["data"] |= {"shards": folder, "slots": 1}
    preflight.check(config_of(values))
    fields = {"image": "image", "label": "label"}
    with pytest.raises(UserError, match=r"data\.fields\.label: label, but 1 of 4 samples in .*/in have none; complete"):
        preflight.check(config_of(values, data__fields=fields))
    preflight.check(config_of(values, data__fields=fields, data__damaged_share=0.25))
    with pytest.raises(UserError, match=r"data\.fields\.words: text, but 4 of 4 samples in .*/in have none"):
        preflight.check(config_of(values, data__fields={"image": "image", "words": "text"}))


def test_a_storage_that_cannot_be_written_is_refused(values, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match=r"run\.storage: cannot write to .*/file "):
        preflight.check(config_of(values, run__storage=str(tmp_path / "file")))


def test_more_gpus_than_there_are_are_refused(values, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(UserError, match=r"cluster\.workers: 6 with a GPU each, but this machine has"):
        preflight.check(config_of(values, cluster__gpus_per_worker=1, cluster__workers=6))


@pytest.mark.parametrize("address", ["", "local"])
def test_a_local_ray_has_the_gpus_of_this_machine_however_it_is_spelt(values, monkeypatch, address):
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(UserError, match="but this machine has"):
        preflight.check(config_of(values, cluster__gpus_per_worker=1, cluster__workers=6))


def test_gpus_of_a_cluster_are_left_to_it(values, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    preflight.check(config_of(values, cluster__gpus_per_worker=1, cluster__workers=6))


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("AWS_PROFILE", "elsewhere", "AWS_PROFILE: no profile 'elsewhere' in "),
        ("AWS_ENDPOINT_URL", "localhost:9000", "AWS_ENDPOINT_URL: 'localhost:9000' is neither "),
        ("AWS_REGION", "us east 1", "AWS_REGION: 'us east 1' is no region"),
        ("AWS_NO_SIGN_REQUEST", "maybe", "AWS_NO_SIGN_REQUEST: 'maybe' is neither "),
    ],
)
@pytest.mark.parametrize("key", ["data.shards", "run.storage"])
def test_validate_names_the_variable_of_aws_that_is_wrong(values, tmp_path, key, name, value, reason):
    yaml = write_yaml(tmp_path / "small.yaml", values)
    variables = {"AWS_ENDPOINT_URL": "http://127.0.0.1:1", "AWS_REGION": "us-east-1", "HOME": str(tmp_path)}
    code, _, error = Train(yaml, "--validate", f"{key}=s3://bucket/place", env=variables | {name: value}).wait()
    assert (code, len(error.splitlines())) == (2, 1), error
    assert error.startswith(f"ganrun: {reason}")


def test_all_that_is_wrong_comes_in_one_message(values, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError) as caught:
        preflight.check(config_of(values, data__image_size=32, run__storage=str(tmp_path / "file")))
    assert "data.image_size" in str(caught.value)
    assert "run.storage" in str(caught.value)


# What is settled.


def test_the_beginning_writes_the_whole_config(values, tmp_path):
    config = settle(values)
    path = tmp_path / "runs" / "small" / "config.yaml"
    assert resolve(load_config(path)) == config
    assert path.read_text() == config.to_yaml()


def test_slots_that_are_not_set_are_the_workers_at_the_beginning(values):
    assert settle(values, data__slots=None, cluster__workers=4).data.slots == 4
    later = settle(values, data__slots=None, cluster__workers=2)
    assert (later.data.slots, later.cluster.workers) == (4, 2)


def test_more_workers_than_the_run_has_slots_are_refused(values):
    settle(values, data__slots=None, cluster__workers=2)
    with pytest.raises(UserError, match=r"cluster\.workers: 3 is more than the data\.slots: 2"):
        settle(values, data__slots=None, cluster__workers=3)


def test_what_cannot_change_in_a_run_is_refused_with_both_values(values):
    settle(values)
    with pytest.raises(UserError) as caught:
        settle(values, model__width=8, run__seed=1, train__total_images=480)
    assert "model.width was 4, is 8" in str(caught.value)
    assert "run.seed was 0, is 1" in str(caught.value)
    assert "total_images" not in str(caught.value)


def test_what_is_held_out_cannot_change_in_a_run(values):
    settle(values)
    for key, value in (("held_out_share", 0.1), ("shards", "/other")):
        before = 0.0 if key == "held_out_share" else None
        with pytest.raises(UserError, match=rf"evaluate\.{key} was {before}, is {value}\. These cannot change"):
            settle(values, **{f"evaluate__{key}": value})


def test_a_refused_config_is_not_written(values, tmp_path):
    settle(values)
    before = (tmp_path / "runs/small/config.yaml").read_text()
    with pytest.raises(UserError):
        settle(values, model__width=8)
    assert (tmp_path / "runs/small/config.yaml").read_text() == before


def test_what_may_change_is_written(values, tmp_path):
    settle(values)
    settle(values, train__total_images=480, cluster__workers=3)
    assert load_config(tmp_path / "runs/small/config.yaml").train.total_images == 480


@pytest.mark.parametrize("content", ["run: {name: [", "run: {}\n", "- a\n", "run: {name: a}\nfuture: {}\n"])
def test_a_corrupt_config_of_the_run_is_named(values, tmp_path, content):
    settle(values)
    (tmp_path / "runs/small/config.yaml").write_text(content)
    with pytest.raises(RunError, match=r"small/config\.yaml is corrupt or of another version"):
        settle(values)


def test_a_run_without_a_checkpoint_may_begin_otherwise(values):
    config = config_of(values)
    run_config.write_config(run_config.settle(config, folder_of(config)), folder_of(config))
    assert settle(values, model__width=8, data__slots=3).slots == 3


def test_the_source_of_a_run_is_needed_at_its_beginning_only(values, tmp_path):
    with pytest.raises(UserError, match="neither a run with a checkpoint nor a checkpoint"):
        settle(values, run__start_from=str(tmp_path / "gone"))
    settle(values)
    settle(values, run__start_from=str(tmp_path / "gone"))
