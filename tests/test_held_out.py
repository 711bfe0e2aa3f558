"""Held-out samples of a run: never shown on any number of workers, and what its scores compare with."""

import functools
import hashlib
import io
import json
import re
import shutil
import tarfile
from unittest.mock import patch

import pytest

from ganrun import evaluate, sample
from ganrun.config.schema import EvaluateConfig
from ganrun.data.index import Index, Shard, open_data
from ganrun.data.samples import Samples
from ganrun.data.scored import open_scored
from ganrun.worker.host import WorkerHost
from tests.conditional import conditional
from tests.conftest import SIZES, config_of
from tests.keys import FIELDS, upload_with_keys
from tests.ranks import as_ranks, run_folder, run_ranks, work_rank

SHARE, HELD_OUT = 0.2, 28
STOP = 132


@pytest.fixture(scope="module")
def data(data_folder, tmp_path_factory):
    """The small data set with the key of each sample as its text."""
    folder = tmp_path_factory.mktemp("keyed") / "data"
    folder.mkdir()
    upload_with_keys(data_folder, str(folder))
    return folder


@pytest.fixture
def values(values, data):
    values["data"] |= {"shards": str(data), "fields": FIELDS}
    values["evaluate"] = {"held_out_share": SHARE}
    return values


def held_out_keys(config):
    data = open_data(config.data.shards)
    return [key for _, key, _ in Samples(open_scored(data, config.evaluate, 0))]


# Training.


def work_noted(rank, workers, runs):
    """Run one worker of several runs that writes down the keys of the samples that it is given."""
    original = WorkerHost.next_batches

    def noted(host, notes):
        batches = original(host)
        with notes.open("a") as file:
            for slot, batch in zip(host.state.slots.owned, batches, strict=True):
                file.write(json.dumps([slot, batch["text"]]) + "\n")
        return batches

    for config, notes, rendezvous, stop in runs:
        note = functools.partialmethod(noted, notes=notes.with_suffix(f".{rank}"))
        with patch.object(WorkerHost, "next_batches", note):
            work_rank(rank, config, workers, str(rendezvous), stop)


def shown(folder, name):
    """Return the keys that each slot was given, in order."""
    found = {}
    for path in sorted(folder.glob(f"{name}.*")):
        for slot, keys in map(json.loads, path.read_text().splitlines()):
            found.setdefault(slot, []).extend(keys)
    return found


