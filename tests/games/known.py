"""Games that can be solved by hand: runs of rounds, and the updates that theory predicts near the equilibrium."""

import math
from unittest import mock

import numpy as np
import torch

from ganrun.games.latent import Latent
from ganrun.slots import Slots
from ganrun.training.new_state import new_state
from tests.conftest import config_of

RATE = 0.2
"""Learning rate h of both players."""
NORMAL = torch.distributions.Normal(torch.tensor(0.0, dtype=torch.float64), torch.tensor(1.0, dtype=torch.float64))


def values_of(name, tmp_path, objective, turns=1, momentum=0.0, batch=2):
    sgd = {"name": "sgd", "learning_rate": RATE, "momentum": momentum}
    return {
        "run": {"name": name, "storage": str(tmp_path)},
        "data": {
            "shards": "package:dirac",
            "image_size": 1,
            "channels": 1,
            "batch_size": batch,
            "slots": 1,
            "fields": {"image": "point"},
        },
        "model": {"name": name, "latent_size": 1},
        "objective": objective | {"discriminator_turns": turns},
        "optimizer": {"discriminator": sgd, "generator": sgd},
        "train": {"total_images": 1_000_000, "precision": "float64", "average_half_life_images": 0},
    }


def normal_points(count):
    """Points of N(0, 1) at equal quantiles, [count, 1, 1, 1]: their moments are those of the normal to about 1e-4."""
    shares = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    points = NORMAL.icdf(shares)
    return (points / points.square().mean().sqrt())[:, None, None, None]


def path(config, start, points, rounds):
    """Weights after each round, from those of `start` by name, [rounds + 1, weights]."""
    state = new_state(config, torch.device("cpu"), Slots(1))
    weights = {name: each for network in state.game.networks.values() for name, each in network.named_parameters()}
    with torch.no_grad():
        for name, value in start.items():
            weights[name].fill_(value)
    found = [[weights[name].item() for name in start]]
    for _ in range(rounds):
        state.round(lambda: [{"image": points}])
        found.append([weights[name].item() for name in start])
    return np.array(found)


def dirac(tmp_path, objective, rounds=60, start=1e-3, **more):
    config = config_of(values_of("dirac", tmp_path, objective, **more))
    points = torch.zeros(config.data.batch_size, 1, 1, 1, dtype=torch.float64)
    return path(config, {"theta": start, "psi": 0.0}, points, rounds)


def quadratic(tmp_path, objective, rounds=40, batch=4_096, **more):
    """Path of a - 1, b, w, v: the distance from the equilibrium of data N(0, 1).

    z is at equal quantiles too instead of random ones, so that rounds are those of the expected loss.
    """
    config = config_of(values_of("linear_quadratic", tmp_path, objective, batch=batch, **more))
    points = normal_points(batch)
    with mock.patch.object(Latent, "draw", return_value=points.flatten(1)):
        found = path(config, {"a": 1.0001, "b": 1e-4, "w": 0.0, "v": 0.0}, points, rounds)
    return found - np.array([1.0, 0, 0, 0])


def eigenvalues(update):
    return np.sort_complex(np.linalg.eigvals(update))


def fitted(states):
    """The linear update that explains a path best, [weights, weights]."""
    solution, *_ = np.linalg.lstsq(states[:-1], states[1:], rcond=None)
    return solution.T


def alternating(pull, push, damping=0.0, turns=1):
    """Update of (g, d): `turns` steps d <- d - h (pull g + damping d), then g <- g + h push d."""
    turn = np.array([[1, 0], [-RATE * pull, 1 - RATE * damping]])
    return np.array([[1, RATE * push], [0, 1]]) @ np.linalg.matrix_power(turn, turns)


def with_momentum(pull, push, momentum):
    """Update of (g, d, velocity of g, velocity of d), with D's turn first."""
    identity = np.eye(4)
    velocity_of_d, d = identity.copy(), identity.copy()
    velocity_of_d[3] = [pull, 0, 0, momentum]
    d[1] = [0, 1, 0, -RATE]
    velocity_of_g, g = identity.copy(), identity.copy()
    velocity_of_g[2] = [0, -push, momentum, 0]
    g[0] = [1, 0, -RATE, 0]
    return g @ velocity_of_g @ d @ velocity_of_d


def simultaneous(pull, push):
    """Update of (g, d) if neither saw the other's step."""
    return np.array([[1, RATE * push], [-RATE * pull, 1]])


def radius(update):
    """Factor of the distance from the equilibrium per round, the modulus of the largest eigenvalue."""
    return max(abs(np.linalg.eigvals(update)))


HALF = 0.5
"""sigma(0), the slope of the cross-entropies at the equilibrium."""
assert math.isclose(1 / (1 + math.exp(0)), HALF)
