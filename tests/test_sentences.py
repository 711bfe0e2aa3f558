"""Runs that draw sentences, through a worker's own code, and the commands on them."""

import hashlib
import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from ganrun import evaluate, export, matcher, sample
from ganrun.evaluation.feature_statistics import to_uint8
from ganrun.evaluation.matcher import AMONG, open_matcher
from ganrun.inference.sampling import Sampler
from ganrun.models.extractors import open_extractor
from tests.conftest import config_of, write_yaml
from tests.format1 import write_extractor
from tests.ranks import run_folder, run_ranks
from tests.recorded import ganrun
from tests.sentences import captions, of_text, write_captioned, write_encoder


@pytest.fixture(scope="module")
def captioned(tmp_path_factory):
    place = tmp_path_factory.mktemp("captioned")
    encoder = write_encoder(place / "letters.pt")
    sha256 = hashlib.sha256(encoder.read_bytes()).hexdigest()
    return write_captioned(place / "data", (120, 140), str(encoder), sha256)


def config_values(values, captioned, tmp_path, **sections):
    write_extractor(tmp_path / "means.pt")
    evaluating = {"held_out_share": 0.2, "samples": 40, "every_images": 24, "extractor": str(tmp_path / "means.pt")}
    layers = {
        "train": {"total_images": 24, "tick_images": 24},
        "telemetry": {"sample_images": 4},
        "evaluate": evaluating,
    }
    for name, section in sections.items():
        layers[name] = layers.get(name, {}) | section
    return of_text(values, captioned, **layers)


@pytest.fixture
def file(values, captioned, tmp_path):
    return write_yaml(tmp_path / "run.yaml", config_values(values, captioned, tmp_path))


@pytest.fixture
def run(values, captioned, tmp_path):
    config = config_of(config_values(values, captioned, tmp_path))
    run_ranks(config, 1, tmp_path / "meeting")
    return run_folder(config)


def scores(run, name):
    lines = [json.loads(line) for path in (run / "metrics").iterdir() for line in path.read_text().splitlines()]
    return [line for line in lines if name in line][-1]


