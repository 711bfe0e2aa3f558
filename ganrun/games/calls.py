"""Calls of generators and discriminators: each receives what the arguments of its `forward` name.

    generator(z, given, noise)            a generator that drops out or injects noise draws it from `noise`
    generator(given, noise)               a generator without z
    generator(z, label)                   of class labels, or unconditional: `label` is then None
    discriminator(images, given, noise)   logits [B], or a map of them [B, H', W']
    discriminator(images, label)

`noise` may be left out. torch's own dropout must not be used: it draws from torch's global stream, so that a run would
depend on the number of workers.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from ganrun.models.given import Given
from ganrun.rng import KeyedNoise


@functools.cache
def _arguments(function: Callable[..., Any]) -> tuple[str, ...]:
    """Return the names of the arguments of a method, without `self`."""
    return tuple(inspect.signature(function).parameters)[1:]


def takes_given(network: nn.Module) -> bool:
    """Return True if a network takes any condition, not only class labels."""
    return "given" in _arguments(type(network).forward)


def takes_z(generator: nn.Module) -> bool:
    """Return True unless the first argument of a generator is `given`."""
    return _arguments(type(generator).forward)[:1] != ("given",)


def generate(generator: nn.Module, z: Tensor | None, given: Given, noise: KeyedNoise) -> Tensor:
    """Return images [B, C, H, W] for z [B, Z]; None for a generator without z."""
    first = () if z is None else (z,)
    images: Tensor = _call(generator, "forward", first, given, noise)
    return images


def judge(discriminator: nn.Module, images: Tensor, given: Given, noise: KeyedNoise, output: str = "forward") -> Any:
    """Return the logits of images [B, C, H, W], or what another method, such as `features`, returns for them."""
    return _call(discriminator, output, (images,), given, noise)


def logged(network: nn.Module) -> dict[str, Tensor]:
    """Return the scalars by name that a network's method `logged_scalars`, if it has one, adds to its player's loss.

    They are copies, since the optimizer changes weights before they are read.
    """
    scalars: dict[str, Tensor] = getattr(network, "logged_scalars", dict)()
    return {name: value.detach().clone() for name, value in scalars.items()}


def _call(network: nn.Module, method: str, first: tuple[Tensor, ...], given: Given, noise: KeyedNoise) -> Any:
    names = _arguments(getattr(type(network), method))
    call = network if method == "forward" else getattr(network, method)
    if "given" not in names:
        return call(*first, given.get("label"))
    return call(*first, given, noise) if "noise" in names else call(*first, given)
