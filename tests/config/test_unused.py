"""A setting without the one that it belongs to is refused, unless a search or a schedule sets that one."""

import pytest

from ganrun.config.load import load_config
from ganrun.config.run_spec import resolve
from ganrun.config.validate_unused import NEEDED
from ganrun.errors import UserError
from ganrun.run_folder import run_config
from ganrun.run_folder.run_folder import Pointer, RunFolder
from ganrun.storage import Folder
from ganrun.telemetry.messages import SearchEnded
from ganrun.tuning import records
from ganrun.tuning.population import Segment
from ganrun.tuning.trial_config import schedule_config
from tests.conftest import config_of, write_yaml
from tests.tuning.making import search

UNUSED = {
    "objective.ada_images": "1000",
    "objective.ada_transforms": "[blit, cutout]",
    "objective.instance_noise_images": "1000",
    "objective.path_length_every_rounds": "8",
    "objective.penalty_every_rounds": "16",
    "evaluate.where": "task",
}
NOISE = "objective.instance_noise"


@pytest.fixture
def load(values, tmp_path):
    """Load the small config with overrides."""
    file = write_yaml(tmp_path / "config.yaml", values)
    return lambda *overrides: load_config(file, list(overrides))


def faults_of(load, *overrides):
    with pytest.raises(UserError) as found:
        load(*overrides)
    _, *faults = str(found.value).splitlines()
    return [fault.strip() for fault in faults]


@pytest.mark.parametrize("key", NEEDED)
def test_a_setting_without_effect_is_refused_in_one_line(load, key):
    (fault,) = faults_of(load, f"{key}={UNUSED[key]}")
    assert fault.startswith(f"{key}: ")
    assert f" has no effect without {' or '.join(NEEDED[key])}; set " in fault


def test_with_the_other_or_with_its_default_it_is_taken(load):
    load("objective.ada_images=500_000", "objective.penalty_every_rounds=1", "evaluate.where=workers")
    load("objective.ada_transforms=[blit]", "objective.ada_probability=0.2")
    load("objective.penalty_every_rounds=16", "objective.penalties={r1: 1}")
    noise = load(f"{NOISE}={{schedule: linear, from: 1, to: 0, until_images: 9}}")
    assert load_config(noise.model_dump(mode="json")) == noise


def test_a_fault_in_the_other_is_the_only_one(load):
    (fault,) = faults_of(load, "objective.penalty_every_rounds=16", "objective.penalties={r1: 0}")
    assert fault.startswith("objective.penalties.r1: ")


def test_a_schedule_or_a_search_may_set_the_other(load):
    load(f"train.schedule=[{{images: 60, {NOISE}: 0.1}}]", f"{NOISE}_images=1000")
    load(f"train.schedule=[{{images: 60, {NOISE}: 0}}]", f"{NOISE}=0.1", f"{NOISE}_images=1000")
    mutations = f"{{{NOISE}: {{choice: [0, 0.1]}}, objective.penalties.r1: {{uniform: [0.1, 1]}}}}"
    load(
        f"tune={{population: 2, perturb_every_images: 60, mutations: {mutations}}}",
        "evaluate={every_images: 60, samples: 20}",
        f"{NOISE}_images=1000",
        "objective.penalty_every_rounds=16",
    )


def test_a_run_that_was_begun_with_one_goes_on_without_it(values, tmp_path):
    folder = RunFolder(Folder(tmp_path / "begun"))
    run_config.write_config(resolve(config_of(values, objective__ada_images=1000)), folder)
    folder.move_pointer("latest", Pointer("000000000012-0001", 12, 1))
    assert run_config.settle(config_of(values), folder).objective.ada_images == 500_000


def test_a_search_that_was_begun_with_one_goes_on_without_it(values, tmp_path):
    storage, config = Folder(tmp_path / "begun"), search(values)
    objective = config.objective.model_copy(update={"ada_images": 1000})
    before = config.model_copy(update={"objective": objective})
    storage.write("config.yaml", resolve(before).to_yaml().encode())
    records.append_records(storage, [SearchEnded()])
    assert records.settle(config, storage) == resolve(config)


def test_the_schedule_of_a_winner_has_none(values):
    values["objective"] = {"instance_noise": 0.1, "instance_noise_images": 1000}
    config = resolve(search(values, mutations={NOISE: {"choice": [0, 0.1]}}))
    noisy = schedule_config(config, [Segment(0, "00", {NOISE: 0.1})])
    silent = schedule_config(config, [Segment(0, "01", {NOISE: 0})])
    assert noisy.objective.instance_noise_images == 1000
    assert load_config(silent.model_dump(mode="json")).objective.instance_noise_images == 100_000
