"""Features of many images: the same rows and sums for every number of ranks."""

import json
import math
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from ganrun.evaluation.evaluator import Evaluator
from ganrun.evaluation.feature_statistics import Keep, extract_generated, extract_real, to_uint8
from ganrun.evaluation.score import build_scores
from ganrun.storage import Folder
from tests.evaluation.making import Generated, Reals, read, sample, tiny_extractor
from tests.ranks import as_ranks

SAMPLES, BATCH = 103, 8
METRICS = ("kid", "precision", "recall", "density", "coverage", "inception_score", "class_frechet_distance")


def scores(cache: Path, group: dist.ProcessGroup | None) -> dict[str, float | None]:
    """All scores; the same on every rank."""
    labels = torch.arange(SAMPLES) % 2
    reals = Reals(SAMPLES, ("a", "b"), labels)
    evaluator = Evaluator(tiny_extractor(classes=5), reals, SAMPLES, build_scores(METRICS), Folder(cache))
    return evaluator.score(Generated(labels=labels), group).values()


def run_rank(rank: int, world: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/init", rank=rank, world_size=world)
    (folder / f"{rank}.json").write_text(json.dumps(scores(folder / "cache", dist.group.WORLD)))
    dist.destroy_process_group()


@pytest.mark.parametrize("world", [2, 3])
def test_any_number_of_ranks_gives_the_same_scores(world: int, tmp_path: Path) -> None:
    as_ranks(run_rank, (world, tmp_path), world)
    alone = scores(tmp_path / "alone", None)
    found, *others = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(world)]
    assert others == [found] * (world - 1)
    assert found.keys() == alone.keys() == {"frechet_distance", *METRICS} | {
        "kid_deviation", "inception_score_deviation", "class_frechet_distance/a", "class_frechet_distance/b"
    }  # fmt: skip
    assert alone.pop("kid_deviation") is found["kid_deviation"] is None  # One subset: all samples.
    for name, value in alone.items():
        # features come in the same rows, and only the sums of the moments in another order
        assert found[name] == pytest.approx(value, rel=1e-12 if name == "frechet_distance" else 0, abs=0), name


def test_chunks_cover_each_sample_once() -> None:
    asked: list[int] = []

    def recorded(start: int, count: int) -> Tensor:
        asked.extend(range(start, start + count))
        return sample(start, count)

    assert extract_generated(recorded, SAMPLES, BATCH, tiny_extractor()).statistics.count == SAMPLES
    assert asked == list(range(SAMPLES))


def test_a_reader_that_runs_short_is_refused() -> None:
    with pytest.raises(ValueError, match="asked for 103 images, got 91"):
        extract_real(lambda start, count: read(start, min(count, 7)), SAMPLES, BATCH, tiny_extractor())


def test_fakes_are_quantised_before_they_are_resized() -> None:
    def off_grid(start: int, count: int) -> Tensor:
        return sample(start, count) * 1.2  # between the 256 levels, and beyond the ends

    by_hand = extract_real(lambda *which: to_uint8(off_grid(*which)), 32, BATCH, tiny_extractor())
    fakes = extract_generated(off_grid, 32, BATCH, tiny_extractor())
    assert torch.equal(fakes.statistics.moments, by_hand.statistics.moments)


def test_quantising_gives_back_every_level_and_clamps() -> None:
    levels = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_uint8(levels.float() / 127.5 - 1), levels)
    assert to_uint8(torch.tensor([-9.0, -1.001, 1.001, math.inf, math.nan])).tolist() == [0, 0, 255, 255, 0]


def test_a_generator_that_is_not_finite_is_seen_as_nan() -> None:
    def broken(start: int, count: int) -> Tensor:
        images = sample(start, count)
        images[-1, 0, 0, 0] = math.nan
        return images

    seen = extract_generated(broken, SAMPLES, BATCH, tiny_extractor(classes=5), keep=Keep(features=True, logits=True))
    assert seen.features is not None
    assert seen.logits is not None
    rows = seen.features.isnan().all(1)
    assert torch.equal(rows, seen.logits.isnan().all(1))
    assert torch.equal(rows.nonzero().flatten(), torch.tensor([*range(7, SAMPLES, 8), SAMPLES - 1]))


def test_nothing_is_gathered_that_is_not_asked_for() -> None:
    seen = extract_real(read, SAMPLES, BATCH, tiny_extractor(classes=5))
    assert seen.features is seen.logits is None
