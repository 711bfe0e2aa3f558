"""What the driver of a search makes of what the workers say, without Ray."""

import pytest

from ganrun.distributed.search import Search
from ganrun.distributed.trial import FAILED, FINISHED, PAUSED, PENDING, RUNNING
from ganrun.errors import UserError
from ganrun.records.search import read_population
from ganrun.storage import Folder
from tests.search.making import search


class Quiet:
    def __init__(self):
        self.said = []

    def hear(self, trial, message):
        pass

    def observe(self, states):
        pass

    def say(self, text):
        self.said.append(text)


@pytest.fixture
def running(values):
    """A search of two trials that run."""
    config = search(values, population=2)
    storage = Folder(f"{config.run.storage}/{config.run.name}")
    made = Search(config, storage, read_population(config, storage), Quiet())
    for trial in made.trials.values():
        trial.state = RUNNING
    return made


def say(running, name, kind, **fields):
    running._heed(running.trials[name], {"kind": kind, **fields})


def score(running, name, images, value):
    say(running, name, "score", images=images, value=value, values={})


def checkpoint(running, name, images, attempt=1):
    say(running, name, "checkpoint", images=images, checkpoint=f"{images:012d}-{attempt:04d}")


def kinds(trial):
    return [order["kind"] for order in trial.orders]


def decided(running):
    """Both have reported the first interval, and 01 is the worse."""
    for name, value in (("00", 1.0), ("01", 2.0)):
        score(running, name, 60, value)
        checkpoint(running, name, 60)
    return running.trials["00"], running.trials["01"]


def test_a_report_needs_a_score_and_a_checkpoint_in_either_order(running):
    score(running, "00", 60, 1.0)
    assert running.population.reported("00") == 0
    checkpoint(running, "00", 72)  # Put off by a turn that was skipped.
    assert running.population.reports["00"][1].checkpoint == f"{72:012d}-0001"
    checkpoint(running, "01", 60)
    score(running, "01", 60, 2.0)
    assert running.population.reported("01") == 1


def test_the_worse_is_told_and_reports_nothing_until_it_has_taken_over(running):
    best, worse = decided(running)
    assert (kinds(best), kinds(worse).count("exploit")) == (["release"] * len(best.orders), 1)
    (order,) = [each["exploit"] for each in worse.orders if each["kind"] == "exploit"]
    assert order["donor"].endswith("/search/trials/00")
    assert (order["number"], order["checkpoint"]) == (1, f"{60:012d}-0001")
    assert order["values"] == running.population.values["01"]

    score(running, "01", 120, 0.1)  # Of what it is about to give up.
    checkpoint(running, "01", 120)
    assert running.population.reported("01") == 1
    say(running, "01", "exploit", number=1, images=60)
    assert worse.order is not None
    checkpoint(running, "01", 60, attempt=2)
    assert worse.order is None
    score(running, "01", 120, 0.5)
    checkpoint(running, "01", 120, attempt=2)
    assert running.population.reported("01") == 2


def test_who_died_with_an_order_is_told_again(running):
    _, worse = decided(running)
    say(running, "01", "exploit", number=1, images=60)
    worse.orders.clear()
    say(running, "01", "started", images=60, workers=1, faults=[])
    assert kinds(worse) == ["exploit"]
    checkpoint(running, "01", 120)
    assert worse.order is not None  # Not of the new attempt.


def test_who_was_done_before_it_was_told_starts_again(running):
    _, worse = decided(running)
    say(running, "01", "finished", images=240)
    assert worse.state == PAUSED
    assert worse.command().number == 1
    say(running, "00", "finished", images=240)
    assert running.trials["00"].state == FINISHED


def test_who_failed_takes_over_at_the_next_comparison(running):
    score(running, "00", 60, 1.0)
    checkpoint(running, "00", 60)
    say(running, "01", "failed", text="the run diverged", wrong_input=False)
    worse = running.trials["01"]
    assert worse.state == PENDING
    assert worse.command().checkpoint == f"{60:012d}-0001"
    assert running.watch.said == ["trial 01 failed; at the next comparison it takes over another: the run diverged"]


def test_who_failed_at_the_end_has_failed_and_wrong_input_ends_the_search(running):
    running.population.decided = 3
    say(running, "01", "failed", text="the run diverged", wrong_input=False)
    assert running.trials["01"].state == FAILED
    with pytest.raises(UserError, match=r"trial 00: run\.imports"):
        say(running, "00", "failed", text="run.imports: no", wrong_input=True)


def test_a_search_that_goes_on_gives_an_order_again_that_a_trial_may_not_have_behind_it(running):
    decided(running)
    again = Search(running.config, running.storage, read_population(running.config, running.storage), Quiet())
    assert again.trials["01"].order == running.trials["01"].order
    storage = Folder(again.trials["01"].place)
    storage.write("latest.json", b'{"checkpoint": "c", "images": 60, "attempt": 2}')
    storage.write("checkpoints/c/state.json", b'{"exploit": 1}')
    once_more = Search(running.config, running.storage, read_population(running.config, running.storage), Quiet())
    assert once_more.trials["01"].order is None
