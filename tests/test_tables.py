"""A run that fills missing numbers of a table, through a worker's own code, and the commands on it."""

import csv
import json

import numpy as np
import pytest
import torch
from PIL import Image

from ganrun import evaluate, export, sample
from ganrun.cli import preflight
from ganrun.data.columns import columns_of
from ganrun.data.index import open_data
from ganrun.errors import UserError
from ganrun.evaluation.point_evaluator import PointEvaluator
from ganrun.inference.sampling import Sampler
from ganrun.preparation.table import make_table
from ganrun.run_folder import run_config
from ganrun.run_folder.report import distance_name
from ganrun.run_folder.run_folder import RunFolder
from ganrun.storage import Folder
from tests.conftest import config_of
from tests.ranks import run_folder, run_ranks

HELD_OUT = 0.25
SAMPLES = 90
"""Over a chunk and a short one."""


def write_table(path, rows=400):
    """Three columns of which the second is twice the first and the third random; a tenth of the third is missing."""
    random = np.random.default_rng(0)
    lines = ["a,b,c"]
    for _ in range(rows):
        a, c = random.uniform(10, 20), random.normal()
        lines.append(f"{a:.4f},{2 * a:.4f},{'' if random.uniform() < 0.1 else f'{c:.4f}'}")
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    place = tmp_path_factory.mktemp("tables")
    make_table(str(write_table(place / "table.csv")), str(place / "data"))
    values = {
        "run": {"name": "table", "storage": str(place / "runs")},
        "data": {
            "shards": str(place / "data"),
            "image_size": 1,
            "channels": 3,
            "batch_size": 12,
            "slots": 2,
            "fields": {"image": "point"},
        },
        "model": {"name": "gain", "width": 8},
        "objective": {"game": "gain", "condition": "masked", "masked": {"share": 0.3}},
        "train": {"total_images": 120, "precision": "float64", "tick_images": 60},
        "evaluate": {
            "every_images": 60,
            "samples": SAMPLES,
            "held_out_share": HELD_OUT,
            "metrics": ["rmse"],
            "best": {"metric": "rmse"},
        },
        "checkpoint": {"every_images": 0},
    }
    config = config_of(values)
    preflight.check(config)
    run_config.write_config(config, RunFolder(Folder(run_folder(config))))
    run_ranks(config, 2, place / "meeting")
    return config


def scored(config):
    (file,) = (run_folder(config) / "metrics").iterdir()
    return [line for line in map(json.loads, file.read_text().splitlines()) if "rmse" in line]


def test_missing_numbers_of_held_out_rows_are_scored_beside_mean_imputation(run, capsys):
    lines, sampler = scored(run), Sampler(str(run_folder(run)))
    assert [line["images"] for line in lines] == [60, 120]
    generated = sampler.generated(run.run.seed)
    given, truth = generated.given(0, SAMPLES), generated.truth(0, SAMPLES)
    filled = torch.cat([generated.images(0, 64), generated.images(64, SAMPLES - 64)])
    training = generated.pairs.training
    means = training.batch(0, training.samples, generated.device, torch.float64)["image"].nanmean(0)
    there = (given["mask"] > 0) & truth.isfinite()
    for column, answer in (("rmse", filled), ("rmse@mean", means.expand_as(truth))):
        assert lines[-1][column] == pytest.approx(float((answer - truth)[there].square().mean().sqrt()))
    assert not bool(truth.isfinite().all())
    best = json.loads((run_folder(run) / "best.json").read_text())
    assert best["score"] == min(line["rmse"] for line in lines)
    assert [Image.open(path).size for path in sorted((run_folder(run) / "samples").iterdir())][-1] == (700, 700)
    assert evaluate.main([str(run_folder(run)), "--json"]) == 0  # One process; two workers have trained.
    found = json.loads(capsys.readouterr().out)
    assert {name: found[name] for name in ("rmse", "rmse@mean", "frechet_distance")} == pytest.approx(
        {name: lines[-1][name] for name in ("rmse", "rmse@mean", "frechet_distance")}
    )
    assert found["name"] == f"Fréchet distance (of the numbers, n={SAMPLES})"
    assert found["held_out"] == "evaluate.held_out_share=0.25"
    assert distance_name(run.model_dump(mode="json")) == found["name"]