def pixels(path):
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def test_scores_are_those_of_brute_force_on_any_number_of_workers(values, file, captioned, tmp_path, capsys):
    assert matcher.main([str(file), "--out", str(tmp_path / "m.safetensors")]) == 0
    said = capsys.readouterr()
    assert said.out.strip() == str(tmp_path / "m.safetensors")
    assert "trained on 208 pairs; of 52 held-out real pictures" not in said.err  # evaluate.samples: 40 of 52.
    assert "trained on 208 pairs; of 40 held-out real pictures it picks the right one of 40 sentences" in said.err
    found = []
    for workers in (1, 2):
        scored = {"metrics": ["matching", "colour_words"], "matcher": str(tmp_path / "m.safetensors")}
        config = config_of(config_values(values, captioned, tmp_path, evaluate=scored), run__name=str(workers))
        run_ranks(config, workers, tmp_path / f"meet-{workers}")
        found.append(scores(run_folder(config), "matching"))
    names = {"matching", "matching_shown", "colour_words"}
    columns = {f"{name}{end}" for name in names for end in ("", "_deviation", "@shuffled", "@real")}
    assert columns - {"colour_words@real_deviation"} <= found[0].keys()
    for name in columns:
        assert found[1][name] == pytest.approx(found[0][name], rel=1e-6), name
    run = run_folder(config)
    assert evaluate.main([str(run), "--json", "--metrics", "matching,colour_words"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert {name: again[name] for name in columns} == pytest.approx({name: found[0][name] for name in columns})
    assert "dual encoder sha256:" in again["matching_is"]
    assert found[0]["colour_words@real"] == 1.0
    capsys.readouterr()
    scored = ["--json", "--metrics", "matching", "--data", str(captioned), "--samples", "200"]
    assert evaluate.main([str(run), *scored]) == 0  # All captions, those that were trained on too.
    everything = json.loads(capsys.readouterr().out)
    assert everything["matching_is"].startswith("1 of 100 sentences")
    assert "matching_shown" not in everything
    towers, sampler = open_matcher(str(tmp_path / "m.safetensors"), "").towers, Sampler(str(run))
    generated = sampler.generated(0)
    texts = towers.of_texts(generated.given(0, 40)["text"].float())
    extractor = open_extractor(str(tmp_path / "means.pt"))
    images = {"": generated.images(0, 40), "@real": generated.truth(0, 40)}
    coarse = {name: each.unflatten(3, (-1, 4)).unflatten(2, (-1, 4)).mean((3, 5)) for name, each in images.items()}
    large = {name: F.interpolate(each, (16, 16), mode="bilinear") for name, each in coarse.items()}
    extracted = {name: extractor(to_uint8(each)) for name, each in large.items()}
    assert AMONG > 40
    for name, features in extracted.items():
        likeness = towers.of_images(features) @ texts.T
        hits = [bool(row[number] >= row.max()) for number, row in enumerate(likeness)]
        assert found[0][f"matching{name}"] == pytest.approx(np.mean(hits)), name
    likeness = towers.of_images(extracted[""]) @ texts.T
    shuffled = [bool(row[(number + 20) % 40] >= row.max()) for number, row in enumerate(likeness)]
    assert found[0]["matching@shuffled"] == pytest.approx(np.mean(shuffled))


def test_sample_pictures_show_captions_and_truths(run, tmp_path):
    assert sample.main([str(run), "--out", str(tmp_path / "grid.png"), "--count", "4"]) == 0
    (at_tick,) = (run / "samples").glob("*24.png")
    generated = Sampler(str(run)).generated(0)
    shown = generated.captions(0, 4)
    everything = {text for number in range(260) for text in captions(number)}
    assert set(shown) <= everything
    truth = generated.truth(0, 4)
    small, large = pixels(at_tick), pixels(tmp_path / "grid.png")
    assert np.abs(small[4:20, 20:36] - ((truth[0].permute(1, 2, 0).numpy() + 1) * 127.5)).max() <= 1
    assert np.abs(large[4 + 3 : 4 + 96 : 6, 4 + 96 + 3 : 4 + 192 : 6] - small[4:20, 20:36]).max() <= 1
    assert (small[22:34, 4:36].min(axis=(1, 2)) < 100).any()  # Letters.


def test_sentences_of_ones_own_are_drawn(run, tmp_path):
    out = tmp_path / "out"
    options = ["--text", "red ball", "--text", "A blue hat, by the sea!"]
    assert sample.main([str(run), *options, "--out", str(out), "--count", "2"]) == 0
    names = [f"000-red-ball-{n}.png" for n in (0, 1)] + [f"001-a-blue-hat-by-the-sea-{n}.png" for n in (0, 1)]
    assert sorted(path.name for path in out.iterdir()) == names
    singles = [pixels(out / name) for name in names]
    assert not np.array_equal(singles[0], singles[1])
    assert not np.array_equal(singles[0], singles[2])
    (tmp_path / "texts.txt").write_text("red ball\n\nA blue hat, by the sea!\n")
    texts = ["--texts", str(tmp_path / "texts.txt")]
    assert sample.main([str(run), *texts, "--out", str(tmp_path / "grid.png"), "--count", "2"]) == 0
    grid = pixels(tmp_path / "grid.png")
    assert grid.shape[1] == 2 * 96 + 8
    for number in (0, 1):
        assert np.array_equal(grid[4 + 3 : 100 : 6, 4 + 96 * number + 3 : 100 + 96 * number : 6], singles[number])
    assert sample.main([str(run), *options, "--interpolate", "--out", str(tmp_path / "between.png")]) == 0
    between = pixels(tmp_path / "between.png")
    assert between.shape[1] == 8 * 96 + 8
    steps = [between[7:100:6, 4 + 96 * step + 3 : 100 + 96 * step : 6] for step in range(8)]
    assert np.array_equal(steps[0], singles[0])
    assert np.array_equal(steps[7], singles[2])
    assert len({step.tobytes() for step in steps}) == 8
    weights = str(tmp_path / "g.safetensors")
    assert export.main([str(run), "--out", weights]) == 0
    assert sample.main([weights, *options, "--out", str(tmp_path / "of-weights"), "--count", "2"]) == 0
    assert np.array_equal(pixels(tmp_path / "of-weights" / names[3]), singles[3])


REFUSED = [
    (["--text", " "], "--text ' ': it is empty; write what the picture shows"),
    (["--text", "a" * 3000], "3,000 characters; shorten it to at most 2,000"),
    (["--texts", "none.txt"], "--texts none.txt: No such file or directory"),
    (["--texts", "blank.txt"], "--texts blank.txt: no sentence in it; write one a line"),
    (["--text", "sun", "--interpolate"], "--interpolate: needs two sentences; give --text twice"),
    (["--text", "sun", "--label", "1"], "--label: does not go with --text"),
    (["--input", "sun.png"], "this run draws sentences; give one as --text"),
    (["--text", "sun", "--grid", "--out", "folder"], "--out folder: give a .png file for a grid"),
]


def test_sentences_that_cannot_be_drawn_are_refused_in_one_line(run, tmp_path, monkeypatch, captioned):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "blank.txt").write_text("\n \n")
    Image.new("RGB", (32, 32)).save("sun.png")
    for options, words in REFUSED:
        out = [] if "--out" in options else ["--out", "out" if "--input" in options else "out.png"]
        code, _, error = ganrun("sample", run, *out, *options)
        assert (code, error.count("\n")) == (2, 1), error
        assert words in error
    code, _, error = ganrun("sample", run, "--text", "", "--text", "sun", "--out", "out.png")
    assert (code, error) == (0, "left out: --text '': it is empty; write what the picture shows\n")
    (manifest,) = run.glob("checkpoints/*24-*/manifest.json")
    content = json.loads(manifest.read_text())
    content["embedding"]["sha256"] = "1" * 64
    manifest.write_text(json.dumps(content))
    code, _, error = ganrun("sample", run, "--text", "sun", "--out", "out.png")
    assert (code, error.count("\n")) == (2, 1)
    assert "but the run's embeddings are by one with 111111111111; install that one, or prepare the data" in error


def test_an_exported_program_takes_embeddings(run, tmp_path):
    assert export.main([str(run), "--out", str(tmp_path / "g.pt2")]) == 0
    z, told = torch.randn(3, 8, dtype=torch.float64), torch.randn(3, 6, dtype=torch.float64)
    made = torch.export.load(tmp_path / "g.pt2").module()(z, told)
    generator = Sampler(str(run)).game.networks["generator"]
    torch.testing.assert_close(made, generator(z, {"text": told}))


def test_a_run_without_sentences_says_so(values, tmp_path):
    config = config_of(values, train__total_images=12)
    run_ranks(config, 1, tmp_path / "meeting")
    code, _, error = ganrun("sample", run_folder(config), "--text", "sun", "--out", tmp_path / "out.png")
    assert (code, error.count("\n")) == (2, 1)
    assert "--text: this run has no condition to give; leave it out" in error
    code, _, error = ganrun("evaluate", run_folder(config), "--metrics", "colour_words", "--samples", 4)
    assert code == 2
    assert "colour_words cannot be computed: the pictures are of no sentences" in error


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (
            ["data.fields={image: image}"],
            "needs embedding: embedding, text: text; add it, with data made by ganrun prep",
        ),
        (["model.name=resnet"], "objective.condition: text does not go with model.name: resnet; take dcgan or r3gan"),
        (["model.name=mlp"], "does not go with model.name: mlp; take dcgan or r3gan"),
        (["data.slots=12"], "objective.text.wrong_pairs: a slot has 1 image, and no other's sentence"),
        (
            ["objective.loss=relativistic", "objective.text.interpolation=true"],
            "interpolation: no real image belongs to",
        ),
        (["objective.feature_matching=true", "objective.text.interpolation=true"], "which knows no sentences"),
        (["evaluate.metrics=[matching]"], "evaluate.metrics: matching needs evaluate.matcher; train one with ganrun m"),
        (["evaluate.metrics=[psnr]"], "evaluate.metrics: psnr compares with the real image"),
        (
            ["objective.reconstruction={l1: 1}"],
            "objective.reconstruction: no image belongs to objective.condition: text",
        ),
        (["objective.text.sise=3"], "did you mean objective.text.size?"),
        (["objective.condition=none"], "has no effect with objective.condition: none; set objective.condition: text"),
        (
            ["objective.condition=none", "objective.text={}", "objective.penalties={matching_aware: 2}"],
            "objective.penalties: matching_aware is of sentences",
        ),
        (
            ["objective.condition=none", "objective.text={}", "evaluate.metrics=[colour_words]"],
            "evaluate.metrics: colour_words is of sentences, but objective.condition: none has none",
        ),
    ],
)
def test_faults_of_a_config_are_one_line_each(file, overrides, words):
    assert ganrun("train", file, "--dry-run")[0] == 0
    code, _, error = ganrun("train", file, "--dry-run", *overrides)
    assert code == 2
    assert words in error
    assert "1 fault in" in error or overrides[0] in ("objective.text.sise=3", "model.name=mlp"), error


