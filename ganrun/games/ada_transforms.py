"""Parameters of ADA's transforms: their distributions, and the matrices made of them.

Ranges and order of the transforms are those of Karras et al. 2020 (arXiv:2006.06676), appendix B and figure 21.

Shapes: B images, K random numbers of an image, T transforms. Coordinates go from -1 to 1, as in `F.grid_sample`.
"""

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ganrun.rng import KeyedNoise

Law = Literal["integer", "uniform", "normal"]
Weights = Mapping[str, float]
"""Weights of the numbers of an image by name, in a sum."""


class TransformParameter(NamedTuple):
    """Random parameter of a transform, a number for each image. It is 0 where the transform is not applied.

    Attributes:
        transform: the transform; its parameters are applied together.
        law: integer: 0 .. `sides` - 1, alike likely, or, with 0 sides, round(U(-1/8, 1/8) S); uniform: U(-1/2, 1/2);
            normal: N(0, 1).
        sides: see `law`.
    """

    transform: str
    law: Law
    sides: int = 0


GROUPS: dict[str, dict[str, TransformParameter]] = {
    "blit": {
        "mirror": TransformParameter("mirror", "integer", 2),
        "quarter_turns": TransformParameter("quarter_turns", "integer", 4),
        "integer_x": TransformParameter("integer_translation", "integer"),
        "integer_y": TransformParameter("integer_translation", "integer"),
    },
    "geometric": {
        "rotation_before": TransformParameter("rotation_before", "uniform"),
        "rotation_after": TransformParameter("rotation_after", "uniform"),
        "scale": TransformParameter("scale", "normal"),
        "stretch": TransformParameter("stretch", "normal"),
        "fractional_x": TransformParameter("fractional_translation", "normal"),
        "fractional_y": TransformParameter("fractional_translation", "normal"),
    },
    "cutout": {"cut_x": TransformParameter("cutout", "uniform"), "cut_y": TransformParameter("cutout", "uniform")},
    "color": {
        "luma": TransformParameter("luma", "integer", 2),
        "hue": TransformParameter("hue", "uniform"),
        "brightness": TransformParameter("brightness", "normal"),
        "contrast": TransformParameter("contrast", "normal"),
        "saturation": TransformParameter("saturation", "normal"),
    },
    "filter": {f"band_{band}": TransformParameter(f"band_{band}", "normal") for band in range(4)},
    "noise": {"noise": TransformParameter("noise", "normal")},
}
"""Parameters by the group of their transforms. Those of the first three move or cut an image, and the pictures of its
condition with it."""
MOVING = ("blit", "geometric", "cutout")
ROTATIONS = ("rotation_before", "rotation_after")
"""The two rotations, before and after the stretch: at least one of them is applied with probability p."""
SCALE, CONTRAST, SATURATION = 0.2 * math.log(2), 0.5 * math.log(2), math.log(2)
"""Standard deviations of the logarithms of scale and stretch, contrast, and saturation and the gains of bands."""
FRACTIONAL, BRIGHTNESS, NOISE = 2 * 0.125, 0.2, 0.1
"""Standard deviations of fractional translation, of brightness, and of that of noise, for images in [-1, 1]."""


class Term(NamedTuple):
    """exp(log . v + level) cos(angle . v + phase) for the numbers v of an image."""

    log: Weights
    level: float
    angle: Weights
    phase: float