def test_the_distance_of_real_rows_is_none(run):
    sampler = Sampler(str(run_folder(run)))
    index, generated = open_data(run.data.shards).index, sampler.generated(0)
    evaluator = PointEvaluator(index, SAMPLES, {}, Folder(run.run.storage))

    class Real(type(generated)):
        def images(self, start, count):
            return self.truth(start, count)

    assert evaluator.score(Real(**vars(generated))).value == pytest.approx(0, abs=1e-9)


def test_a_table_of_a_user_is_filled(run, tmp_path, capsys):
    (tmp_path / "mine.csv").write_text("c;a;b\n0.5;12.50;\nNA;;30\n\n1;11;22\n")
    command = [str(run_folder(run)), "--input", str(tmp_path / "mine.csv"), "--out", str(tmp_path / "out/full.csv")]
    assert sample.main(command) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'out/full.csv'}\n"
    with (tmp_path / "out/full.csv").open() as file:
        rows = list(csv.reader(file, delimiter=";"))
    assert rows[0] == ["c", "a", "b"]
    assert (rows[1][:2], rows[2][2], rows[3]) == (["0.5", "12.50"], "30", ["1", "11", "22"])
    columns = {column.name: column for column in columns_of(open_data(run.data.shards).index)}
    for row, column in ((1, 2), (2, 0), (2, 1)):
        of = columns[rows[0][column]]
        assert of.low <= float(rows[row][column]) <= of.high
    assert sample.main([*command, "--seed", "1"]) == 0
    other = (tmp_path / "out/full.csv").read_text()
    assert other.splitlines()[1] != ";".join(rows[1])


@pytest.mark.parametrize(
    ("text", "options", "words"),
    [
        ("a,b,c\n1,2,3\n", [], "--input t.csv: no number is missing; leave cells empty"),
        ("a,b\n1,\n", [], "--input t.csv: column 'c' of the run's data is missing; add it, empty if unknown"),
        ("a,b,c,d\n1,,3,4\n", [], "--input t.csv: column 'd' is not in the run's data; remove it"),
        ("a,b,c\n1,,x\n", [], "--input t.csv, line 2: 'x' in column 'c' is not a number"),
        ("a,b,c\n1,,3\n", ["--count", "2"], "--count: does not go with a table of --input"),
        ("a,b,c\n1,,3\n", ["--out", "t.csv"], "--out t.csv: would overwrite t.csv; name another file"),
        ("a,b,c\n1,,3\n", ["--out", "full.png"], "--out full.png: the filled table is a .csv"),
    ],
)
def test_faults_of_a_users_table_are_one_line(run, tmp_path, monkeypatch, capsys, text, options, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.csv").write_text(text)
    assert sample.main([str(run_folder(run)), "--input", "t.csv", "--out", "full.csv", *options]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "full.csv").exists()


def test_a_picture_is_no_table(run, tmp_path, capsys):
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    assert sample.main([str(run_folder(run)), "--input", str(tmp_path / "a.png"), "--out", str(tmp_path / "o")]) == 2
    assert "this run fills tables of numbers; give a .csv" in capsys.readouterr().err


def test_held_out_rows_are_sampled_as_a_picture_and_the_generator_exported(run, tmp_path):
    folder = str(run_folder(run))
    assert sample.main([folder, "--out", str(tmp_path / "rows.png"), "--count", "70"]) == 0
    assert Image.open(tmp_path / "rows.png").size == (700, 700)
    assert export.main([folder, "--out", str(tmp_path / "g.pt2")]) == 0
    program = torch.export.load(tmp_path / "g.pt2").module()
    masked, mask = torch.rand(4, 3, 1, 1, dtype=torch.float64), torch.zeros(4, 3, 1, 1, dtype=torch.float64)
    mask[:, 1] = 1
    rows = program(masked * (1 - mask), mask)
    assert torch.equal(rows[:, ::2], masked[:, ::2])
    assert not torch.equal(rows[:, 1], masked[:, 1])


def test_a_run_that_fills_nothing_refuses_a_table_with_holes(run):
    config = config_of(
        run.model_dump(mode="json"),
        model__name="mlp",
        objective__game="gan",
        objective__condition=None,
        objective__masked={},
        evaluate__metrics=[],
        evaluate__best={},
        evaluate__held_out_share=0,
    )
    with pytest.raises(UserError, match=r"numbers of .* are missing; set objective.condition: masked"):
        preflight.check(config)