def test_data_that_does_not_fit_is_refused_before_the_run(values, captioned, tmp_path):
    def error_of(**sections):
        config = config_values(values, captioned, tmp_path, **sections)
        code, _, error = ganrun("train", write_yaml(tmp_path / "run.yaml", config), "--validate")
        assert code == 2
        return error

    told = error_of(objective={"condition": "text", "text": {"size": 384}})
    assert f"objective.text.size: 384, but the encoder {captioned.parent}/letters.pt" in told
    assert "gives 6 numbers; set objective.text.size=6" in told
    other = write_captioned(tmp_path / "other", (60,))
    told = error_of(evaluate={"shards": str(other), "held_out_share": 0.0})
    assert "evaluate.shards: captions embedded by letters.pt, but by another encoder" in told
    index = json.loads((other / "index.json").read_text())
    del index["embedding"]
    (other / "index.json").write_text(json.dumps(index))
    told = error_of(data={"shards": str(other)})
    assert f"data.fields.embedding: the captions of {other} are not embedded; make the data set again with" in told
    told = error_of(evaluate={"metrics": ["matching"], "matcher": str(tmp_path / "none.safetensors")})
    assert f"evaluate.matcher: cannot read {tmp_path}/none.safetensors" in told
    index["embedding"] = {"encoder": "gone.pt", "sha256": "0" * 64, "size": 6, "captions": 2}
    (other / "index.json").write_text(json.dumps(index))
    told = error_of(data={"shards": str(other)}, evaluate={"metrics": ["colour_words"], "samples": 12})
    assert "evaluate.metrics: colour_words: cannot read gone.pt" in told


def test_a_matcher_needs_sentences_and_held_out_pairs(file, tmp_path):
    out = tmp_path / "m.safetensors"
    for overrides, words in (
        (["evaluate.held_out_share=0"], "evaluate.held_out_share: no samples are held out"),
        (["evaluate.held_out_share=0.01"], "208 pairs"),
    ):
        code, _, error = ganrun("matcher", file, *overrides, "--out", out)
        assert (code, error.count("\n")) == (2, 1)
        assert words in error or "takes at least 20 of each" in error
    assert ganrun("matcher", file, "--out", tmp_path / "m.pt")[0] == 2
    out.write_bytes(b"nothing")
    with pytest.raises(Exception, match="is no dual encoder"):
        open_matcher(str(out), "evaluate.matcher")
