"""Numbers that change over a run: values, round trips, faults."""

import pytest

from ganrun.config.load import load_config, parse
from ganrun.config.schedules import Schedule, value_at
from ganrun.training.ema import ema_weight
from ganrun.training.player_step import learning_rate
from tests.config.test_load import faults_of
from tests.conftest import write_yaml

RATE = "{schedule: cosine, from: 1e-3, to: 1e-4, until_images: 1000}"


def schedule(shape, begin, to, until=1000):
    return Schedule.model_validate({"schedule": shape, "from": begin, "to": to, "until_images": until})


@pytest.mark.parametrize(
    ("shape", "values"),
    [("linear", [1.0, 0.8, 0.6, 0.2, 0.2]), ("cosine", [1.0, 1 - 0.8 * (1 - 0.5**0.5) / 2, 0.6, 0.2, 0.2])],
)
def test_it_goes_from_one_value_to_the_other_and_stays(shape, values):
    found = [schedule(shape, 1.0, 0.2).at(images) for images in (0, 250, 500, 1000, 10**9)]
    assert found == pytest.approx(values)
    assert value_at(0.3, 500) == 0.3


def test_every_number_may_have_one_and_a_config_keeps_it(values, tmp_path):
    overrides = [
        f"optimizer.generator.learning_rate={RATE}",
        "optimizer.generator.beta1={schedule: linear, from: 0, to: 0.5, until_images: 100}",
        "optimizer.discriminator.beta2={schedule: linear, from: 0.9, to: 0.99, until_images: 100}",
        "objective.penalties={r1: {schedule: cosine, from: 2, to: 0.2, until_images: 100}}",
        "objective.instance_noise={schedule: linear, from: 0, to: 0.1, until_images: 100}",
        "objective.ada_probability={schedule: linear, from: 0, to: 0.3, until_images: 100}",
        "train.average_half_life_images={schedule: linear, from: 0, to: 500, until_images: 100}",
    ]
    config = load_config(write_yaml(tmp_path / "config.yaml", values), overrides)
    assert parse(config.to_yaml().encode(), "here") == config
    assert config.objective.penalties["r1"].at(50) == pytest.approx(1.1)
    assert config.optimizer.of("discriminator").betas_at(50) == pytest.approx((0.5, 0.945))
    assert learning_rate(config.optimizer.of("generator"), 500, 10**6) == pytest.approx(5.5e-4)
    assert ema_weight(value_at(config.train.average_half_life_images, 0), 10, 10**9) == 1  # No average yet.


@pytest.mark.parametrize(
    ("override", "fault"),
    [
        (
            "optimizer.generator.learning_rate={schedule: cosine, from: 1e-3, to: -1, until_images: 10}",
            "a section is not allowed; it should be: a number, or {schedule: linear or cosine, from: A, to: B, "
            "until_images: N} (from and to: greater than 0)",
        ),
        ("optimizer.generator.beta2={schedule: linear, from: 0.9, to: 1, until_images: 10}", "(from and to: less than"),
        ("objective.ada_probability={schedule: linear, from: 0, to: 1.5, until_images: 10}", "(from and to: less than"),
        ("objective.instance_noise={schedule: step, from: 1, to: 0, until_images: 10}", "(schedule: 'linear' or"),
        ("objective.penalties={r1: {schedule: linear, from: 1, to: 2}}", "(until_images: Field required)"),
        (
            "train.average_half_life_images={schedule: linear, from: 0, to: 5, until: 9}",
            "(until_images: Field required)",
        ),
        ("optimizer.generator.learning_rate=[1, 2]", "it should be: a number, or {schedule: linear or cosine, from: A"),
        ("objective.ada_probability=1.5", "1.5 is not allowed; it should be: less than 1"),
    ],
)
def test_a_wrong_one_is_one_line(values, tmp_path, override, fault):
    (said,) = faults_of(write_yaml(tmp_path / "config.yaml", values), override)
    key = override.partition("=")[0]
    assert said.startswith("objective.penalties.r1: " if key == "objective.penalties" else f"{key}: ")
    assert fault in said


@pytest.mark.parametrize(
    ("overrides", "fault"),
    [
        (
            [f"optimizer.generator.learning_rate={RATE}", "optimizer.generator.schedule=linear"],
            "optimizer.generator.schedule: linear, but optimizer.generator.learning_rate has a schedule of its own",
        ),
        (
            ["objective.ada_target=0.6", "objective.ada_probability=0.2"],
            "objective.ada_probability: is set beside objective.ada_target",
        ),
        (
            [
                "objective.instance_noise={schedule: linear, from: 1, to: 0, until_images: 9}",
                "objective.instance_noise_images=8",
            ],
            "objective.instance_noise_images: has no effect beside the until_images of objective.instance_noise",
        ),
        (
            [
                f"optimizer.generator.learning_rate={RATE}",
                "evaluate={every_images: 60, samples: 20}",
                "tune={population: 2, perturb_every_images: 60, "
                "mutations: {optimizer.generator.learning_rate: {log_uniform: [1e-5, 1e-3]}}}",
            ],
            "tune.mutations.optimizer.generator.learning_rate: changes a number, but",
        ),
    ],
)
def test_two_rules_for_one_number_are_refused(values, tmp_path, overrides, fault):
    (said,) = faults_of(write_yaml(tmp_path / "config.yaml", values), *overrides)
    assert said.startswith(fault)


@pytest.mark.parametrize(
    ("name", "gamma", "probability", "half_life"), [("r3gan_cifar10", 0.05, 0.55, 5e6), ("r3gan_64", 2.0, 0.3, 5e5)]
)
def test_r3gan_has_its_authors_five_schedules(name, gamma, probability, half_life):
    config = load_config(f"configs/{name}.yaml")
    settings, objective = config.optimizer.of("generator"), config.objective
    assert settings == config.optimizer.of("discriminator")
    assert objective.penalties["r1"] == objective.penalties["r2"]
    expected = {
        0: (2e-4, 0.9, gamma, 0, 0),
        10_000_000: (1.25e-4, 0.945, 0.55 * gamma, probability / 2, half_life / 2),
        20_000_000: (5e-5, 0.99, 0.1 * gamma, probability, half_life),
    }
    for images, values in expected.items():
        numbers = (objective.penalties["r1"], objective.ada_probability, config.train.average_half_life_images)
        found = (learning_rate(settings, images, 10**9), settings.betas_at(images)[1])
        assert (*found, *(value_at(number, images) for number in numbers)) == pytest.approx(values)
