"""Which keys may be searched, what a schedule sets, and the faults of both."""

import pytest

from ganrun.config.load import load_config, parse
from ganrun.config.schema import Config
from ganrun.config.tunable import is_tunable, next_schedule_step, scheduled, value_of, with_values
from ganrun.errors import UserError
from ganrun.tuning.trial_config import trial_config
from tests.conftest import config_of, write_yaml
from tests.tuning.making import search

STRUCTURAL = ["model.width", "data.batch_size", "data.slots", "run.seed", "evaluate.samples", "objective.loss"]
STRUCTURAL += [
    "objective.discriminator_turns",
    "train.total_images",
    "cluster.workers",
    "optimizer.generator",
    "nonsense",
]
TUNABLE = ["optimizer.generator.beta1", "optimizer.encoder.learning_rate", "objective.penalties.r1"]
TUNABLE += ["objective.label_smoothing", "objective.ada_target", "train.average_half_life_images"]


def test_structural_keys_are_told_from_others():
    assert [key for key in STRUCTURAL if is_tunable(key)] == []
    assert [key for key in TUNABLE if not is_tunable(key)] == []


def test_values_go_where_their_keys_say(values):
    config = config_of(values)
    changed = with_values(config, {"objective.penalties.r1": 2.5, "optimizer.generator.beta1": 0.1})
    assert changed.objective.penalties == {"r1": 2.5}
    assert value_of(changed, "optimizer.generator.beta1") == 0.1
    assert value_of(config, "objective.penalties.r1") is None
    back = changed.model_copy(update={"objective": config.objective, "optimizer": config.optimizer})
    assert back == config


def test_a_schedule_holds_from_its_images_on(values):
    entries = [{"images": 100, "objective.label_smoothing": 0.1}, {"images": 200, "objective.label_smoothing": 0.2}]
    config = config_of(values, train__schedule=entries)
    assert scheduled(config, 99) == {}
    assert scheduled(config, 100) == {"objective.label_smoothing": 0.1}
    assert scheduled(config, 240) == {"objective.label_smoothing": 0.2}
    assert [next_schedule_step(config, images) for images in (0, 100, 199, 200)] == [100, 200, 200, None]


def test_a_trial_saves_where_it_is_scored(values):
    config = search(values)
    trial = trial_config(config, "02", {"objective.label_smoothing": 0.25})
    assert (trial.run.name, trial.run.seed) == ("02", 2)
    assert trial.run.storage.endswith("/search/trials")
    assert trial.checkpoint.every_images == 60
    assert trial.objective.label_smoothing == 0.25
    finer = config.model_copy(update={"checkpoint": config.checkpoint.model_copy(update={"every_images": 20})})
    assert trial_config(finer, "00", {}).checkpoint.every_images == 20
    assert parse(trial.to_yaml().encode(), "x") == trial


def test_a_trial_is_scored_by_as_many_samples_as_the_search_says(values):
    config = search(values, samples=6)
    assert config.evaluate.samples == 12
    trial = trial_config(config, "00", {})
    assert trial.evaluate.samples == 6
    assert parse(trial.to_yaml().encode(), "x") == trial
    assert trial_config(search(values), "00", {}).evaluate.samples == 12


def test_all_faults_come_at_once_by_name(values, tmp_path):
    values["tune"] = {
        "perturb_every_images": 70,
        "samples": 3_000,
        "metric": "kid",
        "mutations": {
            "model.width": {"choice": [4, 8]},
            "data.batch_size": {"choice": [4, 8]},
            "optimizer.generator.learning_rate": {"log_uniform": [1e-2, 1e-4]},
            "objective.label_smoothing": {"uniform": [0, 2]},
            "objective.penalties.r9": {"uniform": [1, 2]},
            "objective.ada_target": {"uniform": [0, 0.5]},
            "optimizer.generator.beta1": {},
        },
    }
    values["train"]["schedule"] = [{"images": 5, "model.width": 3}, {"images": 5, "optimizer.generator.beta1": 2}]
    with pytest.raises(UserError) as found:
        load_config(write_yaml(tmp_path / "wrong.yaml", values))
    text = str(found.value)
    for part in (
        "train.total_images: 240 is no multiple of tune.perturb_every_images: 70",
        "evaluate.every_images: 0, but at tune.perturb_every_images: 70 each trial needs a score",
        "tune.samples: 3000, but the last score has evaluate.samples: 2000",
        "tune.metric: kid is not computed; allowed: distance; add it to evaluate.metrics",
        "tune.mutations.model.width: structural",
        "tune.mutations.data.batch_size: structural",
        "tune.mutations.optimizer.generator.learning_rate: log_uniform: [0.01, 0.0001] should be two numbers",
        "tune.mutations.objective.label_smoothing: objective.label_smoothing: 2.0 is not allowed",
        "tune.mutations.objective.penalties.r9: objective.penalties: 'r9' is not allowed",
        "tune.mutations.objective.ada_target: 0 is no weaker",
        "tune.mutations.optimizer.generator.beta1: nothing given",
        "train.schedule.0.model.width: structural",
        "train.schedule.1: images: 5 should be a whole number above 5",
        "train.schedule.1.optimizer.generator.beta1: optimizer.generator.beta1: 2 is not allowed",
    ):
        assert part in text


def test_a_mistyped_key_is_named(values, tmp_path):
    values["tune"] = {
        "perturb_every_images": 60,
        "populaton": 3,
        "mutations": {"objective.ada_target": {"choices": []}},
    }
    with pytest.raises(UserError) as found:
        load_config(write_yaml(tmp_path / "wrong.yaml", values))
    assert "tune.populaton: unknown key; did you mean tune.population?" in str(found.value)
    assert "did you mean tune.mutations.objective.ada_target.choice?" in str(found.value)


def test_a_config_without_a_search_says_so_and_is_read_again(values):
    config = config_of(values)
    assert config.tune is None
    assert parse(config.to_yaml().encode(), "x") == config
    assert Config.model_validate(config.model_dump(mode="json")) == config
