"""Modes of stacked images: on stacks with known modes, on any number of workers, and in a run."""

import io
import json
import math

import numpy as np
import pytest
import torch
import torch.distributed as dist
import webdataset

from ganrun import evaluate
from ganrun.config.schema import FieldConfig
from ganrun.data.index import Index, Shard, open_data
from ganrun.errors import UserError
from ganrun.evaluation import stacked_modes as stacked
from ganrun.evaluation.generated_images import BATCH, GeneratedImages
from ganrun.evaluation.modes import mode_kl
from ganrun.evaluation.real_images import RealImages
from ganrun.evaluation.score import ScoreSubject
from ganrun.evaluation.score_pass import ScorePass
from ganrun.evaluation.stacked_modes import StackedModes
from ganrun.storage import Folder
from tests.conftest import config_of, write_data
from tests.models.test_extractors import Brightness
from tests.ranks import as_ranks, run_folder, run_ranks

SAMPLES = 150
STACKS = 300


def singles(labels):
    """Grey images [N, 16, 16], a light bar at a place of its own for each class."""
    images = torch.full((len(labels), 16, 16), 30, dtype=torch.uint8)
    for image, label in zip(images, labels.tolist(), strict=True):
        image[:, label : label + 6] = 220
    return images


def stacks(labels):
    """Images [N, 3, 16, 16] of modes [N]."""
    digits = labels[:, None] // torch.tensor([100, 10, 1]) % 10
    return singles(digits.flatten()).view(-1, 3, 16, 16)


@pytest.fixture(scope="module")
def data_folder(tmp_path_factory):
    """300 stacks of modes drawn by lot."""
    import hashlib

    from PIL import Image

    folder = tmp_path_factory.mktemp("stacks")
    labels, stream = torch.randint(1000, (STACKS,), generator=torch.Generator().manual_seed(0)), io.BytesIO()
    with webdataset.TarWriter(stream, mtime=0) as tar:
        for number, (image, label) in enumerate(zip(stacks(labels), labels.tolist(), strict=True)):
            encoded = io.BytesIO()
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(encoded, "png")
            tar.write({"__key__": f"{number:06d}", "png": encoded.getvalue(), "cls": str(label).encode()})
    data = stream.getvalue()
    (folder / "0.tar").write_bytes(data)
    shard = Shard("0.tar", STACKS, len(data), hashlib.sha256(data).hexdigest())
    index = Index(16, 3, tuple(f"{number:03d}" for number in range(1000)), (shard,))
    (folder / "index.json").write_bytes(index.to_json())
    return folder


class Known(GeneratedImages):
    """Stacks of known modes in place of generated images: 0, 7, 14, ..., and some that are not finite."""

    device = torch.device("cpu")

    def labels(self, samples, start=0):
        return None

    def given(self, start, count):
        return {}

    def images(self, start, count):
        numbers = torch.arange(start, start + count)
        images = stacks(numbers * 7 % 1000).float() / 127.5 - 1
        images[numbers % 50 == 0] = math.nan
        return images


@pytest.fixture(scope="module", autouse=True)
def few_steps():
    """What is tested does not need more."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ganrun.evaluation.classifier.STEPS", 150)
        yield


def measure(data_folder, cache, group=None):
    reals = RealImages(open_data(str(data_folder)), SAMPLES, {"image": FieldConfig(kind="image")})
    generated = Known(None, {}, 0)
    running = ScorePass({"modes": StackedModes()}, ScoreSubject(generated, SAMPLES, Folder(cache), reals, group=group))
    images, (rank, world) = running.watch(generated.images), (group.rank(), group.size()) if group else (0, 1)
    for start in range(rank * BATCH, SAMPLES, world * BATCH):
        images(start, min(BATCH, SAMPLES - start))
    running.add_over_ranks()
    return running.results(None)


def measure_as_rank(rank, world, data_folder, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=world)
    found = measure(data_folder, folder / "cache", dist.group.WORLD)
    (folder / f"{rank}.json").write_text(json.dumps(found))
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def alone(few_steps, data_folder, tmp_path_factory):
    """The cache, and what one worker finds."""
    cache = tmp_path_factory.mktemp("cache")
    return cache, measure(data_folder, cache)


def test_known_modes_are_counted_and_real_ones_beside_them(alone, data_folder):
    _, found = alone
    counts = np.bincount([number * 7 % 1000 for number in range(SAMPLES) if number % 50], minlength=1000)
    assert (found["modes_covered"], found["mode_kl"]) == (147, pytest.approx(mode_kl(counts)))
    reals = RealImages(open_data(str(data_folder)), SAMPLES, {"image": FieldConfig(kind="image")})
    counts = np.bincount(reals.labels().numpy(), minlength=1000)
    assert (found["real_modes_covered"], found["real_mode_kl"]) == ((counts > 0).sum(), pytest.approx(mode_kl(counts)))


def test_workers_do_not_enter(alone, data_folder, tmp_path):
    (cache, found), world = alone, 3
    (tmp_path / "cache").symlink_to(cache)
    as_ranks(measure_as_rank, (world, data_folder, tmp_path), world)
    assert [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(world)] == [found] * world


def test_the_classifier_is_trained_once(alone, data_folder, monkeypatch):
    cache, found = alone
    assert len(list((cache / ".statistics").iterdir())) == 1
    monkeypatch.setattr(stacked, "train_classifier", None)
    assert measure(data_folder, cache) == found


@pytest.fixture
def values(tmp_path, data_folder, alone):
    """A run over the stacks, whose storage has the classifier already."""
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / ".statistics").symlink_to(alone[0] / ".statistics")
    torch.jit.save(torch.jit.script(Brightness()), tmp_path / "brightness.pt")
    return {
        "run": {"name": "stacked", "storage": str(tmp_path / "runs")},
        "data": {"shards": str(data_folder), "image_size": 16, "batch_size": 12},
        "model": {"width": 4, "latent_size": 8},
        "train": {"total_images": 12},
        "evaluate": {
            "every_images": 12,
            "samples": SAMPLES,
            "extractor": str(tmp_path / "brightness.pt"),
            "metrics": ["modes"],
        },
    }


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_a_run_tells_its_modes_in_training_and_at_the_door(values, alone, tmp_path, capsys):
    config = config_of(values)
    run_ranks(config, 1, tmp_path / "meeting")
    (file,) = (run_folder(config) / "metrics").iterdir()
    *_, line = [json.loads(line) for line in file.read_text().splitlines() if "mode_kl" in line]
    assert evaluate.main([str(run_folder(config)), "--json", "--metrics", "modes"]) == 0
    found = json.loads(capsys.readouterr().out)
    for name in ("frechet_distance", "modes_covered", "mode_kl", "real_modes_covered", "real_mode_kl"):
        assert found[name] == pytest.approx(line[name]), name
    assert line["real_mode_kl"] == alone[1]["real_mode_kl"]


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_images_that_are_no_stacks_have_no_modes(values, tmp_path):
    plain = write_data(tmp_path / "plain", sizes=(30,), channels=3)
    with pytest.raises(UserError, match=r"metrics: modes cannot be computed: the data are not stacked images"):
        run_ranks(config_of(values, data__shards=str(plain)), 1, tmp_path / "meeting")
