"""Finds the one size and the one number of channels that all images of a data set will have."""

from ganrun.errors import UserError
from ganrun.preparation.convert_image import Rule
from ganrun.preparation.sources import Shape, Source


def plan_rule(
    source: Source, size: int | None, channels: int | None, filter: str, format: str | None, workers: int
) -> Rule:
    """How to convert the images of `source`, where what is not asked for is what the images have.

    Raises:
        UserError: the images differ in size or channels, or are not square, and nothing says what to make
            of them; or none can be read.
    """
    wanted = size or source.size
    shapes = {} if wanted and channels else source.shapes(workers)
    if not shapes and not (wanted and channels):
        raise UserError(f"SOURCE ({source.name}): not one image in it can be read; all are damaged, or no images")
    return Rule(
        size=wanted or _common_size(shapes),
        channels=channels or _common_channels(shapes),
        resize=wanted is not None,
        recolour=channels is not None,
        filter=filter,
        format=format,
    )


def _common_size(shapes: dict[Shape, str]) -> int:
    sizes = {shape[:2]: where for shape, where in shapes.items()}
    (first, where), *others = sizes.items()
    if others:
        (second, other), *_ = others
        raise UserError(
            f"{where}: {first[0]}x{first[1]} pixels, but {other} has {second[0]}x{second[1]}; "
            "--size N makes all images NxN"
        )
    if first[0] != first[1]:
        raise UserError(f"{where}: {first[0]}x{first[1]} pixels, not square; --size N cuts out the centre square")
    return first[0]


def _common_channels(shapes: dict[Shape, str]) -> int:
    found = {shape[2]: where for shape, where in shapes.items()}
    if len(found) > 1:
        raise UserError(f"{found[1]} is grey, but {found[3]} is in colour; --channels 3 or 1 makes all images so")
    return next(iter(found))
