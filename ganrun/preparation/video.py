"""Source of clips: videos, GIFs and folders of frames, cut into clips of a few frames.

A clip is a sample, its frames are the pictures. It goes over no cut and no gap:

- A cut is between two frames that differ, averaged to 32x32 pixels in colour, by over 30 of 255 levels in the mean.
- A gap is between two frames that are shown over 1.5 times the median interval apart, or out of order.
"""

import bisect
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import groupby, pairwise
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from ganrun.errors import UserError, counted, escaped
from ganrun.preparation.clip_rule import ClipRule
from ganrun.preparation.convert_image import Pixels, Rule, UnreadableError, convert
from ganrun.preparation.find_images import count_endings, find_images
from ganrun.preparation.frames import ANIMATED, VIDEO_ENDINGS, read_frames, video_decoder
from ganrun.preparation.process_pool import parallel_map
from ganrun.preparation.sources import IMAGE, Item, Part, Remarks, Shape, Shapes, hash_of, key_of, versions
from ganrun.storage import expand_user

CUT_LEVELS, CUT_SIZE = 30.0, 32
GAP_INTERVALS = 1.5


@dataclass(frozen=True)
class Video:
    """What is known of a video from one pass over it.

    Attributes:
        path: relative to the root of the source.
        frames: number of frames that can be decoded.
        shape: shape of the first.
        cuts, gaps: numbers of the frames that a cut or a gap is before.
        fault: reason why no more can be decoded; empty at the end of the video.
    """

    path: str
    frames: int
    shape: Shape
    cuts: tuple[int, ...] = ()
    gaps: tuple[int, ...] = ()
    fault: str = ""

    @property
    def breaks(self) -> list[int]:
        """Numbers of the frames that a cut or a gap is before, ascending."""
        return sorted({*self.cuts, *self.gaps})


@dataclass(frozen=True)
class Scanner:
    """Looks at the videos below `root`. Pickled to worker processes."""

    root: str

    def __call__(self, path: str) -> Video:
        """Decode a video once."""
        frames, shape, fault, before = 0, (0, 0, 0), "", None
        cuts: list[int] = []
        seconds: list[float | None] = []
        try:
            for frame in read_frames(Path(self.root, path)):
                small = _small(frame.pixels)
                if before is None:
                    height, width = frame.pixels.shape[:2]
                    shape = (width, height, 1 if frame.pixels.ndim == 2 else 3)
                elif np.abs(small - before).mean() > CUT_LEVELS:
                    cuts.append(frames)
                before, frames = small, frames + 1
                seconds.append(frame.seconds)
        except UnreadableError as error:
            fault = str(error)
        return Video(path, frames, shape, tuple(cuts), _gaps(seconds), fault)


