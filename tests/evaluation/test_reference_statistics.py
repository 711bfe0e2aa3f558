"""Cache of reference statistics: computed once for all runs; failures and corrupt files are harmless."""

import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from ganrun.evaluation.feature_statistics import FeatureStatistics, Keep, extract_real
from ganrun.evaluation.reference_statistics import from_bytes, reference, reference_name, to_bytes
from ganrun.models.extractors import Extractor
from ganrun.storage import Folder
from tests.evaluation.making import read, statistics_of, tiny_extractor
from tests.ranks import as_ranks

SAMPLES, BATCH = 103, 8
KEEP = Keep(features=True)


def run_rank(rank: int, world: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/init", rank=rank, world_size=world)
    made, group, extractor = [], dist.group.WORLD, tiny_extractor()

    def make() -> FeatureStatistics:
        made.append(extract_real(read, SAMPLES, BATCH, extractor, group, KEEP))
        return made[-1]

    for _ in range(2):
        seen = reference(Folder(folder / "cache"), {"samples": SAMPLES}, make, extractor, group, KEEP)
    kept = None if seen.features is None else seen.features.sum().item()
    (folder / f"{rank}.json").write_text(json.dumps([len(made), seen.statistics.moments.sum().item(), kept]))
    dist.destroy_process_group()


def test_ranks_make_it_together_and_once(tmp_path: Path) -> None:
    as_ranks(run_rank, (2, tmp_path), 2)
    seen = extract_real(read, SAMPLES, BATCH, tiny_extractor(), keep=KEEP)
    assert seen.features is not None
    sums = pytest.approx(seen.statistics.moments.sum().item()), pytest.approx(seen.features.sum().item())
    assert json.loads((tmp_path / "0.json").read_text()) == [1, *sums]
    assert json.loads((tmp_path / "1.json").read_text()) == [1, sums[0], None]


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


def counted(made: list[FeatureStatistics]) -> Callable[[], FeatureStatistics]:
    def make() -> FeatureStatistics:
        made.append(extract_real(read, SAMPLES, BATCH, tiny_extractor()))
        return made[-1]

    return make


@pytest.mark.parametrize("damage", [b"", b"rubbish", to_bytes({"moments": torch.zeros(6, 6)})])
def test_a_corrupt_cache_is_made_anew(damage: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    storage, made = Folder(tmp_path), []
    name = reference_name({"samples": SAMPLES}, tiny_extractor())
    storage.write(name, damage)
    with caplog.at_level(logging.WARNING):
        first = reference(storage, {"samples": SAMPLES}, counted(made), tiny_extractor())
    assert "computed again" in caplog.text
    again = reference(storage, {"samples": SAMPLES}, counted(made), tiny_extractor())
    assert len(made) == 1
    assert torch.equal(first.statistics.moments, again.statistics.moments)


def test_a_storage_that_refuses_costs_the_cache_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    blocked, made = tmp_path / "file", []
    blocked.write_text("a file where the folder should be")
    seen = reference(Folder(blocked), {"samples": SAMPLES}, counted(made), tiny_extractor())
    assert seen.statistics.count == SAMPLES
    assert "not cached" in caplog.text


def test_bytes_come_back_bit_for_bit() -> None:
    tensors = {"moments": statistics_of(torch.rand(9, 33)).moments, "features": torch.rand(9, 33)}
    seen = from_bytes(to_bytes(tensors))
    assert seen.keys() == tensors.keys()
    assert all(torch.equal(seen[name], tensor) for name, tensor in tensors.items())


@pytest.mark.parametrize("fault", ["cut", "flipped", "empty", "foreign"])
def test_corrupt_bytes_are_refused(fault: str) -> None:
    data = to_bytes({"moments": statistics_of(torch.rand(9, 33)).moments, "features": torch.rand(9, 33)})
    damaged = {
        "cut": data[:-9],
        "flipped": data[:-9] + bytes([data[-9] ^ 1]) + data[-8:],
        "empty": b"",
        "foreign": b'{"a": 1}' * 99,
    }
    with pytest.raises(ValueError, match="cached tensors"):
        from_bytes(damaged[fault])


def test_with_and_without_features_are_different_things() -> None:
    assert reference_name({}, tiny_extractor(), KEEP) != reference_name({}, tiny_extractor())
