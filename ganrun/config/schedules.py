"""Numbers of a config that may change: 0.1, or `{schedule: cosine, from: 1, to: 0.1, until_images: 1_000_000}`."""

import math
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, ValidationError, ValidatorFunctionWrapHandler, WrapValidator

from ganrun.config.field_types import Count, Finite, NotNegative, Positive, Section, Share, Whole

FORM = "a number, or {schedule: linear or cosine, from: A, to: B, until_images: N}"


class Schedule(Section):
    """A number that goes from one value to another over the first images of the run, and stays there."""

    model_config = ConfigDict(serialize_by_alias=True)

    schedule: Literal["linear", "cosine"]
    """Shape: a line, or half a period of a cosine, flat at both ends."""
    begin: Finite = Field(alias="from")
    """Value at the beginning of the run."""
    to: Finite
    """Value from until_images on."""
    until_images: Count
    """Real images over which it changes."""

    def at(self, images: int) -> float:
        """Return the value after `images`."""
        share = min(images / self.until_images, 1.0)
        if self.schedule == "cosine":  # Loshchilov & Hutter 2017 (arXiv:1608.03983), eq. 5, one period.
            share = (1 - math.cos(math.pi * share)) / 2
        return self.begin + (self.to - self.begin) * share


def value_at(number: float | Schedule, images: int) -> float:
    """Return a number after `images`."""
    return number.at(images) if isinstance(number, Schedule) else number


def _number_or_schedule(value: Any, number: ValidatorFunctionWrapHandler) -> Any:
    """Validate; a wrong schedule is one fault, with the range of the number for both of its ends."""
    if isinstance(value, list | tuple):
        raise ValueError(FORM)
    if not isinstance(value, dict | Schedule):
        return number(value)
    place = ""
    try:
        found = value if isinstance(value, Schedule) else Schedule.model_validate(value)
        place = "from and to"
        for end in filter(None, (found.begin, found.to)):  # Any may begin or end at 0.
            number(end)
    except ValidationError as error:
        detail = error.errors()[0]
        why = detail["msg"].removeprefix("Input should be ")
        raise ValueError(f"{FORM} ({place or detail['loc'][0]}: {why})") from error
    return found


ScheduledPositive = Annotated[Positive | Schedule, WrapValidator(_number_or_schedule)]
ScheduledNotNegative = Annotated[NotNegative | Schedule, WrapValidator(_number_or_schedule)]
ScheduledShare = Annotated[Share | Schedule, WrapValidator(_number_or_schedule)]
ScheduledWhole = Annotated[Whole | Schedule, WrapValidator(_number_or_schedule)]
