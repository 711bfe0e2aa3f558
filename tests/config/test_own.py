"""Section `own`: settings of a user's own networks, losses, penalties and games."""

import json

import pytest
import torch
import yaml

from ganrun import train
from ganrun.config.keys import is_fixed
from ganrun.config.load import load_config
from ganrun.config.own import settings_of
from ganrun.config.tunable import is_tunable
from ganrun.data.index import open_data
from ganrun.data.made_up import MadeUpBatches
from ganrun.errors import UserError
from ganrun.run_folder import run_config
from ganrun.run_folder.run_folder import RunFolder, find_checkpoint
from ganrun.slots import Slots
from ganrun.storage import open_storage
from ganrun.training.new_state import new_state
from tests.config.test_load import faults_of
from tests.conftest import config_of, write_yaml
from tests.ranks import latest_tensors, run_folder, run_ranks

DEFAULTS = {"weight": 1.0, "steps": 3, "sizes": [4, 8], "shade": "dark", "inner": {"share": 0.5}}


@pytest.fixture
def file(tmp_path, values):
    values["run"]["imports"] = ["tests.own_settings"]
    return write_yaml(tmp_path / "run.yaml", values)


def test_defaults_are_filled_in(file):
    assert load_config(file).own == {"stretch": DEFAULTS}
    config = load_config(file, ["own.stretch={steps: 1e1, sizes: [2]}", "own.plain=[1, a, [true, null]]"])
    assert config.own == {
        "stretch": DEFAULTS | {"steps": 10, "sizes": [2]},
        "plain": [1, "a", [True, None]],
    }


