"""Frames that follow a clip of a user, as files and as a GIF.

Shapes: N frames, C channels, S pixels a side.
"""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ganrun.errors import UserError
from ganrun.evaluation.feature_statistics import to_uint8
from ganrun.games.conditions import UserInput
from ganrun.inference.sampling import Sampler, write_file, write_image
from ganrun.rng import KeyedNoise

GIF_MILLISECONDS = 200
"""How long a frame of the GIF is shown."""


class Predictor:
    """EMA generator of a checkpoint of `objective.condition: past_frames`, which predicts frame after frame.

    Args:
        sampler: the checkpoint.

    Raises:
        UserError: the run continues no clips.
    """

    def __init__(self, sampler: Sampler) -> None:
        config, self.game = sampler.config, sampler.game
        self.frames: int = self.game.condition.frames
        if not self.frames:
            name = config.objective.condition_with(config.model.classes)
            raise UserError(
                f"--frames: this run predicts none, its objective.condition is {name}; leave it out, or take a run of "
                "past_frames"
            )
        self.channels, self.size = config.data.shape(config.objective.target)
        parameter = next(next(iter(self.game.networks.values())).parameters())
        self.device, self.dtype = parameter.device, parameter.dtype

    def write(self, name: str, clip: Sequence[NDArray[np.uint8]], count: int, seed: int, out: Path) -> None:
        """Write `count` predicted frames, `out`/000001.png, ..., and `out`/clip.gif, in which they follow the clip.

        Args:
            name: where the clip comes from, for messages.
            clip: its last frames in their order, [S, S, C] each.
            count: number of frames to predict.
            seed: seed of the noise.
            out: a folder.

        Raises:
            UserError: the clip has too few frames, or a file cannot be written.
        """
        past = torch.from_numpy(np.stack(clip)).permute(0, 3, 1, 2).to(self.device, self.dtype).div(127.5).sub(1)
        predicted = to_uint8(self.predict(name, past, count, seed))
        for number, image in enumerate(predicted, 1):
            write_image(out / f"{number:06d}.png", image)
        write_file(out / "clip.gif", _gif([*clip, *predicted.permute(0, 2, 3, 1).cpu().numpy()]))

    @torch.inference_mode()
    def predict(self, name: str, clip: Tensor, count: int, seed: int) -> Tensor:
        """Return `count` frames [count, C, S, S] in [-1, 1] that follow a clip [N, C, S, S], each fed back.

        Raises:
            UserError: the clip has too few frames.
        """
        condition, found = self.game.condition, []
        given = condition.from_user(UserInput(name, clip=clip))
        for number in range(count):
            noise = KeyedNoise(seed, 0, 0, number, self.device, self.dtype).under("input")
            found.append(self.game.sample(self.game.networks, 1, noise, given).clamp(-1, 1))
            given = condition.following(given, found[-1])
        return torch.cat(found)


def _gif(frames: Sequence[NDArray[np.uint8]]) -> bytes:
    """Return frames [S, S, C] as an animated GIF that repeats."""
    first, *others = (Image.fromarray(frame.squeeze()) for frame in frames)
    buffer = io.BytesIO()
    first.save(buffer, "GIF", save_all=True, append_images=others, duration=GIF_MILLISECONDS, loop=0)
    return buffer.getvalue()
