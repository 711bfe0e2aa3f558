"""The game `inversion`: its generator is that of another run and stays so; what does not go with it is refused."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import ganrun
from ganrun.config.load import load_config, parse
from ganrun.errors import UserError
from ganrun.inference.exporting import write_weights
from ganrun.inference.sampling import Sampler
from ganrun.run_folder.run_folder import find_checkpoint
from tests.conftest import config_of, write_yaml
from tests.ranks import latest_tensors, run_folder, run_ranks


def config_at(run, **changes):
    """The config of the newest checkpoint of a run, with changes."""
    storage, directory = find_checkpoint(str(run))
    config = parse(storage.read(f"{directory}/config.yaml"), "config.yaml")
    return config_of(config.model_dump(mode="json"), **changes)


def generator_of(run, name="generator"):
    storage, directory = find_checkpoint(str(run))
    return load_file(f"{storage.uri}/{directory}/{name}.safetensors")


def test_the_generator_is_that_of_the_run_and_the_encoder_learns(painted):
    theirs, mine = generator_of(painted["plain"], "generator_ema"), generator_of(painted["inverse"])
    assert theirs.keys() == mine.keys()
    assert all(torch.equal(theirs[name], mine[name]) for name in theirs)
    ticks = [json.loads(line) for file in painted["inverse"].glob("metrics/*.jsonl") for line in file.open()]
    losses = [tick["loss/encoder"] for tick in ticks if "loss/encoder" in tick]
    assert losses[-1] < losses[0]


def test_its_generator_is_exported_although_it_has_no_average(painted):
    run = ganrun.load(str(painted["inverse"]))
    z = torch.zeros(2, run.config.model.latent_size, dtype=next(run.generator.parameters()).dtype)
    assert run.generator(z).shape[0] == 2
    kept = [name for name in run.generator.state_dict() if name.startswith("networks.")]
    assert {name.split(".")[1] for name in kept} == {"generator"}


def test_its_exported_weights_draw_what_the_run_draws(painted, tmp_path):
    out = tmp_path / "inverse.safetensors"
    write_weights(Sampler(str(painted["inverse"])), out)
    here, there = (next(Sampler(str(where)).draw(4, 0)) for where in (painted["inverse"], out))
    assert torch.equal(here, there)


def test_it_resumes_when_the_other_run_is_gone(painted, tmp_path):
    values = {"run__storage": str(tmp_path / "runs"), "train__total_images": 120, "objective__of": str(tmp_path / "of")}
    shutil.copytree(painted["plain"], tmp_path / "of")
    config = config_at(painted["inverse"], **values)
    run_ranks(config, 1, tmp_path / "meeting", stop_at=60)
    shutil.rmtree(tmp_path / "of")
    run_ranks(config, 1, tmp_path / "again")
    stopped = latest_tensors(config)
    shutil.copytree(painted["plain"], tmp_path / "of")
    whole = config_at(painted["inverse"], **values | {"run__storage": str(tmp_path / "whole")})
    run_ranks(whole, 1, tmp_path / "never stopped")
    assert all(torch.equal(stopped[name], tensor) for name, tensor in latest_tensors(whole).items())


def test_another_generator_is_refused(painted, tmp_path):
    config = config_at(painted["inverse"], run__storage=str(tmp_path), model__width=8)
    with pytest.raises(UserError, match=r"objective.of: the generator of .* is another than that of this config"):
        run_ranks(config, 1, tmp_path / "meeting")
    assert not Path(run_folder(config), "latest.json").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"objective__of": None}, "objective.of: missing"),
        ({"objective__game": "gan"}, "objective.of: x has no effect with objective.game: gan"),
        ({"objective__loss": "hinge"}, "objective.loss: hinge has no effect with objective.game: inversion"),
        ({"model__name": "pixelcnn"}, "model.name: pixelcnn does not go with objective.game: inversion"),
        ({"optimizer__generator": {"beta1": 0.1}}, "optimizer.generator: objective.game: inversion has no such player"),
        ({"evaluate__metrics": ["duality_gap"]}, "objective.game: inversion has one"),
        ({"evaluate__metrics": ["bits_per_dimension"]}, "which objective.game: inversion does not have"),
    ],
)
def test_what_does_not_go_with_it_is_refused(values, tmp_path, changes, words):
    values |= {"objective": {"game": "inversion", "of": "x"}, "optimizer": {}, "evaluate": {}}
    for name, value in changes.items():
        section, key = name.split("__")
        values[section][key] = value
    with pytest.raises(UserError) as error:
        load_config(write_yaml(tmp_path / "c.yaml", values))
    assert words in str(error.value)


@pytest.mark.drill
def test_two_workers_train_the_same_encoder(painted, tmp_path):
    values = {"train__total_images": 120, "train__precision": "float64"}
    found = []
    for workers in (1, 2):
        config = config_at(painted["inverse"], run__storage=str(tmp_path / str(workers)), **values)
        run_ranks(config, workers, tmp_path / f"meeting-{workers}")
        found.append(latest_tensors(config))
    one, two = found
    encoder = [name for name in one if name.startswith("encoder")]
    assert encoder
    assert all(torch.allclose(one[name].double(), two[name].double(), atol=1e-6) for name in encoder)
