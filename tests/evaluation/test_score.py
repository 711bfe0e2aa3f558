"""One score for every number of ranks, honest names, and a cache that may fail."""

import io
import json
import logging
import math
import tarfile
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, multiprocessing, nn
from torchvision.io import decode_image

from ganrun.evaluation.score import (
    fake_statistics,
    frechet_score,
    real_statistics,
    reference,
    reference_name,
    score_name,
    to_uint8,
)
from ganrun.evaluation.statistics import Statistics
from ganrun.features import Extractor, efficientnet_lite0
from ganrun.storage import Folder

SAMPLES, BATCH = 103, 8


def tiny_extractor(size: int = 16) -> Extractor:
    """A fixed random layer in place of a large network."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 4, size), nn.ReLU()).requires_grad_(False)
    return Extractor("tiny", "0" * 64, size, 4, "bicubic-antialias", network)


def sample(start: int, count: int) -> Tensor:
    """Image i depends on i alone, as a generator's must."""
    numbers = range(start, start + count)
    return torch.stack([torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(i)) * 2 - 1 for i in numbers])


def read(start: int, count: int) -> Tensor:
    return to_uint8(sample(start + 10_000, count) * 0.5)


def score_on_one_rank(group: dist.ProcessGroup | None, folder: Path) -> tuple[float, int]:
    """The score, and how often this rank had to make the reference."""
    extractor, made = tiny_extractor(), []

    def make() -> Statistics:
        made.append(1)
        return real_statistics(read, SAMPLES, BATCH, extractor, group)

    for _ in range(2):
        real = reference(Folder(folder / "cache"), {"samples": SAMPLES}, make, extractor, group)
    with torch.inference_mode():
        fake = fake_statistics(sample, SAMPLES, BATCH, extractor, group)
    return frechet_score(real, fake, extractor, seed=0).value, len(made)


def run_rank(rank: int, world: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/init", rank=rank, world_size=world)
    result = score_on_one_rank(dist.group.WORLD, folder)
    (folder / f"{rank}.json").write_text(json.dumps(result))
    dist.destroy_process_group()


@pytest.mark.parametrize("world", [2, 3])
def test_any_number_of_ranks_gives_the_same_score(world: int, tmp_path: Path) -> None:
    multiprocessing.spawn(run_rank, (world, tmp_path), nprocs=world)
    alone, made = score_on_one_rank(None, tmp_path / "alone")
    assert made == 1
    for rank in range(world):
        assert json.loads((tmp_path / f"{rank}.json").read_text()) == [pytest.approx(alone, rel=1e-12), 1]


def test_chunks_cover_each_sample_once() -> None:
    asked: list[int] = []

    def recorded(start: int, count: int) -> Tensor:
        asked.extend(range(start, start + count))
        return sample(start, count)

    assert fake_statistics(recorded, SAMPLES, BATCH, tiny_extractor()).count == SAMPLES
    assert asked == list(range(SAMPLES))


def test_a_reader_that_runs_short_is_refused() -> None:
    with pytest.raises(ValueError, match="asked for 103 images, got 91"):
        real_statistics(lambda start, count: read(start, min(count, 7)), SAMPLES, BATCH, tiny_extractor())


def test_fakes_are_quantised_before_they_are_resized() -> None:
    def off_grid(start: int, count: int) -> Tensor:
        return sample(start, count) * 1.2  # between the 256 levels, and beyond the ends

    by_hand = real_statistics(lambda *which: to_uint8(off_grid(*which)), 32, BATCH, tiny_extractor())
    fakes = fake_statistics(off_grid, 32, BATCH, tiny_extractor())
    assert torch.equal(fakes.moments, by_hand.moments)


def test_quantising_gives_back_every_level_and_clamps() -> None:
    levels = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_uint8(levels.float() / 127.5 - 1), levels)
    assert to_uint8(torch.tensor([-9.0, -1.001, 1.001, math.inf, math.nan])).tolist() == [0, 0, 255, 255, 0]


def test_a_diverged_generator_scores_nan_and_null() -> None:
    def broken(start: int, count: int) -> Tensor:
        images = sample(start, count)
        images[-1, 0, 0, 0] = math.nan
        return images

    extractor = tiny_extractor()
    real = real_statistics(read, SAMPLES, BATCH, extractor)
    score = frechet_score(real, fake_statistics(broken, SAMPLES, BATCH, extractor), extractor, seed=0)
    assert math.isnan(score.value)
    assert json.loads(json.dumps(score.to_json()))["value"] is None


