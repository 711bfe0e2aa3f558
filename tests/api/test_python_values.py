"""Configs and overrides that a program gives are those of a file and of a command."""

from pathlib import Path

import numpy as np
import pytest

from ganrun.config.load import load_config
from ganrun.config.python_values import overrides, sections
from ganrun.errors import UserError


def test_keywords_are_the_overrides_of_a_command():
    given = overrides(
        {
            "run": {"name": "first", "storage": Path("here")},
            "train": {"total_images": np.int64(128)},
            "objective": {"penalties": {"r1": 0.5}},
            "optimizer.generator.learning_rate": 1e-4,
            "cluster": {"workers": (1, 2)},
        }
    )
    typed = ["run.name=first", "run.storage=here", "train.total_images=128", "objective.penalties={r1: 0.5}"]
    typed += ["optimizer.generator.learning_rate=1e-4", "cluster.workers=[1, 2]"]
    assert load_config("quickstart", given) == load_config("quickstart", typed)


def test_a_config_and_its_sections_stand_for_its_file():
    config = load_config("quickstart")
    assert load_config(sections(config)) == config == load_config(sections(config.model_dump()))
    assert load_config(sections(config), ["train.total_images=7"]).train.total_images == 7


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"train": 3}, "train: 3 is not allowed; give a dict, such as run={'name': 'first'}"),
        ({"run": {"name": {1, 2}}}, "run.name: {1, 2} is not allowed; give a number, a word"),
        ({"run": {"name": b"x"}}, "run.name: b'x' is not allowed"),
    ],
)
def test_values_that_no_file_could_hold_are_named(keywords, message):
    with pytest.raises(UserError) as raised:
        overrides(keywords)
    assert str(raised.value).startswith(message)


def test_all_faults_of_a_dict_are_named_at_once():
    with pytest.raises(UserError) as raised:
        load_config(sections({"run": {"name": "x"}, "trian": {}}))
    assert str(raised.value).splitlines() == [
        "config: 3 faults in the config",
        *("  data: missing; it has no default", "  train: missing; it has no default"),
        "  trian: unknown key; did you mean train?",
    ]