def test_a_dry_run_shows_them(file, capsys):
    assert train.main([str(file), "--dry-run", "own.stretch.weight=2"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["own"] == {"stretch": DEFAULTS | {"weight": 2.0}}
    assert train.main([str(file), "--dry-run", "own.stretch.weight=${oc.env:NO_SUCH_VARIABLE}"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["own"] == {"stretch": {"weight": "${oc.env:NO_SUCH_VARIABLE}"}}


@pytest.mark.parametrize(
    ("override", "fault"),
    [
        ("own.stretch.weight=0", "own.stretch.weight: 0 is not allowed; it should be: greater than 0"),
        ("own.stretch.weight=a", "own.stretch.weight: 'a' is not allowed; it should be: number"),
        ("own.stretch.shade=grey", "own.stretch.shade: 'grey' is not allowed; it should be: 'dark' or 'light'"),
        (
            "own.stretch.inner.share=2",
            "own.stretch.inner.share: 2 is not allowed; it should be: less than or equal to 1",
        ),
        (
            "own.stretch.wieght=2",
            "own.stretch.wieght: unknown key; known in own.stretch: weight, steps, sizes, shade, inner",
        ),
        ("own.stretch=3", "own.stretch: 3 is not allowed; it should be: a section of keys and values"),
        ("own.stretch.sizes=3", "own.stretch.sizes: 3 is not allowed; it should be: a list"),
        ("own.strech.weight=3", "own.strech: no module of run.imports registers this section in OWN; did you mean"),
        ("own.other.a=1", "own.other: no module of run.imports registers this section in OWN; register a class"),
        (
            "own.plain=.inf",
            "own.plain: inf is not allowed; it should be: a finite number, a word, true, false, null, a",
        ),
        ("own={a b: 3}", "own.a b"),
        ("own=3", "own: 3 is not allowed; it should be: a section of keys and values"),
        ("run.imports=[]", "own: stretch: settings of your own modules, but run.imports names none"),
    ],
)
def test_a_fault_has_its_key_beside_all_other_faults(file, override, fault):
    faults = faults_of(file, "own.stretch.steps=4", override, "train.total_images=0")
    assert len(faults) == 2
    assert faults[0].startswith("train.total_images") or override in ("own=3", "own={a b: 3}", "own.plain=.inf")
    assert any(found.startswith(fault) for found in faults), faults


def test_which_may_change_is_for_the_class_to_say():
    for key in ("own.stretch.weight", "own.stretch.inner.share"):
        assert is_tunable(key)
        assert not is_fixed(key)
    for key in ("own.plain", "own.stretch.steps", "own.stretch.inner", "own.stretch.inner.x", "own.stretch", "own.x.y"):
        assert not is_tunable(key)
        assert is_fixed(key)


def test_searches_and_schedules_are_checked_with_the_class(file):
    tune = "tune={perturb_every_images: 120, mutations: {own.stretch.%s: {log_uniform: [1e-3, %s]}}}"
    search = ["evaluate.every_images=120", "evaluate.samples=4"]
    config = load_config(file, [*search, tune % ("weight", 10)])
    assert config.tune.mutations["own.stretch.weight"].ends == (1e-3, 10)
    (fault,) = faults_of(file, *search, tune % ("steps", 10))
    assert "tune.mutations.own.stretch.steps: structural, or no such key" in fault
    (fault,) = faults_of(file, *search, tune % ("inner.share", 10))
    assert fault == (
        "tune.mutations.own.stretch.inner.share: own.stretch.inner.share: 10 is not allowed; it should be: less than "
        "or equal to 1"
    )
    (fault,) = faults_of(file, "train.schedule=[{images: 60, own.stretch.weight: -1}]")
    assert fault.startswith("train.schedule.0.own.stretch.weight: own.stretch.weight: -1 is not allowed")


def test_a_run_sees_a_scheduled_value_and_keeps_it_in_its_checkpoint(file, tmp_path):
    changes = ["objective.game=pull", "model.name=points", "telemetry.sample_images=4"]
    config = load_config(file, [*changes, "train.schedule=[{images: 120, own.stretch.weight: 7}]"])
    for stop_at in (180, None):
        run_ranks(config, 1, tmp_path / f"meeting-{stop_at}", stop_at)
    lines = [
        json.loads(line)
        for part in sorted((run_folder(config) / "metrics").iterdir())
        for line in part.read_text().splitlines()
    ]
    assert [(line["images"], line["loss/puller/weight"]) for line in lines] == [(60, 1), (120, 1), (180, 7), (240, 7)]
    assert latest_tensors(config)["point/value"].item() < 3
    storage, directory = find_checkpoint(str(run_folder(config)))
    kept = yaml.safe_load(storage.read(f"{directory}/config.yaml"))
    assert kept["own"] == {"stretch": DEFAULTS | {"weight": 7}}


def test_a_run_that_has_begun_keeps_what_is_fixed(file, tmp_path, monkeypatch):
    changes = ["objective.game=pull", "model.name=points", "telemetry.sample_images=4", "train.total_images=60"]
    folder = RunFolder(open_storage(str(tmp_path / "runs/small")))
    before = run_config.settle(load_config(file, [*changes, "own.plain=1"]), folder)
    run_config.write_config(before, folder)
    run_ranks(before, 1, tmp_path / "meeting")
    after = run_config.settle(load_config(file, [*changes, "own.plain=1", "own.stretch.weight=5"]), folder)
    assert after.own["stretch"]["weight"] == 5
    for override, change in (
        ("own.stretch.steps=5", "own.stretch.steps was 3, is 5"),
        ("own.plain=2", "own.plain was 1"),
    ):
        with pytest.raises(UserError, match=change):
            run_config.settle(load_config(file, [*changes, "own.plain=1", override]), folder)
    # A setting that the class has had since is its default.
    text = before.to_yaml().replace("    steps: 3\n", "")
    folder.storage.write("config.yaml", text.encode())
    assert run_config.settle(load_config(file, [*changes, "own.plain=1"]), folder) == before


@pytest.mark.parametrize("weight", [1.0, 3.0])
def test_losses_and_penalties_receive_them(values, weight):
    values["run"]["imports"] = ["tests.own_settings"]
    values["objective"] = {"loss": "weighted", "penalties": {"squared": 1.0}}
    totals = []
    for own in ({}, {"stretch": {"weight": weight}, "plain": 2}):
        config = config_of({**values, "own": own})
        state = new_state(config, torch.device("cpu"), Slots(1))
        batch = MadeUpBatches(config.data, open_data(config.data.shards)).next(4)
        state.round(lambda batch=batch: [batch])
        found, _ = state.recorder.read()
        totals.append((found["loss/discriminator"] - found["penalty/squared"], found["penalty/squared"]))
    (plain, penalty), (weighted, heavier) = totals
    assert weighted == pytest.approx(weight * plain)
    assert heavier == pytest.approx(2 * weight * penalty)


def test_settings_that_do_not_fit_are_refused_where_a_checkpoint_has_them():
    load_own = {"stretch": {"steps": "many"}}
    with pytest.raises(UserError, match=r"own\.stretch\.steps: 'many' is not allowed; it should be: integer"):
        settings_of(load_own, ("tests.own_settings",))