def test_no_worker_is_ever_given_a_held_out_sample_and_all_of_them_are_given_the_same(values, tmp_path):
    config = config_of(values)
    # By workers: runs with the file of their notes, and the number of images at which they stop.
    plan = {1: [("whole-1", None), ("parts", STOP)], 2: [("whole-2", None)], 3: [("whole-3", None), ("parts", None)]}
    for workers, runs in plan.items():
        arguments = []
        for name, stop in runs:
            rendezvous = tmp_path / f"meeting-{name}-{workers}"
            notes = tmp_path / (f"{name}-{workers}" if name == "parts" else name)
            arguments.append((config_of(values, run__name=name), notes, rendezvous, stop))
        if workers == 1:
            work_noted(0, 1, arguments)
        else:
            as_ranks(work_noted, (workers, arguments), workers)
    alone = shown(tmp_path, "whole-1")
    assert alone == shown(tmp_path, "whole-2") == shown(tmp_path, "whole-3")
    first, second = shown(tmp_path, "parts-1"), shown(tmp_path, "parts-3")
    assert {slot: len(keys) for slot, keys in first.items()} == dict.fromkeys(range(6), STOP // 6)
    assert {slot: first[slot] + second[slot] for slot in first} == alone
    given, held_out = {key for keys in alone.values() for key in keys}, set(held_out_keys(config))
    assert len(held_out) == HELD_OUT
    assert given == {f"{number:06d}" for number in range(sum(SIZES))} - held_out


# Scores.


@pytest.fixture(scope="module")
def only_held_out(data, tmp_path_factory):
    """A data set of the held-out samples alone."""
    folder, whole = tmp_path_factory.mktemp("alone"), open_data(str(data))
    file, samples = io.BytesIO(), Samples(open_scored(whole, EvaluateConfig(held_out_share=SHARE), 0))
    with tarfile.open(fileobj=file, mode="w") as tar:
        for _, key, members in samples:
            for extension, content in members.items():
                member = tarfile.TarInfo(f"{key}.{extension}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    content = file.getvalue()
    (folder / "0.tar").write_bytes(content)
    shard = Shard("0.tar", len(samples), len(content), hashlib.sha256(content).hexdigest())
    (folder / "index.json").write_bytes(Index(16, 1, whole.index.classes, (shard,)).to_json())
    return folder


@pytest.fixture
def scored(values, extractor):
    """Values of a run that is scored against all held-out samples but one."""
    metrics = ["kid", "precision", "coverage", "classes_hit"]
    settings = {"every_images": 60, "samples": HELD_OUT - 1, "extractor": str(extractor), "metrics": metrics}
    values["evaluate"] |= settings
    values["train"]["total_images"] = 60
    return values


def scores(capsys, *arguments):
    capsys.readouterr()
    assert evaluate.main([*map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def trained(config, workers, tmp_path):
    """Train; return the run's folder and the score in its checkpoint."""
    run_ranks(config, workers, tmp_path / f"meeting-{config.run.name}")
    run = run_folder(config)
    (manifest,) = run.glob("checkpoints/*/manifest.json")
    (score,) = json.loads(manifest.read_text())["scores"]
    return run, score


def assert_same_numbers(found, expected):
    numbers = {name: value for name, value in expected.items() if isinstance(value, float)}
    assert {"frechet_distance", "kid", "precision", "coverage"} <= numbers.keys()
    assert {name: found[name] for name in numbers} == pytest.approx(numbers, rel=1e-6)


def test_scores_are_those_against_a_data_set_of_the_held_out_samples_alone(
    scored, only_held_out, data, tmp_path, capsys
):
    run, in_training = trained(config_of(scored), 2, tmp_path)
    own = scores(capsys, run)
    assert in_training["held_out"] == own["held_out"] == "evaluate.held_out_share=0.2"
    assert_same_numbers(own, {"frechet_distance": in_training["value"], **in_training["metrics"]})
    alone = scores(capsys, run, "--data", only_held_out)
    assert alone["held_out"] is None
    assert_same_numbers(alone, own)
    assert scores(capsys, run, "--data", data)["frechet_distance"] != pytest.approx(own["frechet_distance"], rel=1e-3)


def test_scores_against_another_set_are_those_against_it(scored, only_held_out, tmp_path, capsys):
    scored["evaluate"] |= {"held_out_share": 0.0, "shards": str(only_held_out)}
    run, in_training = trained(config_of(scored), 1, tmp_path)
    own = scores(capsys, run)
    assert re.fullmatch(rf"evaluate\.shards={only_held_out} sha256:[0-9a-f]{{12}}", own["held_out"])
    assert in_training["held_out"] == own["held_out"]
    assert_same_numbers(own, {"frechet_distance": in_training["value"], **in_training["metrics"]})
    assert_same_numbers(scores(capsys, run, "--data", only_held_out), own)


def test_labels_of_another_set_are_numbered_as_in_the_run(scored, only_held_out, tmp_path, capsys):
    index = json.loads((only_held_out / "index.json").read_text())
    turned = shutil.copytree(only_held_out, tmp_path / "turned")
    (turned / "index.json").write_text(json.dumps(index | {"classes": ["c", "b", "a"]}))
    scored = conditional(scored)
    found = {}
    for name, shards in (("same", only_held_out), ("turned", turned)):
        scored["evaluate"] |= {"held_out_share": 0.0, "shards": str(shards), "metrics": ["class_frechet_distance"]}
        run, in_training = trained(config_of(scored, run__name=name), 1, tmp_path)
        found[name] = scores(capsys, run, "--metrics", "class_frechet_distance")
        assert in_training["metrics"] == pytest.approx(
            {key: found[name][key] for key in in_training["metrics"]}, rel=1e-6
        )
    same, turned = ({key: each[f"class_frechet_distance/{key}"] for key in "abc"} for each in found.values())
    # The turned index gives label 0, which the run calls a, to pictures of c. Unpaired, c would be the a of the other.
    assert turned["b"] == pytest.approx(same["b"], rel=1e-6)
    for one, other in ((turned["a"], same["a"]), (turned["c"], same["c"]), (turned["c"], same["a"])):
        assert one != pytest.approx(other, rel=1e-3)


def test_pictures_in_a_folder_are_scored_against_the_held_out_samples_too(scored, only_held_out, tmp_path, capsys):
    run, _ = trained(config_of(scored), 1, tmp_path)
    pictures = tmp_path / "pictures"
    assert sample.main([str(run), "--out", str(pictures), "--count", "30"]) == 0
    own = scores(capsys, run, "--images", pictures, "--samples", "28")
    assert own["held_out"] == "evaluate.held_out_share=0.2"
    assert_same_numbers(scores(capsys, run, "--images", pictures, "--samples", "28", "--data", only_held_out), own)
    assert evaluate.main([str(run), "--images", str(pictures)]) == 2
    assert "--samples: 30, but only 28 samples are held out" in capsys.readouterr().err


def test_words_for_people(scored, tmp_path, capsys):
    run, _ = trained(config_of(scored), 1, tmp_path)
    capsys.readouterr()
    assert evaluate.main([str(run)]) == 0
    assert "; real images held out by evaluate.held_out_share=0.2\n" in capsys.readouterr().out
    assert evaluate.main([str(run), "--samples", "29"]) == 2
    error = capsys.readouterr().err
    assert "--samples: 29, but only 28 samples are held out (evaluate.held_out_share=0.2); ask for at most 28" in error
    assert error.count("\n") == 1
