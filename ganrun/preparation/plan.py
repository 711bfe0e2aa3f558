"""Determines the size and number of channels of a data set."""

from ganrun.errors import UserError
from ganrun.preparation.convert_image import Rule
from ganrun.preparation.sources import IMAGE, Shape, Source


def plan_rule(
    source: Source, size: int | None, channels: int | None, filter: str, format: str | None, workers: int
) -> Rule:
    """Return the conversion of the images of `source`.

    Args:
        source: images.
        size: size in pixels; None: the source's default, or the common size of the images.
        channels: 1 or 3, for all pictures of a sample; None: those of the images.
        filter: resize filter, a name in `FILTERS`.
        format: file format, a name in `FORMATS`; None: keep files that need no conversion.
        workers: number of processes that read headers.

    Raises:
        UserError: no image can be read; or the images differ in size or channels, or are not square, and `size` or
            `channels` is None.
    """
    wanted = size or source.size
    shapes = {} if wanted and channels else source.shapes(workers)
    for name, found in shapes.items():
        if not found:
            what = "image" if name == IMAGE else f"image of field {name!r}"
            raise UserError(f"SOURCE ({source.name}): no readable {what}; all files are corrupt")
    return Rule(
        size=wanted or _common_size(shapes[IMAGE]),
        channels=channels or _common_channels(shapes[IMAGE]),
        resize=wanted is not None,
        recolour=channels is not None,
        filter=filter,
        format=format,
        further={} if channels else {name: _common_channels(shapes[name]) for name in shapes if name != IMAGE},
    )


def _common_size(shapes: dict[Shape, str]) -> int:
    sizes = {shape[:2]: where for shape, where in shapes.items()}
    (first, where), *others = sizes.items()
    if others:
        (second, other), *_ = others
        raise UserError(
            f"{where}: {first[0]}x{first[1]} pixels, but {other} has {second[0]}x{second[1]}; "
            "resize all images with --size N"
        )
    if first[0] != first[1]:
        raise UserError(f"{where}: {first[0]}x{first[1]} pixels, not square; crop the centre square with --size N")
    return first[0]


def _common_channels(shapes: dict[Shape, str]) -> int:
    found = {shape[2]: where for shape, where in shapes.items()}
    if len(found) > 1:
        raise UserError(
            f"{found[1]} is grey, but {found[3]} is in colour; convert all with --channels 1 or --channels 3"
        )
    return next(iter(found))
