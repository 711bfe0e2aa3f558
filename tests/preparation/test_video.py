"""`ganrun prepare video:`: which frames are clips, in which order, and what is said of the rest."""

import io
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ganrun.preparation.clip_rule import ClipRule
from ganrun.preparation.frames import natural_order
from ganrun.preparation.video import open_videos
from tests.preparation.making import prepare, read_all
from tests.preparation.videos import frame_of, video

NAMES = ("past_2", "past_1", "image", "next_2")
SMALL = ("--past", 2, "--horizons", 2, "--size", 16, "--workers", 1)


def shades_of(place: Path) -> list[list[int]]:
    """Return the shades of the frames of all clips, in the order of the shards."""
    index, samples = read_all(place)
    assert (index.image_size, index.channels) == (16, 3)
    assert set(index.pictures) == {*NAMES} - {"image"}
    found = []
    for members in samples.values():
        assert set(members) == {"png", *(f"{name}.png" for name in NAMES if name != "image")}
        frames = [members["png" if name == "image" else f"{name}.png"] for name in NAMES]
        pixels = [np.asarray(Image.open(io.BytesIO(frame))) for frame in frames]
        assert all(each.min() == each.max() for each in pixels)  # The band at the left is outside the square.
        found.append([int(each.max()) for each in pixels])
    return found


def clips(first: int, count: int, step: int = 1, stride: int = 1) -> list[list[int]]:
    return [[first + step * clip + stride * frame for frame in range(4)] for clip in range(count)]


def test_clips_are_frames_in_their_order_that_are_in_no_other_clip(tmp_path, capsys):
    source = video(tmp_path / "film.mkv", range(100, 114))
    assert prepare(f"video:{source}", tmp_path / "out", *SMALL, "--verify") == 0
    assert shades_of(tmp_path / "out") == [*clips(100, 3, step=4)]
    index, _ = read_all(tmp_path / "out")
    rule = "clips of 2 past frames and 2 horizons, stride 1, step 4, part 0:1, decoded by PyAV"
    assert index.made["source"].startswith(f"video, {rule}")
    first = np.asarray(Image.open(tmp_path / "out/preview.png"))[10, 2 : 2 + 4 * 16 : 16, 0].tolist()
    assert np.diff(first).tolist() == [1, 1, 1]  # In the order of time.
    capsys.readouterr()
    assert prepare(f"video:{source}", tmp_path / "out", *SMALL) == 0  # Once more: it is there.
    assert prepare(f"video:{source}", tmp_path / "out", *SMALL, "--step", 1) == 2
    assert "has a data set made with source" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--step", 1), clips(100, 11)),
        (("--step", 3, "--stride", 2), clips(100, 3, step=3, stride=2)),
        (("--part", "0:0.5", "--step", 1), clips(100, 4)),
        (("--part", "0.5:1", "--step", 1), clips(107, 4)),
        (("--step", 1, "--shard-samples", 2), clips(100, 11)),
    ],
)
def test_stride_step_and_part(options, expected, tmp_path):
    source = video(tmp_path / "film.mkv", range(100, 114))
    assert prepare(f"video:{source}", tmp_path / "out", *SMALL, *options) == 0
    assert shades_of(tmp_path / "out") == expected


def test_no_clip_goes_over_a_cut_or_a_gap(tmp_path, capsys):
    films = tmp_path / "films"
    video(films / "a/cut.mkv", [*range(100, 106), *range(200, 206)])  # A jump of 95 levels.
    video(films / "b/gap.mkv", range(20, 32), times=[*range(5), *range(9, 16)])
    video(films / "c/dark.mkv", [*range(10, 14), *range(42, 46)])  # A jump of 29 levels is not a cut.
    assert prepare(f"video:{films}", tmp_path / "out", *SMALL, "--step", 1) == 0
    expected = [*clips(100, 3), *clips(200, 3), *clips(20, 2), *clips(25, 4)]
    dark = [*range(10, 14), *range(42, 46)]
    expected += [dark[start : start + 4] for start in range(5)]
    assert shades_of(tmp_path / "out") == expected
    err = capsys.readouterr().err
    assert "a/cut.mkv: 1 cut and 0 gaps, which no clip goes over" in err
    assert "b/gap.mkv: 0 cuts and 1 gap, which no clip goes over" in err


def test_folders_of_frames_and_gifs_are_videos_too(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)  # Not needed for these.
    films = tmp_path / "films"
    (films / "drive").mkdir(parents=True)
    for number in range(8, 14):
        Image.fromarray(frame_of(100 + number)).save(films / f"drive/frame-{number}.png")
    first, *others = (Image.fromarray(frame_of(shade)) for shade in range(50, 54))
    first.save(films / "loop.gif", save_all=True, append_images=others)
    (films / "notes.txt").write_text("sunny")
    assert prepare(f"video:{films}", tmp_path / "out", *SMALL) == 0
    found = shades_of(tmp_path / "out")
    assert found == [*clips(108, 1), *clips(50, 1)]
    assert "1 .txt (notes.txt)" in capsys.readouterr().err
    assert natural_order(Path("f-9")) < natural_order(Path("f-10")) < natural_order(Path("f-010b"))


