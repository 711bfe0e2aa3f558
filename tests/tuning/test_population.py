"""Truncation selection, what makes a report void, and ancestries, on cases worked out by hand."""

import pytest

from ganrun.telemetry.messages import TrialExploit, TrialReport
from ganrun.tuning.population import Population, Segment
from ganrun.tuning.summary import score_spread, table
from ganrun.tuning.trial_config import schedule_config
from tests.tuning.making import search


def report(population, trial, interval, score, checkpoint="x"):
    population.handle(TrialReport(trial, interval, 60 * interval, score, checkpoint))


def exploit(population, number, trial, donor, interval, **after):
    population.handle(TrialExploit(number, trial, donor, interval, 60 * interval, "x", {}, after))


def test_the_worst_quarter_takes_over_one_of_the_best_quarter(values):
    population = Population(search(values, population=8))
    for number, trial in enumerate(population.trials):
        assert population.decide() == []  # Not all have reported.
        report(population, trial, 1, [5, 1, 8, 3, 2, 7, 6, 4][number])
    found = population.decide()
    assert {each.trial for each in found} == {"02", "05"}  # 8 and 7.
    assert {each.donor for each in found} <= {"01", "04"}  # 1 and 2.
    for each in found:
        assert each.before == population.values[each.trial]
        assert each.after.keys() == population.values[each.donor].keys() != set()
        for key, value in each.after.items():
            assert value != population.values[each.donor][key] or value in (0.0, 1e-5, 1e-2)
    assert [each.number for each in found] == [1, 2]
    assert population.decide() == []  # An interval is decided once.


def test_more_is_better_with_mode_max(values):
    population = Population(search(values, mode="max"))
    for score, trial in enumerate(population.trials):
        report(population, trial, 1, score)
    (found,) = population.decide()
    assert (found.trial, found.donor) == ("00", "03")


@pytest.mark.parametrize("worst", [None, float("nan"), float("inf")])
def test_without_a_score_a_trial_is_the_worst(values, worst):
    population = Population(search(values))
    for number, trial in enumerate(population.trials):
        report(population, trial, 1, worst if number == 1 else 10 - number)
    assert [each.trial for each in population.decide()] == ["01"]


def test_who_failed_is_the_worst_and_holds_nobody_up(values):
    population = Population(search(values))
    for number, trial in enumerate(population.trials[:3]):
        report(population, trial, 1, 10 + number)
    assert population.decide() == []
    (found,) = population.decide({"03"})
    assert (found.trial, found.donor) == ("03", "00")


def test_who_lost_its_report_is_left_out_and_holds_nobody_up(values):
    population = Population(search(values))
    for number, trial in enumerate(population.trials[:3]):
        report(population, trial, 1, 10 + number)
    assert population.decide() == []
    report(population, "03", 2, 99)
    (found,) = population.decide()
    assert (found.trial, found.donor) == ("02", "00")
    for number, trial in enumerate(population.trials[1:]):
        report(population, trial, 2, 10 + number)
    assert population.decide() == []
    (found,) = population.decide(finished=["00"])
    assert (found.trial, found.donor) == ("03", "01")


def test_nothing_is_decided_at_the_end_and_in_other_methods(values):
    for config, interval in ((search(values, total_images=60), 1), (search(values, method="random"), 1)):
        population = Population(config)
        for number, trial in enumerate(population.trials):
            report(population, trial, interval, number)
        assert population.decide() == []


def test_an_exploit_makes_later_reports_of_its_trial_void(values):
    population = Population(search(values))
    report(population, "01", 1, 9)
    report(population, "01", 2, 1)
    exploit(population, 1, "01", "00", 1, a=2)
    assert population.reported("01") == 1
    assert population.best().score == 9
    assert len(population.told) == 2
    assert population.values["01"] == {"a": 2}
    assert population.decided == 1


def test_an_ancestry_follows_the_weights(values):
    population = Population(search(values, total_images=360))
    first = population.first
    exploit(population, 1, "02", "00", 1, a=1)
    exploit(population, 2, "00", "03", 2, a=2)
    exploit(population, 3, "01", "02", 3, a=3)
    exploit(population, 4, "02", "03", 4, a=4)
    # 01 took over 02 at 3, which had taken over 00 at 1, before 00 took over 03.
    assert population.lineage("01") == [
        Segment(0, "00", first["00"]),
        Segment(60, "02", {"a": 1}),
        Segment(180, "01", {"a": 3}),
    ]
    assert population.lineage("02") == [Segment(0, "03", first["03"]), Segment(240, "02", {"a": 4})]
    assert population.lineage("02", 3) == [Segment(0, "00", first["00"]), Segment(60, "02", {"a": 1})]
    assert population.lineage("03") == [Segment(0, "03", first["03"])]


def test_the_ancestry_as_a_schedule(values):
    config = search(values)
    population = Population(config)
    rates = {"optimizer.generator.learning_rate": 5e-4, "objective.label_smoothing": 0.2}
    exploit(population, 1, "01", "02", 2, **rates)
    schedule = schedule_config(config, population.lineage("01"))
    assert schedule.tune is None
    assert schedule.run.seed == config.run.seed + 2
    assert schedule.optimizer.generator.learning_rate == population.first["02"]["optimizer.generator.learning_rate"]
    assert schedule.train.schedule == ({"images": 120, **rates},)


def test_the_table_and_a_sweep_over_seeds(values):
    population = Population(search(values, method="seeds"))
    for trial, score in zip(population.trials, (1.0, 2.0, 4.0, None), strict=True):
        report(population, trial, 4, score)
    assert score_spread(population) == (pytest.approx(7 / 3), pytest.approx((7 / 3) ** 0.5), 3)
    lines = table(population).splitlines()
    assert [line.split()[0] for line in lines[1:5]] == ["00", "01", "02", "03"]
    assert lines[5] == "mean 2.333, standard deviation 1.528 over 3 seeds"
