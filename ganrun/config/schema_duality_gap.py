"""Section `evaluate.duality_gap` of a config."""

from typing import Annotated

from pydantic import Field

from ganrun.config.field_types import FIXED, Count, Positive, Section


class DualityGapConfig(Section):
    """Best responses of the score duality_gap."""

    steps: Annotated[Count, Field(json_schema_extra=FIXED)] = 50
    """Steps k of Adam of each player's best response."""
    learning_rate: Annotated[Positive, Field(json_schema_extra=FIXED)] = 1e-3
    """Their learning rate at the beginning; it falls linearly to 0."""