def geometry_terms() -> list[list[Term]]:
    """Return the terms whose sums are the entries of L [2, 2], by rows: the linear part of the map of coordinates.

    L maps output to input coordinates, L = s R(q + a) diag(t, 1 / t) R(b) M with scale s, stretch t, quarter turns q,
    rotations a and b, and mirroring M = diag(+-1, 1). With Z = diag(1, -1),

        R(a) diag(t, 1 / t) R(b) = (t + 1 / t) / 2 R(a + b) + (t - 1 / t) / 2 R(a - b) Z.

    The paper mirrors and turns first. Angles, shifts and logarithms of scales are symmetric about 0 and alike on both
    axes, so neither the inverse nor this order changes the distribution.
    """
    wide, tall = {"scale": SCALE, "stretch": SCALE}, {"scale": SCALE, "stretch": -SCALE}
    turn = {"quarter_turns": math.pi / 2, "rotation_before": 2 * math.pi}
    both, difference = {**turn, "rotation_after": 2 * math.pi}, {**turn, "rotation_after": -2 * math.pi}
    quarter, half, mirrored = math.pi / 2, -math.log(2), {"mirror": math.pi}
    # Phases of R(a + b) and of R(a - b) Z as cosines, and the column that is mirrored.
    phases = [(0.0, 0.0, mirrored), (quarter, -quarter, {}), (-quarter, -quarter, mirrored), (0.0, math.pi, {})]
    return [
        [
            Term(wide, half, both | column, of_sum),
            Term(tall, half, both | column, of_sum),
            Term(wide, half, difference | column, of_difference),
            Term(tall, half, difference | column, of_difference + math.pi),
        ]
        for of_sum, of_difference, column in phases
    ]


def colour_terms(channels: int) -> list[list[Term]]:
    """Return the terms whose sums are the entries of the colour matrix, by rows: [3, 3] of RGB, else [1, 1].

    With the grey axis v = (1, 1, 1) / sqrt(3), contrast c, luma flip l (1 or -1), hue h and saturation s, it is
    c l v v^T + c s R(h) (I - v v^T), where R(h) rotates about v. Entry (i, j) of the second part is
    2/3 c s cos(h + 2 pi (j - i) / 3).
    """
    if channels != 3:
        return [[light()]]
    third, chroma = 2 * math.pi / 3, {"contrast": CONTRAST, "saturation": SATURATION}
    return [
        [light(1 / 3), Term(chroma, math.log(2 / 3), {"hue": 2 * math.pi}, third * (column - row))]
        for row in range(3)
        for column in range(3)
    ]


def light(share: float = 1.0) -> Term:
    """Return the term share c l: what a luma is multiplied by."""
    return Term({"contrast": CONTRAST}, math.log(share), {"luma": math.pi}, 0.0)


def scales(size: int) -> list[Weights]:
    """Return the units of parameters that are used as they are, in the order of `SampledTransforms`; S: `size`."""
    return [
        {"integer_x": 2 / size},
        {"integer_y": 2 / size},
        {"fractional_x": FRACTIONAL},
        {"fractional_y": FRACTIONAL},
        {"cut_x": 2.0},
        {"cut_y": 2.0},
        {"brightness": BRIGHTNESS},
        *({f"band_{band}": SATURATION} for band in range(4)),
        {"noise": NOISE},
    ]


@dataclass(frozen=True)
class SampledTransforms:
    """Transforms of B images, with their parameters drawn.

    Attributes:
        applied: whether each transform is applied, bool [B, T].
        moving: how many of them, the first ones, move or cut an image; cutout is the last of these.
        linear, offset: map from output to input coordinates, [B, 2, 2] and [B, 2].
        cut: centre of the square that is cut out, [B, 2].
        colour, colour_offset: a colour x becomes colour x + colour_offset, [B, C, C] and [B, 1, 1].
        bands: logarithms of the gains of four octaves, [B, 4].
        noise_deviation: standard deviation of noise, up to its sign, [B, 1, 1, 1].
    """

    applied: Tensor
    moving: int
    linear: Tensor
    offset: Tensor
    cut: Tensor
    colour: Tensor
    colour_offset: Tensor
    bands: Tensor
    noise_deviation: Tensor

    def moved_as(self, other: "SampledTransforms") -> "SampledTransforms":
        """Return the same with the places of another one."""
        applied = torch.cat([other.applied[:, : self.moving], self.applied[:, self.moving :]], 1)
        return replace(self, applied=applied, linear=other.linear, offset=other.offset, cut=other.cut)


