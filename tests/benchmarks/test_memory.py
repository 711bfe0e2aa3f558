"""The forecast of a worker's memory beside what a CPU's allocator is asked for."""

import pytest
from torch.profiler import ProfilerActivity, profile

from ganrun.benchmarks.memory import forecast
from ganrun.benchmarks.rounds import rounds
from tests.families import FAMILIES
from tests.training.test_replay import family_config


def measured(config):
    """Most bytes that three rounds have at once: every allocation and release is in the trace."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as trace:
        state, play = rounds(config)
        for _ in range(2 + config.objective.penalty_every_rounds):
            play()
        del state
    events = [event for event in trace.profiler.kineto_results.events() if event.name() == "[memory]"]
    live = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        live += event.nbytes()
        most = max(most, live)
    return most


def wide(name, values, **train):
    """A family's config with enough images that activations matter, in float32 and on one slot."""
    config = family_config(name, values | {"model": values["model"] | {"width": 16}}, 1)
    data = config.data.model_copy(update={"batch_size": 96})
    return config.model_copy(
        update={"data": data, "train": config.train.model_copy(update={"precision": "float32", **train})}
    )


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("name", ["dcgan", "wgan_gp_dcgan", "r3gan", "pix2pix", "esrgan"])
def test_the_forecast_is_within_15_percent_of_what_is_allocated(name, again, values):
    config = wide(name, values, checkpoint_activations=again)
    assert forecast(config).total == pytest.approx(measured(config), rel=0.15)


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_every_family_has_a_forecast(name, values):
    found = forecast(wide(name, values))
    assert min(found) > 0


def test_parts_are_those_of_the_config(values):
    config = wide("dcgan", values)
    half = forecast(config.model_copy(update={"train": config.train.model_copy(update={"precision": "bf16"})}))
    whole = forecast(config)
    assert half[:2] == whole[:2]
    assert half.activations < 0.75 * whole.activations
    sgd = {"generator": {"name": "sgd", "momentum": 0.0}, "discriminator": {"name": "sgd", "momentum": 0.9}}
    stepped = forecast(wide("dcgan", values | {"optimizer": sgd})).optimizer
    assert whole.optimizer * 1 / 3 < stepped < whole.optimizer * 2 / 3  # Adam: a gradient and two moments.
