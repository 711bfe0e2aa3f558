"""Dropout whose random numbers are keyed, so that it does not depend on the worker and can be repeated."""

from torch import Tensor

from ganrun.rng import KeyedNoise


def dropout(x: Tensor, share: float, noise: KeyedNoise, name: str) -> Tensor:
    """Set a random `share` of x [B, ...] to 0 and scale the rest by 1 / (1 - share), in evaluation too.

    Srivastava et al. 2014 (JMLR 15). torch's own takes no generator: it would draw from the stream of the worker.
    """
    kept = noise.uniform(*x.shape, name=name) >= share
    return x * kept / (1 - share)