def test_a_score_tells_where_it_came_from() -> None:
    extractor = tiny_extractor()
    statistics = real_statistics(read, SAMPLES, BATCH, extractor)
    assert frechet_score(statistics, statistics, extractor, seed=7).to_json() == {
        "name": "Fréchet distance (tiny, n=103)",
        "value": pytest.approx(0, abs=1e-9),
        "extractor": "tiny",
        "extractor_sha256": "0" * 64,
        "resize": "bicubic-antialias",
        "samples": 103,
        "seed": 7,
    }


@pytest.mark.parametrize(
    ("extractor", "samples", "name"),
    [
        ("inception-v3-compat", 50_000, "FID"),
        ("inception-v3-compat", 2_000, "FID-2000"),
        ("efficientnet-lite0", 50_000, "Fréchet distance (efficientnet-lite0, n=50000)"),
    ],
)
def test_only_the_real_thing_is_called_fid(extractor: str, samples: int, name: str) -> None:
    assert score_name(extractor, samples) == name


def test_the_cache_name_depends_on_all_that_made_it() -> None:
    origin = {"data": "abc", "samples": 100}
    names = {
        reference_name(origin, tiny_extractor()),
        reference_name(origin | {"samples": 101}, tiny_extractor()),
        reference_name(origin | {"data": "abd"}, tiny_extractor()),
        *(reference_name(origin, changed(tiny_extractor(), field)) for field in ("name", "sha256", "resize")),
    }
    assert len(names) == 6
    assert reference_name({"samples": 100, "data": "abc"}, tiny_extractor()) in names


def changed(extractor: Extractor, field: str) -> Extractor:
    fields = {name: getattr(extractor, name) for name in Extractor.__dataclass_fields__}
    return Extractor(**fields | {field: "other"})


def counted(made: list[Statistics]) -> Callable[[], Statistics]:
    def make() -> Statistics:
        made.append(real_statistics(read, SAMPLES, BATCH, tiny_extractor()))
        return made[-1]

    return make


@pytest.mark.parametrize("damage", [b"", b"rubbish", Statistics(5).to_bytes()])
def test_a_damaged_cache_is_made_anew(damage: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    storage, made = Folder(tmp_path), []
    name = reference_name({"samples": SAMPLES}, tiny_extractor())
    storage.write(name, damage)
    with caplog.at_level(logging.WARNING):
        first = reference(storage, {"samples": SAMPLES}, counted(made), tiny_extractor())
    assert "made anew" in caplog.text
    again = reference(storage, {"samples": SAMPLES}, counted(made), tiny_extractor())
    assert len(made) == 1
    assert torch.equal(first.moments, again.moments)


def test_a_storage_that_refuses_costs_the_cache_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    blocked, made = tmp_path / "file", []
    blocked.write_text("a file where the folder should be")
    statistics = reference(Folder(blocked), {"samples": SAMPLES}, counted(made), tiny_extractor())
    assert statistics.count == SAMPLES
    assert "not kept" in caplog.text


def packaged_images(shard: int) -> Tensor:
    """The first 32 images of a packaged shard, uint8 [32, 1, 32, 32]."""
    content = files("ganrun.data").joinpath(f"fashion-mnist-10k/shard-{shard:06}.tar.gz").read_bytes()
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        encoded = [tar.extractfile(m).read() for m in tar if m.name.endswith(".png")][:32]
    return torch.stack([decode_image(torch.frombuffer(bytearray(data), dtype=torch.uint8)) for data in encoded])


def test_noise_scores_worse_than_held_out_images() -> None:
    extractor = efficientnet_lite0()
    images = {0: packaged_images(0), 7: packaged_images(7)}
    real, held_out = (
        real_statistics(lambda start, count, s=s: images[s][start : start + count], 32, 16, extractor) for s in images
    )
    generator = torch.Generator().manual_seed(0)
    noise = fake_statistics(
        lambda _, count: torch.rand(count, 1, 32, 32, generator=generator) * 2 - 1, 32, 16, extractor
    )
    near, far = (frechet_score(real, other, extractor, seed=0).value for other in (held_out, noise))
    assert 0 < 2 * near < far
