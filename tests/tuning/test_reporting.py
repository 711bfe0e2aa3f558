"""What makes a trial's report."""

import pytest

from ganrun.telemetry.messages import ScoreTaken, TrialExploit, WorkersStarted
from ganrun.telemetry.messages import TrialReport as Report
from ganrun.telemetry.records import ScoreFailed
from ganrun.tuning.population import Population
from ganrun.tuning.reporting import TrialReporter
from tests.tuning.making import exploited, search, written


@pytest.fixture
def population(values):
    return Population(search(values, population=2))


@pytest.fixture
def trial(population):
    return TrialReporter(population, "01")


def score(trial, images, value):
    return trial.handle(ScoreTaken(images, "FID", value, {"kid": 7.0}, "e", 20))


def checkpoint(trial, images, attempt=1):
    return trial.handle(written(images, f"{images:012d}-{attempt:04d}"))


def taken_over(population, number=1, interval=1, images=60):
    """That 01 is to take over 00."""
    values = population.values["01"]
    population.handle(TrialExploit(number, "01", "00", interval, images, "c", values, values))


def heard(population, report):
    population.handle(report)


def test_a_report_needs_a_score_and_a_checkpoint_in_either_order(trial, population):
    assert score(trial, 60, 1.0) is None
    first = checkpoint(trial, 72)  # Put off by a turn that was skipped.
    assert first == Report("01", 1, 60, 1.0, f"{72:012d}-0001")
    heard(population, first)
    assert checkpoint(trial, 120) is None
    assert checkpoint(trial, 132) is None
    assert score(trial, 120, 2.0) == Report("01", 2, 120, 2.0, f"{120:012d}-0001")
    assert checkpoint(trial, 180) is None


def test_the_first_score_has_no_checkpoint_and_comes_once(trial, population):
    first = score(trial, 0, 9.0)
    assert first == Report("01", 0, 0, 9.0, None)
    heard(population, first)
    assert score(trial, 0, 9.0) is None


def test_an_interval_is_reported_once(trial, population):
    score(trial, 60, 1.0)
    heard(population, checkpoint(trial, 60))
    trial.handle(WorkersStarted(0, 1, exploit=0))
    assert score(trial, 60, 1.0) is None
    assert checkpoint(trial, 60, attempt=2) is None


def test_a_checkpoint_that_is_written_after_the_next_score_is_reported_and_so_is_the_next(trial, population):
    """The storage is slower than the rounds of an interval."""
    score(trial, 60, 1.0)
    assert score(trial, 120, 2.0) is None
    heard(population, first := checkpoint(trial, 60))
    assert first == Report("01", 1, 60, 1.0, f"{60:012d}-0001")
    assert checkpoint(trial, 120) == Report("01", 2, 120, 2.0, f"{120:012d}-0001")


def test_a_score_that_comes_after_the_next_checkpoint_is_reported_and_so_is_the_next(trial, population):
    """A task's scores are slower than the rounds of an interval."""
    for images in (60, 120):
        assert checkpoint(trial, images) is None
    heard(population, first := score(trial, 60, 1.0))
    assert first == Report("01", 1, 60, 1.0, f"{60:012d}-0001")
    assert score(trial, 120, 2.0) == Report("01", 2, 120, 2.0, f"{120:012d}-0001")


def test_of_a_checkpoint_that_was_dropped_there_is_no_report_but_of_the_next(trial, population):
    score(trial, 60, 1.0)
    score(trial, 72, 3.0)  # The same interval.
    score(trial, 120, 2.0)
    heard(population, found := checkpoint(trial, 120))
    assert found == Report("01", 2, 120, 2.0, f"{120:012d}-0001")
    assert checkpoint(trial, 132) is None


def test_a_score_that_failed_is_reported_without_one(trial):
    trial.handle(ScoreFailed(images=60, message="no score"))
    assert checkpoint(trial, 60) == Report("01", 1, 60, None, f"{60:012d}-0001")


def test_the_metric_is_the_one_that_the_search_names(values):
    trial = TrialReporter(Population(search(values, population=2, metric="kid")), "01")
    score(trial, 60, 1.0)
    assert checkpoint(trial, 60).score == 7.0


def test_what_is_about_to_be_given_up_is_not_reported(trial, population):
    score(trial, 60, 2.0)
    heard(population, checkpoint(trial, 60))
    score(trial, 120, 0.1)
    taken_over(population)
    assert not trial.up_to_date
    assert checkpoint(trial, 120) is None
    assert score(trial, 120, 0.1) is None
    trial.handle(exploited(1, 60))
    assert trial.up_to_date
    assert checkpoint(trial, 120, attempt=2) is None  # Its score was of the state before.
    assert score(trial, 120, 0.5) == Report("01", 2, 120, 0.5, f"{120:012d}-0002")


def test_who_died_before_it_was_saved_is_not_up_to_date(trial, population):
    taken_over(population)
    trial.handle(exploited(1, 60))
    trial.handle(WorkersStarted(0, 1, exploit=0))
    assert not trial.up_to_date
    trial.handle(WorkersStarted(0, 1, exploit=1))
    assert trial.up_to_date