class TransformSampler:
    """Constant tensors that turn random numbers into `SampledTransforms`, for images of one shape.

    All numbers of an image come of one block, and all matrices of one table of sums: on a GPU an operation costs its
    launch, whatever its size.

    Args:
        groups: names in `GROUPS`.
        channels, size: C and S of the images.
        device, dtype: of the tensors.
    """

    def __init__(
        self, groups: Sequence[str], channels: int, size: int, device: torch.device, dtype: torch.dtype
    ) -> None:
        found = {name: each for group, some in GROUPS.items() if group in groups for name, each in some.items()}
        laws: list[Law] = ["integer", "uniform", "normal"]
        self.parameters = dict(sorted(found.items(), key=lambda each: laws.index(each[1].law)))
        self.transforms = list(dict.fromkeys(each.transform for each in found.values()))
        moving = {each.transform for group in MOVING if group in groups for each in GROUPS[group].values()}
        self.moving = len(moving)
        self.side = 3 if channels == 3 else 1
        self.uniforms = [each for each in self.parameters.values() if each.law != "normal"]
        self.integers = sum(each.law == "integer" for each in self.uniforms)
        tensor = functools.partial(torch.tensor, device=device, dtype=dtype)
        low, width = zip(*(_range(each, size) for each in self.uniforms), strict=True) if self.uniforms else ((), ())
        self.low, self.width = tensor(low), tensor(width)
        self.exponents = tensor([0.5 if name in ROTATIONS else 1.0 for name in self.transforms])
        columns = [self.transforms.index(each.transform) for each in self.parameters.values()]
        self.columns = torch.tensor(columns, device=device, dtype=torch.int64)
        terms = [*_flat(geometry_terms()), *_flat(colour_terms(channels)), light()]
        self.terms = len(terms)
        rows = [(term.angle, term.phase) for term in terms] + [(term.log, term.level) for term in terms]
        rows += [(weights, 0.0) for weights in scales(size)]
        self.weights = tensor([[weights.get(name, 0.0) for name in self.parameters] for weights, _ in rows])
        self.constants = tensor([constant for _, constant in rows])

    def draw(self, strength: Tensor, count: int, noise: KeyedNoise, name: str) -> SampledTransforms:
        """Draw what is done to `count` images, each transform with probability p.

        Args:
            strength: p, scalar tensor in [0, 1].
        """
        transforms, uniforms = len(self.transforms), len(self.uniforms)
        uniform = noise.uniform(count, transforms + uniforms, name=f"{name}/uniform")
        # u >= q has probability 1 - q. With the square root, at least one of two is applied with probability p.
        applied = uniform[:, :transforms] >= (1 - strength) ** self.exponents
        ranged = torch.addcmul(self.low, uniform[:, transforms:], self.width)
        ranged[:, : self.integers].floor_()
        normal = noise.normal(count, len(self.parameters) - uniforms, name=f"{name}/normal")
        values = torch.cat([ranged, normal], 1) * applied[:, self.columns]
        # Not a matrix product, which a GPU rounds to TF32.
        sums = (values[:, None] * self.weights).sum(2) + self.constants
        return self._sampled(applied, sums)

    def _sampled(self, applied: Tensor, sums: Tensor) -> SampledTransforms:
        angles, logs, rest = sums.split_with_sizes([self.terms, self.terms, sums.shape[1] - 2 * self.terms], 1)
        terms = angles.cos() * logs.exp()
        linear = terms[:, :16].view(-1, 4, 4).sum(2).view(-1, 2, 2)
        colour = terms[:, 16:-1].view(len(terms), self.side**2, -1).sum(2).view(-1, self.side, self.side)
        integer, fractional, cut, brightness, bands, noise = rest.split_with_sizes([2, 2, 2, 1, 4, 1], 1)
        offset = torch.addcmul(integer, linear[:, :, 0], fractional[:, :1])
        offset = torch.addcmul(offset, linear[:, :, 1], fractional[:, 1:])
        colour_offset = (brightness * terms[:, -1:]).view(-1, 1, 1)
        return SampledTransforms(
            applied, self.moving, linear, offset, cut, colour, colour_offset, bands, noise.view(-1, 1, 1, 1)
        )


def _flat(rows: Sequence[Sequence[Term]]) -> list[Term]:
    return [term for row in rows for term in row]


def _range(parameter: TransformParameter, size: int) -> tuple[float, float]:
    """Return low and width of u width + low for u ~ U[0, 1), which is then rounded down if the law is integer."""
    if parameter.law == "uniform":
        return -0.5, 1.0
    return (0.0, float(parameter.sides)) if parameter.sides else (0.5 - size / 8, size / 4)


transform_sampler = functools.cache(TransformSampler)
