"""The order of events in a run, with a plain object for its host."""

import pytest
import torch

from ganrun.errors import RunError
from ganrun.slots import Slots
from ganrun.training import loop
from ganrun.training.new_state import new_state
from tests.conftest import config_of

CPU = torch.device("cpu")


class PlainHost:
    """Notes what is asked of it, and at which images."""

    def __init__(self, state, stop_at=None, best_at=()):
        self.state, self.stop_at, self.best_at = state, stop_at, best_at
        self.events, self.values = [], []

    def should_stop(self):
        return self.stop_at is not None and self.state.images >= self.stop_at

    def record(self, values, symptoms):
        self.note("tick")
        self.values.append(values)

    def picture(self):
        self.note("picture")

    def evaluate(self):
        self.note("evaluate")
        return self.state.images in self.best_at

    def save(self):
        self.note("save")

    def note(self, kind):
        self.events.append((self.state.images, kind))

    def at(self, kind):
        return [images for images, event in self.events if event == kind]


def source():
    stream = torch.Generator().manual_seed(0)
    return lambda: [
        {"image": torch.randint(0, 256, (2, 1, 16, 16), dtype=torch.uint8, generator=stream)} for _ in range(6)
    ]


@pytest.fixture
def play_of(values):
    """Plays of 12 images a round."""

    def make(total=96, tick=24, evaluate=0, checkpoint=0, **changes):
        config = config_of(
            values,
            train__total_images=total,
            train__tick_images=tick,
            evaluate__every_images=evaluate,
            checkpoint__every_images=checkpoint,
            **changes,
        )
        state = new_state(config, CPU, Slots(config.slots))
        state.sections = config.evaluate, config.checkpoint  # For `train` below.
        return state

    return make


def train(state, batches, host):
    return loop.train(state, batches, host, *state.sections)


def run(state, **options):
    host = PlainHost(state, **options)
    return host, train(state, source(), host)


def test_everything_comes_in_its_order(play_of):
    host, finished = run(play_of(total=48, tick=24, evaluate=24, checkpoint=24), best_at=[24])
    assert finished
    assert host.events == [
        (0, "picture"),
        (24, "tick"),
        (24, "picture"),
        (24, "evaluate"),
        (24, "save"),
        (48, "tick"),
        (48, "picture"),
        (48, "evaluate"),
        (48, "save"),
    ]


def test_an_interval_fires_at_the_end_of_the_round_that_passes_it(play_of):
    host, _ = run(play_of(total=96, tick=20, evaluate=30, checkpoint=40))
    assert host.at("tick") == [24, 48, 60, 84, 96]  # 20, 40, 60, 80 passed, and the end
    assert host.at("evaluate") == [24, 36, 60, 96]  # the first tick; 30, 60, 90 passed
    assert host.at("save") == [48, 84, 96]  # 40, 80 passed, and the end


def test_an_interval_shorter_than_a_round_fires_once_a_round(play_of):
    host, _ = run(play_of(total=36, tick=5, checkpoint=1))
    assert host.at("tick") == host.at("save") == [12, 24, 36]


def test_an_interval_of_0_is_off_but_the_end_is_saved(play_of):
    host, _ = run(play_of(total=36, tick=1000))
    assert host.events == [(0, "picture"), (36, "tick"), (36, "picture"), (36, "save")]


def test_a_run_ends_with_the_round_that_reaches_its_total(play_of):
    state = play_of(total=50)
    run(state)
    assert state.images == 60


def test_a_best_score_is_saved_whatever_the_interval(play_of):
    host, _ = run(play_of(evaluate=36), best_at=[36])
    assert host.at("save") == [36, 96]


def test_a_run_that_is_asked_to_stop_saves_and_leaves(play_of):
    state = play_of()
    host, finished = run(state, stop_at=36)
    assert not finished
    assert state.images == 36
    assert host.events[-1] == (36, "save")


def test_a_run_that_is_asked_to_stop_at_its_end_is_finished(play_of):
    host, finished = run(play_of(), stop_at=96)
    assert finished
    assert host.at("save") == [96]


def test_a_run_that_goes_on_does_the_rest_and_nothing_twice(play_of):
    whole, _ = run(play_of(evaluate=30, checkpoint=40))
    state = play_of(evaluate=30, checkpoint=40)
    first, _ = run(state, stop_at=36)
    second, finished = run(state)
    assert finished
    rest = [event for event in first.events if event != (36, "save")] + second.events
    assert rest == whole.events


def test_a_finished_run_has_nothing_left_to_do(play_of):
    state = play_of(total=24)
    run(state)
    host, finished = run(state)
    assert finished
    assert host.events == []


def test_a_tick_has_the_means_since_the_last_one(play_of):
    host, _ = run(play_of(total=48, tick=24, optimizer__generator={"learning_rate": 1e-3, "schedule": "linear"}))
    names = {"loss/discriminator", "loss/generator", "logit/real", "logit/fake", "logit_sign/real"}
    names |= {
        f"{kind}/{player}" for kind in ("gradient_norm", "learning_rate") for player in ("discriminator", "generator")
    }
    assert [values.keys() for values in host.values] == [names | {"nonfinite"}] * 2
    assert [values["learning_rate/generator"] for values in host.values] == pytest.approx([5e-4, 0.0])
    assert [values["learning_rate/discriminator"] for values in host.values] == [2e-4, 2e-4]
    assert [values["nonfinite"] for values in host.values] == [0, 0]


def break_at(state, images, until=None):
    """A source that puts a NaN into the discriminator at some images, whose turns all fail until it is mended."""
    good = source()

    def next_batches():
        if state.images >= images:
            with torch.no_grad():
                broken = until is None or state.images < until
                state.game.networks["discriminator"].layers[0].weight[0, 0, 0, 0] = torch.nan if broken else 0.0
        return good()

    return next_batches


def test_a_run_that_diverged_ends_without_a_checkpoint_of_it(play_of):
    state = play_of(tick=24, checkpoint=12, train__nonfinite_tolerance=3)
    host = PlainHost(state)
    with pytest.raises(RunError, match=r"4 turns before 48 images .* train\.nonfinite_tolerance: 3"):
        train(state, break_at(state, 24), host)
    assert host.at("save") == [12, 24]  # and none of those rounds in which a turn was skipped
    assert host.values[-1]["nonfinite"] == 4


def test_as_many_faults_as_are_tolerated_end_nothing(play_of):
    state = play_of(total=72, tick=24, train__nonfinite_tolerance=4)
    host = PlainHost(state)
    assert train(state, break_at(state, 24), host)
    assert [values["nonfinite"] for values in host.values] == [0, 4, 4]


def test_skipped_turns_leave_the_other_networks_finite(play_of):
    state = play_of(total=48, train__nonfinite_tolerance=100)
    train(state, break_at(state, 24), PlainHost(state))
    generator = state.game.networks["generator"].state_dict() | state.ema["generator"].network.state_dict()
    assert all(torch.isfinite(tensor).all() for tensor in generator.values())


def test_equal_runs_are_equal(play_of):
    results = []
    for _ in range(2):
        state = play_of()
        run(state)
        results.append(state.ema["generator"].network.state_dict())
    assert all(torch.equal(tensor, results[1][name]) for name, tensor in results[0].items())


def test_a_stop_waits_for_a_round_in_which_nothing_was_skipped(play_of):
    state = play_of(total=600, tick=600, checkpoint=600, train__nonfinite_tolerance=100)
    host = PlainHost(state)
    host.stop_at = 36
    assert not train(state, break_at(state, 24, until=48), host)
    assert host.at("save") == [60]
