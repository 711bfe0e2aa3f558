"""A search as Ray Tune shows it: its ResultGrid has images, score and hyper-parameters of each trial."""

import json
import math
import os
import subprocess
import sys

import pytest

from ganrun.config.load import load_config
from ganrun.storage import open_storage
from ganrun.telemetry.messages import Progress, ScoreTaken, TrialExploit, TrialReport, WorkersStarted
from ganrun.telemetry.records import ScoreFailed
from ganrun.tuning.population import Population
from ganrun.tuning.records import read_population
from ganrun.tuning.trial_metrics import TrialMetrics, metrics_of
from tests.commands import LOCAL_RAY
from tests.conftest import write_yaml
from tests.tuning.making import exploited, search
from tests.waiting import WAIT

RATE = "optimizer.generator.learning_rate"
SEARCH = """
import json, sys
from ganrun import tune
from ganrun.tuning import tuner

grids, tuner_of = [], tuner.tuner_of

def kept(*arguments):
    made = tuner_of(*arguments)
    fit = made.fit
    made.fit = lambda: grids.append(fit())
    return made

tuner.tuner_of = kept
code = tune.main([sys.argv[1]])
(grid,) = grids
best = grid.get_best_result()
rows = grid.get_dataframe().to_dict("records")
print(json.dumps([code, len(grid.errors), best.config["trial"], best.metrics["distance"], rows]))
"""


@pytest.fixture
def population(values):
    return Population(search(values, population=2))


@pytest.mark.drill
def test_the_result_grid_of_a_search_has_its_best_trial(values, tmp_path, ray_here):
    written = json.loads(search(values, population=2, total_images=120).model_dump_json(exclude_none=True))
    config = load_config(path := write_yaml(tmp_path / "search.yaml", written))
    environment = os.environ | LOCAL_RAY | {"RAY_ADDRESS": ray_here[0]}
    done = subprocess.run(
        [sys.executable, "-c", SEARCH, str(path)], env=environment, capture_output=True, text=True, timeout=WAIT
    )
    assert done.returncode == 0, done.stderr
    code, errors, best, score, rows = json.loads(done.stdout.splitlines()[-1])
    assert (code, errors) == (0, 0)

    population = read_population(config, open_storage(f"{config.run.storage}/{config.run.name}"))
    assert population.exploits
    first, *_ = standings = population.standings()
    assert (best, score) == (first.trial, first.last.score)
    found = {row["config/trial"]: row for row in rows}
    assert found.keys() == set(population.trials)
    for each in standings:
        row = found[each.trial]
        assert (row["images"], row["timesteps_total"], row["distance"]) == (120, 120, each.last.score)
        assert row[f"config/{RATE}"] == population.first[each.trial][RATE]
        assert row[RATE] == population.values[each.trial][RATE]


def test_images_and_score_are_those_of_the_weights_that_a_trial_has(population):
    metrics = metrics_of(population, "01")
    assert metrics.values == population.first["01"]
    started = metrics.result([WorkersStarted(0, 1), Progress(72)])
    assert (started["images"], started["timesteps_total"]) == (72, 72)
    assert math.isnan(started["distance"])
    late = metrics.result([score(60, 2.0)])
    assert (late["images"], late["distance"]) == (72, 2.0)
    assert late[RATE] == population.first["01"][RATE]

    taken = metrics.result([exploited(1, 60, values={RATE: 0.5})])
    assert (taken["images"], taken[RATE]) == (60, 0.5)
    assert math.isnan(taken["distance"])
    metrics.score = 1.0
    assert math.isnan(metrics.result([ScoreFailed(images=120, message="")])["distance"])


def test_the_score_is_the_one_that_the_search_names():
    assert TrialMetrics("kid").result([score(60, 2.0, kid=0.1)])["kid"] == 0.1


def test_a_trial_goes_on_with_the_score_of_its_last_report_but_for_one_that_it_gave_up(population):
    population.handle(TrialReport("01", 1, 60, 3.0, "c"))
    assert (metrics_of(population, "01").images, metrics_of(population, "01").score) == (60, 3.0)
    population.handle(TrialExploit(1, "01", "00", 1, 60, "c", {}, {RATE: 0.5}))
    after = metrics_of(population, "01")
    assert after.values == {RATE: 0.5}
    assert math.isnan(after.score)


def score(images, value, **values):
    return ScoreTaken(images, "a distance", value, values, None, 20)
