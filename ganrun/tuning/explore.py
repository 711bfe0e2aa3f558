"""Explore step of population-based training: sampling and perturbation of hyper-parameters.

Jaderberg et al. 2017 (arXiv:1711.09846): each hyper-parameter is independently resampled from its prior with some
probability, else multiplied by one of two factors (0.8 and 1.2 in the paper) with equal probability.
"""

import math
from random import Random
from typing import Any

from ganrun.config.schema_tune import MutationConfig, TuneConfig
from ganrun.config.tunable import Values


def stream(*parts: int | str) -> Random:
    """Return a random stream keyed by its purpose, the same on every machine. (`ganrun.rng` would import torch.)"""
    return Random("/".join(map(str, parts)))


def sample(mutation: MutationConfig, random: Random) -> Any:
    """Sample a value from the prior."""
    if mutation.choice is not None:
        return random.choice(mutation.choice)
    if mutation.uniform is not None:
        return random.uniform(*mutation.uniform)
    low, high = mutation.ends
    # exp may round beyond a bound.
    return min(max(math.exp(random.uniform(math.log(low), math.log(high))), low), high)


def perturb(mutation: MutationConfig, value: Any, factors: tuple[float, float], random: Random) -> Any:
    """Multiply a value by one of the factors, clamped to its prior. A choice moves to a neighbour in its list."""
    if mutation.choice is not None:
        place = mutation.choice.index(value) + random.choice((-1, 1))
        return mutation.choice[min(max(place, 0), len(mutation.choice) - 1)]
    low, high = mutation.ends
    return min(max(value * random.choice(factors), low), high)


def first_values(tune: TuneConfig, seed: int, given: Values, trial: str) -> Values:
    """Return the first hyper-parameters of a trial, each from its prior.

    Args:
        tune: priors.
        seed: of the search.
        given: hyper-parameters of the config; an integer there stays an integer.
        trial: name of the trial.
    """
    random = stream(seed, "first", trial)
    return {key: _fitting(given[key], sample(each, random)) for key, each in tune.mutations.items()}


def explored(tune: TuneConfig, seed: int, given: Values, donor: Values, trial: str, interval: int) -> Values:
    """Return the donor's hyper-parameters, each resampled or perturbed. Arguments as of `first_values`."""
    random, values = stream(seed, "explore", trial, interval), {}
    for key, mutation in tune.mutations.items():
        if random.random() < tune.resample_probability:
            value = sample(mutation, random)
        else:
            value = perturb(mutation, donor[key], tune.perturbation_factors, random)
        values[key] = _fitting(given[key], value)
    return values


def _fitting(given: Any, value: Any) -> Any:
    if isinstance(given, int) and not isinstance(given, bool) and isinstance(value, float):
        return round(value)
    return list(value) if isinstance(value, tuple) else value