def test_what_gives_no_clip_is_named_and_left_out(tmp_path, capsys):
    films = tmp_path / "films"
    video(films / "good.mkv", range(100, 106))
    video(films / "short.mkv", range(3))
    (films / "broken.avi").write_bytes(b"no video at all")
    whole = video(tmp_path / "whole.mkv", range(60, 100)).read_bytes()
    (films / "torn.mkv").write_bytes(whole[: len(whole) // 2])
    assert prepare(f"video:{films}", tmp_path / "out", *SMALL) == 0
    err = capsys.readouterr().err
    assert "skipped" in err
    assert "broken.avi: cannot be decoded as a video: Invalid data found" in err
    assert "short.mkv: 3 frames, but a clip spans 4: 2 past frames and 2 horizons with --stride 1; lower --past" in err
    found = shades_of(tmp_path / "out")
    assert found[0] == clips(100, 1)[0]
    assert found[1:] == clips(60, len(found) - 1, step=4)
    assert 2 < len(found) < 10  # Of the torn one, what can be decoded.
    assert prepare(f"video:{films}", tmp_path / "strict", *SMALL, "--strict") == 2
    assert "broken.avi: cannot be decoded as a video" in capsys.readouterr().err


def test_a_broken_video_does_not_hide_why_good_ones_have_no_clip(tmp_path, capsys):
    films = tmp_path / "films"
    video(films / "good.mkv", range(100, 140))
    (films / "bad.mp4").write_bytes(b"no video at all")
    assert prepare(f"video:{films}", tmp_path / "out", *SMALL, "--part", "0.9:0.95") == 2
    assert (
        "no clip; " + str(films / "good.mkv") + ": 40 frames, but a clip spans 4 in --part" in capsys.readouterr().err
    )


def test_frames_in_the_source_itself_are_named_by_it(tmp_path):
    for number in range(4):
        Image.fromarray(frame_of(100 + number)).save(tmp_path / f"{number}.png")
    source = open_videos(str(tmp_path), ClipRule(2, 2), 16, "lanczos", 1)
    assert [*source.shapes(1)["image"].values()] == [str(tmp_path)]
    (item,) = source.items(source.parts(None, 1)[0])
    assert item.where == f"{tmp_path}, frames 0 to 3"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("broken.avi", "no clip; {}: cannot be decoded as a video: Invalid data found when processing input"),
        ("short.mkv", "no clip; {}: 3 frames, but a clip spans 4"),
        ("none.mp4", "no such file or folder; give a video, or a folder of videos"),
        ("empty", "no clip; nothing is in it"),
    ],
)
def test_a_video_without_a_clip_is_refused_in_one_line(name, words, tmp_path, capsys):
    (tmp_path / "broken.avi").write_bytes(b"no video at all")
    (tmp_path / "empty").mkdir()
    video(tmp_path / "short.mkv", range(3))
    assert prepare(f"video:{tmp_path / name}", tmp_path / "out", *SMALL) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert words.format(tmp_path / name) in err
    assert not (tmp_path / "out").exists()


def test_the_missing_decoder_is_named(tmp_path, capsys, monkeypatch):
    source = video(tmp_path / "film.mkv", range(9))
    monkeypatch.setitem(sys.modules, "av", None)
    assert prepare(f"video:{source}", tmp_path / "out", *SMALL) == 2
    err = capsys.readouterr().err
    assert err == "ganrun: video: the decoder PyAV is not installed; run: pip install 'ganrun[video]'\n"


@pytest.mark.parametrize(
    "options", [("--part", "0.5:0.5"), ("--part", "1"), ("--stride", 0), ("--past", "x"), ("--part", "0:1.5")]
)
def test_options_out_of_range_are_refused(options, tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        prepare("video:a", tmp_path / "out", *options)
    assert "give " in capsys.readouterr().err


def test_options_of_clips_are_for_videos_alone(tmp_path, capsys):
    assert prepare("folder:a", tmp_path / "out", "--stride", 2) == 2
    assert "--stride: only for video, not for folder:" in capsys.readouterr().err


def test_a_rule_takes_part_and_breaks_into_account():
    rule = ClipRule(past=1, horizons=1, step=1)
    assert rule.fields == ("past_1", "image")
    assert list(rule.starts(6, [2])) == [0, 2, 3, 4]
    assert list(rule.starts(6, [0, 6])) == [0, 1, 2, 3, 4]
    assert list(ClipRule(past=1, horizons=1, part=(0.5, 1.0)).starts(6, [])) == [3]
    assert list(ClipRule(past=1, horizons=1, stride=3).starts(9, [])) == [0, 4]
    assert list(rule.starts(1, [])) == []
