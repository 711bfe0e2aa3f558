"""What is drawn from priors and how it is perturbed, against what the paper says."""

import math

import numpy as np
import pytest
from scipy.stats import kstest

from ganrun.config.schema_tune import MutationConfig
from ganrun.tuning.explore import explored, first_values, perturb, sample, stream
from tests.tuning.making import MUTATIONS, search

LOG = MutationConfig(log_uniform=(1e-5, 1e-2))
FLAT = MutationConfig(uniform=(-1.0, 3.0))
WORDS = MutationConfig(choice=("a", "b", "c"))


def drawn(mutation, count=2_000):
    random = stream(0)
    return [sample(mutation, random) for _ in range(count)]


def test_priors_have_their_distributions():
    assert kstest(np.log(drawn(LOG)), "uniform", (math.log(1e-5), math.log(1e3))).pvalue > 0.01
    assert kstest(drawn(FLAT), "uniform", (-1, 4)).pvalue > 0.01
    assert [drawn(WORDS).count(word) / 2_000 for word in "abc"] == pytest.approx([1 / 3] * 3, abs=0.04)


def test_a_perturbed_value_is_times_a_factor_either_as_likely_and_stays_in_its_prior():
    random = stream(1)
    found = [perturb(LOG, 1e-3, (0.8, 1.2), random) for _ in range(1_000)]
    assert set(found) == {0.8e-3, 1.2e-3}
    assert found.count(0.8e-3) / 1_000 == pytest.approx(0.5, abs=0.05)
    assert {perturb(LOG, 0.95e-2, (0.8, 1.2), random) for _ in range(50)} == {0.8 * 0.95e-2, 1e-2}


def test_a_choice_moves_to_a_neighbour():
    random = stream(2)
    assert {perturb(WORDS, "b", (0.8, 1.2), random) for _ in range(50)} == {"a", "c"}
    assert {perturb(WORDS, "a", (0.8, 1.2), random) for _ in range(50)} == {"a", "b"}


def test_hyper_parameters_are_resampled_one_by_one_with_the_probability(values):
    config = search(values, resample_probability=0.25)
    donor = {"optimizer.generator.learning_rate": 1e-3, "objective.label_smoothing": 0.1}
    anew = dict.fromkeys(donor, 0)
    both = 0
    for interval in range(2_000):
        after = explored(config.tune, 0, donor, donor, "01", interval)
        fresh = [not any(math.isclose(after[key], donor[key] * factor) for factor in (0.8, 1.2)) for key in donor]
        both += all(fresh)
        for key, is_fresh in zip(donor, fresh, strict=True):
            anew[key] += is_fresh
    assert [count / 2_000 for count in anew.values()] == pytest.approx([0.25] * 2, abs=0.03)
    assert both / 2_000 == pytest.approx(0.25**2, abs=0.02)


def test_draws_are_a_function_of_seed_trial_and_interval(values):
    tune, given = search(values).tune, dict.fromkeys(MUTATIONS, 0.0)
    first = first_values(tune, 0, given, "01")
    assert first == first_values(tune, 0, given, "01")
    assert first != first_values(tune, 0, given, "02")
    assert first != first_values(tune, 1, given, "01")
    after = explored(tune, 0, given, first, "01", 1)
    assert after == explored(tune, 0, given, first, "01", 1)
    assert after != explored(tune, 0, given, first, "01", 2)


def test_whole_numbers_stay_whole(values):
    key, given = "train.average_half_life_images", {"train.average_half_life_images": 10_000}
    tune = search(values, mutations={key: {"log_uniform": [100, 10_000]}}).tune
    first = first_values(tune, 0, given, "00")
    assert isinstance(first[key], int)
    assert isinstance(explored(tune, 0, given, first, "00", 1)[key], int)
