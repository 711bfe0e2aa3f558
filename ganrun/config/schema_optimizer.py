"""Section `optimizer` of a config."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from ganrun.config.field_types import FIXED, NotNegative, Positive, Section, Share, Whole
from ganrun.config.schedules import Schedule, ScheduledPositive, ScheduledShare, value_at


class PlayerOptimizerConfig(Section):
    """Optimizer of one player; two time scales: Heusel et al. 2017 (arXiv:1706.08500)."""

    name: Annotated[str, Field(json_schema_extra=FIXED)] = "adam"
    """Algorithm: adam (Kingma & Ba 2015), adamw (decoupled weight decay), sgd, or one of run.imports."""

    learning_rate: ScheduledPositive = 2e-4
    """Learning rate after warm-up and before decay; as all numbers that may change over the run either a number, or
    {schedule: linear or cosine, from: A, to: B, until_images: N}."""
    beta1: ScheduledShare = 0.5
    """Decay of the first moment of adam and adamw, 0 to 1; may be a schedule."""
    beta2: ScheduledShare = 0.999
    """Decay of the second moment of adam and adamw, 0 to 1; may be a schedule."""
    epsilon: Positive = 1e-8
    """Term added to the denominator, the root of the second moment."""
    momentum: Share = 0.0
    """Momentum of sgd, 0 to 1."""
    weight_decay: NotNegative = 0.0
    """Weight decay of adamw (Loshchilov & Hutter 2019, arXiv:1711.05101) and sgd; 0: none."""
    clip_norm: NotNegative = 0.0
    """Maximum norm of the player's whole gradient; 0: no clipping."""
    warmup_images: Whole = 0
    """Real images over which the learning rate rises linearly from 0."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """Decay of the learning rate to 0 at train.total_images; constant: no decay."""

    def at(self, images: int) -> "PlayerOptimizerConfig":
        """Return the settings after `images`, all of them numbers; the decay by `schedule` is not in it."""
        fields = (name for name in type(self).model_fields if isinstance(getattr(self, name), Schedule))
        numbers = {name: getattr(self, name).at(images) for name in fields}
        return self.model_copy(update=numbers)

    def betas_at(self, images: int) -> tuple[float, float]:
        """Return beta1 and beta2 after `images`."""
        return value_at(self.beta1, images), value_at(self.beta2, images)

    @property
    def betas_change(self) -> bool:
        """True if a decay of a moment has a schedule."""
        return isinstance(self.beta1, Schedule) or isinstance(self.beta2, Schedule)


class OptimizerConfig(Section):
    """Optimizer of each player; games of your own may name other players."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, PlayerOptimizerConfig] = Field(init=False)

    discriminator: PlayerOptimizerConfig = PlayerOptimizerConfig()
    """Optimizer of the discriminator."""
    generator: PlayerOptimizerConfig = PlayerOptimizerConfig()
    """Optimizer of the generator."""

    @property
    def players(self) -> set[str]:
        """Names of the players that have a section."""
        return {*type(self).model_fields, *(self.__pydantic_extra__ or {})}

    def of(self, player: str) -> PlayerOptimizerConfig:
        """Return the section of a player, or the defaults if it has none."""
        return getattr(self, player) if player in self.players else PlayerOptimizerConfig()
