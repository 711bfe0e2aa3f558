"""Memorisation: a generator that copies, one that gives held-out images and one that gives noise, and brute force."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import mannwhitneyu

from ganrun import evaluate
from ganrun.config.schema import EvaluateConfig, FieldConfig
from ganrun.data.index import open_data
from ganrun.data.scored import open_scored
from ganrun.errors import UserError
from ganrun.evaluation.evaluator import Evaluator
from ganrun.evaluation.memorisation import share_nearer
from ganrun.evaluation.nearest_pictures import NEIGHBOURS, ROWS, nearest_png
from ganrun.evaluation.real_images import RealImages
from ganrun.evaluation.score import build_scores
from ganrun.storage import Folder
from tests.conftest import SIZES, config_of, write_data
from tests.evaluation.making import Shown, tiny_extractor
from tests.ranks import run_folder, run_ranks

IMAGE = {"image": FieldConfig(kind="image")}
HELD_OUT = EvaluateConfig(held_out_share=0.25)
SAMPLES = 30


def as_generated(reals, count):
    return Shown(reals.images(0, count).float() / 127.5 - 1)


@pytest.fixture(scope="module")
def reals(data_folder):
    data = open_scored(open_data(str(data_folder)), HELD_OUT, SAMPLES)
    return RealImages(data, SAMPLES, IMAGE)


@pytest.fixture(scope="module")
def generators(reals):
    # Blocks of black and white, as far as can be from the blocks of greys of the data.
    noise = torch.rand(SAMPLES, 1, 4, 4, generator=torch.Generator().manual_seed(0)) - 0.5
    noise = noise.sign().repeat_interleave(4, 2).repeat_interleave(4, 3)
    return {
        "copies": as_generated(reals.trained_on(10_000), SAMPLES),
        "held out": as_generated(reals, SAMPLES),
        "noise": Shown(noise),
    }


def scored(generated, reals, folder, metrics=("memorisation",)):
    return Evaluator(tiny_extractor(64), reals, SAMPLES, build_scores(metrics), Folder(folder)).score(generated)


def test_what_is_trained_on_is_all_that_is_not_held_out(reals, data_folder):
    training = reals.trained_on(10_000)
    assert training.samples + reals.data.samples == sum(SIZES)
    seen = {bytes(image.numpy().tobytes()) for image in training.images(0, training.samples)}
    assert not seen & {image.numpy().tobytes() for image in reals.images(0, SAMPLES)}
    assert reals.trained_on(7).samples == 7
    assert RealImages(open_data(str(data_folder)), 20, IMAGE).trained_on(10) is None
    assert training.origin != reals.origin != RealImages(reals.data.whole, SAMPLES, IMAGE).origin != training.origin


def test_copies_have_1_held_out_images_one_half_and_noise_0(reals, generators, tmp_path):
    found = {name: scored(images, reals, tmp_path).metrics for name, images in generators.items()}
    shares = {name: values["memorisation"] for name, values in found.items()}
    assert shares == {"copies": pytest.approx(1, abs=0.02), "held out": 0.5, "noise": pytest.approx(0, abs=0.02)}
    assert [np.sign(values["memorisation_z"]) for values in found.values()] == [-1, 0, 1]
    assert found["copies"]["memorisation_distance"] == 0
    assert found["noise"]["memorisation_distance"] > found["noise"]["memorisation_distance_held_out"]


def test_it_is_mann_and_whitneys_statistic_of_brute_force_distances(reals, generators, tmp_path):
    extractor, training = tiny_extractor(64), reals.trained_on(10_000)
    half = Shown(
        torch.cat([generators["copies"].all[:10], generators["noise"].all[:5], generators["held out"].all[5:20]])
    )
    found = scored(half, reals, tmp_path).metrics

    def distances(images):
        pixels = images if images.dtype == torch.uint8 else ((images + 1) * 127.5).round().to(torch.uint8)
        shown = training.images(0, training.samples)
        features, of_training = (extractor.extract(each)[0].double() for each in (pixels, shown))
        return (features[:, None] - of_training).square().sum(2).sqrt().amin(1).numpy()

    of_generated, of_held_out = distances(half.all), distances(reals.images(0, SAMPLES))
    u = mannwhitneyu(of_generated, of_held_out).statistic
    m = n = SAMPLES
    assert found["memorisation"] == pytest.approx(1 - u / (m * n), abs=1e-9)
    assert found["memorisation_z"] == pytest.approx((u - m * n / 2) / np.sqrt(m * n * (m + n + 1) / 12))
    assert found["memorisation_distance"] == pytest.approx(np.sort(of_generated)[(m - 1) // 2], rel=1e-5)
    assert found["memorisation_distance_held_out"] == pytest.approx(np.sort(of_held_out)[(n - 1) // 2], rel=1e-5)


def test_ties_count_half():
    generated, held_out = torch.tensor([0.0, 1, 1, 5, 7]), torch.tensor([1.0, 1, 2, 5])
    pairs = [(a < b) + 0.5 * (a == b) for a in generated.tolist() for b in held_out.tolist()]
    assert share_nearer(generated, held_out) == pytest.approx(np.mean(pairs))


def test_it_says_between_what_the_distances_are_and_keeps_the_features_for_all_runs(reals, generators, tmp_path):
    first = scored(generators["held out"], reals, tmp_path)
    assert first.about["memorisation"] == (
        "share of pairs; distances to the nearest of 105 of 105 training images, beside those of 30 held-out ones"
    )
    kept = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.safetensors")}
    assert len(kept) == 2
    assert scored(generators["held out"], reals, tmp_path).metrics == first.metrics
    assert {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.safetensors")} == kept


def test_without_held_out_images_it_is_refused_in_one_line(data_folder, generators, tmp_path):
    every = RealImages(open_data(str(data_folder)), SAMPLES, IMAGE)
    with pytest.raises(
        UserError, match="memorisation cannot be computed: it compares with samples that are held out of"
    ):
        scored(generators["noise"], every, tmp_path)


def test_held_out_images_may_be_another_data_set(data_folder, generators, tmp_path):
    write_data(tmp_path / "other", sizes=(sum(SIZES), 40))  # The first shard has the images of the data set.
    other = EvaluateConfig(shards=str(tmp_path / "other" / "000001.tar"))
    data = open_scored(open_data(str(data_folder)), other, SAMPLES)
    reals = RealImages(data, SAMPLES, IMAGE)
    assert reals.trained_on(10_000).samples == sum(SIZES)
    assert scored(generators["copies"], reals, tmp_path).metrics["memorisation"] > 0.9


# In training, and as a picture.


def test_two_workers_find_what_one_finds_and_the_command_the_same(values, extractor, tmp_path, capsys):
    settings = {"every_images": 24, "samples": 20, "held_out_share": 0.25, "metrics": ["memorisation"]}
    values |= {"evaluate": settings | {"extractor": str(extractor)}}
    found = []
    for workers in (1, 2):
        config = config_of(values, run__name=f"by{workers}", train__total_images=24, train__tick_images=12)
        run_ranks(config, workers, tmp_path / f"meeting{workers}")
        (file,) = (run_folder(config) / "metrics").iterdir()
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        found.append([line for line in lines if "memorisation" in line][-1])
    names = [name for name in found[0] if name.startswith("memorisation")]
    assert len(names) == 4
    assert {name: found[0][name] for name in names} == {name: pytest.approx(found[1][name], rel=1e-6) for name in names}
    picture = tmp_path / "pictures" / "nearest.png"
    capsys.readouterr()
    arguments = [str(run_folder(config)), "--metrics", "memorisation", "--nearest", str(picture), "--json"]
    assert evaluate.main(arguments) == 0
    said = json.loads(capsys.readouterr().out)
    assert {name: said[name] for name in names} == {name: pytest.approx(found[1][name], rel=1e-6) for name in names}
    assert said["memorisation_is"].startswith("share of pairs; ")
    assert Image.open(picture).text["samples"] == "20"
    (tmp_path / "folder.png").mkdir()
    for place, words in (("folder.png", "cannot write it: Is a directory"), ("a.jpg", "unsupported ending; give a")):
        assert evaluate.main([*arguments[:-2], str(tmp_path / place), "--json"]) == 2
        assert f"--nearest {tmp_path / place}: {words}" in capsys.readouterr().err.splitlines()[-1]


def test_the_picture_shows_images_beside_the_training_images_nearest_to_them(reals, generators, tmp_path):
    shown = torch.cat([generators["noise"].all[:20], generators["copies"].all[:10]])
    extractor, seen = tiny_extractor(64), []
    extractor.network.register_forward_hook(lambda module, inputs, made: seen.append(len(made)))
    evaluator = Evaluator(extractor, reals, SAMPLES, {}, Folder(tmp_path), keep_features=True)
    evaluator.score(Shown(shown))
    data = nearest_png(Shown(shown), reals, evaluator.features, extractor, Folder(tmp_path), {"seed": "0"})
    assert sum(seen) == 2 * SAMPLES + reals.trained_on(105).samples  # Each image is looked at once.
    (tmp_path / "nearest.png").write_bytes(data)
    picture = np.asarray(Image.open(tmp_path / "nearest.png").convert("L"))
    step = 16 + 2  # A border of two pixels between images.
    cells = [
        [picture[row * step + 2 :, column * step + 2 :][:16, :16] for column in range(2 * (1 + NEIGHBOURS))]
        for row in range(ROWS)
    ]
    training = {image.numpy().tobytes() for image in reals.trained_on(105).images(0, 105)[:, 0]}
    for row in cells:
        assert (row[0] == row[1]).all()  # The copies come first, and a copy is its own nearest image.
        assert not (row[4] == row[5]).all()
        assert row[4].tobytes() not in training  # Held out.
        for column in (1, 2, 3, 5, 6, 7):
            assert row[column].tobytes() in training