@dataclass(frozen=True)
class VideoSource:
    """Clips of videos.

    Attributes:
        name: name with the rule, which the index records.
        root: folder of the videos.
        videos: the videos, each with at least one clip.
        rule: which frames are clips.
        files: all files of the videos, relative to the root.
        remarks: what is left out.
        square: conversion of frames to the size of the data set, once for all clips that they are in; None: that size
            is theirs.
    """

    name: str
    root: str
    videos: tuple[Video, ...]
    rule: ClipRule
    files: tuple[str, ...]
    remarks: Remarks
    square: Rule | None = None
    classes: tuple[str, ...] = ()
    size: int | None = None

    def identity(self) -> str:
        """Return a hash of paths, sizes and times of the files, and of the videos."""
        found = zip(self.files, versions(self.root, self.files), strict=True)
        return hash_of(repr(entry).encode() for entry in (self.videos, self.remarks, *found))

    old_identity = identity

    def shapes(self, workers: int) -> Shapes:
        """Return the shapes of the first frames."""
        return {IMAGE: {each.shape: escaped(self._where(each)) for each in reversed(self.videos)}}

    def parts(self, shard_samples: int | None, image_bytes: int) -> list[Part]:
        """Split the clips into parts in their order, so that a video is decoded for few shards.

        By default a shard has at most 4,096 clips and 128 MiB of decoded pixels, and there are at least 8 shards.
        """
        count, clip_bytes = sum(map(len, self._starts())), image_bytes * len(self.rule.fields)
        wanted = shard_samples or max(1, min(4096, (128 << 20) // clip_bytes, -(-count // 8)))
        number = -(-count // wanted)
        edges = [count * part // number for part in range(number + 1)]
        return [Part(f"shard-{part:06d}", a, range(a, b)) for part, (a, b) in enumerate(pairwise(edges))]

    def items(self, part: Part) -> Iterator[Item]:
        """Yield the clips of a part. Each of its videos is decoded from the beginning to the last of these clips."""
        starts = self._starts()
        firsts = [0, *np.cumsum([len(each) for each in starts]).tolist()]
        place = 0
        for number, clips in groupby(part.numbers, lambda clip: bisect.bisect_right(firsts, clip) - 1):
            video, wanted = self.videos[number], [starts[number][clip - firsts[number]] for clip in clips]
            for start, frames in zip(wanted, self._clips(video, wanted), strict=True):
                pictures = dict(zip(self.rule.fields, frames, strict=True))
                where = escaped(f"{self._where(video)}, frames {start} to {start + self.rule.span - 1}")
                yield Item(key_of(part, place), where, pictures.pop(IMAGE), {}, pictures=pictures)
                place += 1

    def _starts(self) -> list[list[int]]:
        return [list(self.rule.starts(each.frames, each.breaks)) for each in self.videos]

    def _clips(self, video: Video, starts: list[int]) -> Iterator[list[Pixels]]:
        """Yield the frames of the clips that begin at `starts`, ascending.

        Raises:
            UserError: the video has fewer frames than when it was looked at.
        """
        kept: deque[Pixels] = deque(maxlen=self.rule.span)
        waiting = deque(starts)
        try:
            for number, frame in enumerate(read_frames(Path(self.root, video.path))):
                kept.append(self._square(frame.pixels))
                if number == waiting[0] + self.rule.span - 1:
                    waiting.popleft()
                    yield list(kept)[:: self.rule.stride]
                    if not waiting:
                        return
        except UnreadableError as error:
            raise UserError(f"{self._where(video)}: {error}; it has changed: run the command again") from error
        raise UserError(f"{self._where(video)}: is shorter than a moment ago; run the command again")

    def _where(self, video: Video) -> str:
        """Return the path of a video for messages. That of frames in the root itself is the root."""
        return str(Path(self.root, video.path))

    def _square(self, pixels: Pixels) -> Pixels:
        """Return a frame in the size of the data set; one that would be enlarged as it is, so that it is counted."""
        if self.square is None or min(pixels.shape[:2]) < self.square.size:
            return pixels
        converted = convert(pixels, replace(self.square, channels=1 if pixels.ndim == 2 else 3)).pixels
        return converted.squeeze(2) if pixels.ndim == 2 else converted


def open_videos(path: str, rule: ClipRule, size: int | None, filter: str, workers: int) -> VideoSource:
    """Look for cuts, gaps and clips in one video or those below a folder.

    Args:
        path: a video, a GIF, or a folder of them. A folder that holds pictures is one video, of which they are the
            frames.
        rule: which frames are clips.
        size: size of the data set in pixels; None: that of the frames.
        filter: resize filter, a name in `FILTERS`.
        workers: number of processes that decode.

    Raises:
        UserError: no such file or folder, the decoder of videos is missing, or there is no clip.
    """
    place = Path(expand_user(path))
    if not place.exists():
        raise UserError(f"video:{path}: no such file or folder; give a video, or a folder of videos, on this machine")
    root = place if place.is_dir() else place.parent
    videos, files, left_out = _find(place) if place.is_dir() else ([place.name], [place.name], ())
    name = f"video, {rule}"
    if any(PurePosixPath(each).suffix.lower() in VIDEO_ENDINGS for each in files):
        name += f", decoded by PyAV {video_decoder().__version__}"
    unread, short, sound, kept, broken = [], [], [], [], []
    for video in parallel_map(Scanner(str(root)), videos, workers):
        where = escaped(str(root / video.path))
        if video.fault:
            after = f"only {counted(video.frames, 'frame')} can be decoded: " if video.frames else ""
            unread.append(f"{where}: {after}{video.fault}")
        if next(rule.starts(video.frames, video.breaks), None) is not None:
            kept.append(video)
        elif video.frames or not video.fault:
            short.append(f"{where}: {_too_short(video, rule)}")
            sound += [] if video.fault else short[-1:]
        if video.breaks:
            breaks = f"{counted(len(video.cuts), 'cut')} and {counted(len(video.gaps), 'gap')}"
            broken.append(f"{where}: {breaks}, which no clip goes over")
    if not kept:
        reasons = [*sound, *unread, *left_out, "nothing is in it"]
        raise UserError(f"video:{path}: no clip; {reasons[0]}")
    remarks = Remarks(tuple(unread), (*short, *broken, *left_out))
    square = Rule(size, 3, resize=True, filter=filter) if size else None
    return VideoSource(name, str(root), tuple(kept), rule, tuple(files), remarks, square)


def _find(root: Path) -> tuple[list[str], list[str], tuple[str, ...]]:
    """Return videos, and folders of frames, below a folder; all their files; and a line for each other ending."""
    found = find_images(str(root))
    videos = [each for each in found.others if PurePosixPath(each).suffix.lower() in VIDEO_ENDINGS]
    videos += [each for each in found.images if PurePosixPath(each).suffix.lower() == ANIMATED]
    frames = [each for each in found.images if PurePosixPath(each).suffix.lower() != ANIMATED]
    folders = {PurePosixPath(each).parent.as_posix() for each in frames}
    others = count_endings([each for each in found.others if each not in set(videos)])
    unread = tuple(escaped(f"{root}/{name}: {why}") for name, why in found.unread.items())
    return sorted({*videos, *folders}), sorted([*videos, *frames]), (*unread, *others)


def _too_short(video: Video, rule: ClipRule) -> str:
    cut = " between cuts and gaps" if video.breaks else ""
    part = " in --part {:g}:{:g}".format(*rule.part) if rule.part != (0.0, 1.0) else ""
    return (
        f"{counted(video.frames, 'frame')}, but a clip spans {rule.span}{cut}{part}: "
        f"{counted(rule.past, 'past frame')} and {counted(rule.horizons, 'horizon')} with "
        f"--stride {rule.stride}; lower --past, --horizons or --stride"
    )


def _small(pixels: Pixels) -> "np.ndarray[tuple[int, ...], np.dtype[np.float32]]":
    """Return pixels in colour, averaged to CUT_SIZE pixels a side, float32 [CUT_SIZE, CUT_SIZE, 3]."""
    image = Image.fromarray(pixels).convert("RGB").resize((CUT_SIZE, CUT_SIZE), Image.Resampling.BOX)
    return np.asarray(image, np.float32)


def _gaps(seconds: list[float | None]) -> tuple[int, ...]:
    """Return the numbers of the frames that a gap is before. Frames whose time is unknown have none."""
    times = [np.nan if each is None else each for each in seconds]
    intervals = np.diff(np.array(times, np.float64))
    known = intervals[np.isfinite(intervals)]
    if not len(known):
        return ()
    usual = np.median(known)
    wrong = (intervals > GAP_INTERVALS * usual) | (intervals < 0)
    return tuple((np.flatnonzero(wrong) + 1).tolist())
