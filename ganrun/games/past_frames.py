"""Condition `past_frames`: the last frames of a clip. G is to return the next one, as what changes of the last.

Mathieu et al. 2016 (arXiv:1511.05440). A roll-out feeds each frame back, so that the next one is a horizon further.

Shapes: B batch, K past frames, C channels, H and W pixels.
"""

import torch
from torch import Tensor

from ganrun.config.schema import DataConfig
from ganrun.config.schema_objective import ObjectiveConfig
from ganrun.errors import UserError, counted
from ganrun.games.conditions import Batch, Condition, UserInput, as_channels
from ganrun.models.given import Given
from ganrun.rng import KeyedNoise


class PastFrames(Condition):
    """Past frames `past` [B, K C, H, W], the oldest first.

    Args:
        channels: C.
        frames: K.
        horizons: frames of a roll-out that there are real ones of.
    """

    data_baselines = ()

    def __init__(self, channels: int, frames: int, horizons: int) -> None:
        self.fields = tuple(f"past_{back}" for back in range(frames, 0, -1))
        self.later = tuple(f"next_{horizon}" for horizon in range(2, horizons + 1))
        self.channels, self.frames, self.pictures = channels, frames, {"past": frames * channels}
        self.baselines = {"copy_last": self._last}

    def of(self, batch: Batch, noise: KeyedNoise) -> Given:
        """Return the past frames of the clips of a batch."""
        return {"past": torch.cat([batch[name] for name in self.fields], dim=1)}

    def from_user(self, item: UserInput) -> Given:
        """Return the last K frames of a user's clip, in as many channels as those of the data."""
        if item.clip is None:
            raise UserError(f"{item.name}: this run continues clips; give a video, a GIF or a folder of frames")
        if len(item.clip) < self.frames:
            raise UserError(
                f"{item.name}: {counted(len(item.clip), 'frame')}, but this run continues clips of {self.frames}; "
                "give more"
            )
        clip = as_channels(item.clip[-self.frames :], self.channels)
        return {"past": clip.flatten(0, 1)[None]}

    def show(self, given: Given) -> Tensor:
        """Return the past frames in a row, [B, K, C, H, W]."""
        past = given["past"]
        return past.reshape(len(past), self.frames, self.channels, *past.shape[2:])

    def finish(self, given: Given, image: Tensor) -> Tensor:
        """Return the last frame plus the generator's output, doubled, so that tanh spans all changes from -2 to 2."""
        return self._last(given) + 2 * image

    def following(self, given: Given, image: Tensor) -> Given:
        """Return the past frames without the oldest, and with the generated one, clamped as a file would have it."""
        return {"past": torch.cat([given["past"][:, self.channels :], image.clamp(-1, 1)], dim=1)}

    def _last(self, given: Given) -> Tensor:
        return given["past"][:, -self.channels :]


def past_frames(objective: ObjectiveConfig, data: DataConfig) -> Condition:
    """Build the condition of `objective.past_frames`."""
    settings = objective.past_frames
    return PastFrames(data.shape(objective.target)[0], settings.frames, settings.horizons)
