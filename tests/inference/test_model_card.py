"""The folder for a hub has a card that the hub's own library reads, and is a checkpoint to all commands."""

import json
import shlex
import shutil

import pytest
import yaml
from huggingface_hub import ModelCard
from PIL import Image

import ganrun
from ganrun import export, sample
from ganrun.config.schema import RunConfig
from ganrun.inference.model_card import public
from ganrun.inference.sampling import Sampler
from tests.conditional import conditional
from tests.conftest import config_of
from tests.paired import paired, write_pairs
from tests.ranks import run_folder, run_ranks


def train(values, tmp_path, **changes):
    config = config_of(values, train__precision="float32", train__total_images=60, **changes)
    run_ranks(config, 1, tmp_path / "meeting")
    return run_folder(config)


def edit_index(data, **made):
    index = json.loads((data / "index.json").read_text())
    (data / "index.json").write_text(json.dumps(index | {"made": made}))


@pytest.mark.parametrize("labels", [False, True])
def test_the_hub_reads_the_card_and_the_commands_read_the_folder(values, tmp_path, labels):
    run = train(conditional(values) if labels else values, tmp_path, evaluate__every_images=60, evaluate__samples=10)
    out = tmp_path / "card"
    assert export.main([str(run), "--card", str(out)]) == 0
    card = ModelCard.load(out / "README.md")
    assert card.data.library_name == "ganrun"
    assert card.data.pipeline_tag == "unconditional-image-generation"
    (score,) = json.loads((out / "manifest.json").read_text())["scores"]
    found = {each.metric_name: each.metric_value for each in card.data.eval_results}
    assert found[score["name"]] == pytest.approx(score["value"])
    assert score["extractor_sha256"][:12] in card.text
    assert "optimizer_generator.safetensors" not in [path.name for path in out.iterdir()]
    first, second = Sampler(str(run)), Sampler(str(out))
    assert all(a.equal(b) for a, b in zip(first.draw(4, 0), second.draw(4, 0), strict=True))
    assert ganrun.load(out).sample(4, seed=0).equal(next(first.draw(4, 0)))
    assert sample.main([str(out), "--out", str(tmp_path / "again.png"), "--grid", "--count", "64"]) == 0
    assert (out / "samples.png").read_bytes() == (tmp_path / "again.png").read_bytes()


def test_the_licence_of_the_data_is_that_of_its_index(values, tmp_path):
    shutil.copytree(values["data"]["shards"], tmp_path / "data")
    values["data"]["shards"] = str(tmp_path / "data")
    run = train(values, tmp_path)
    edit_index(tmp_path / "data", licences=["Faces by Ada: licence CC-BY 4.0"], source="folder:faces")
    assert export.main([str(run), "--card", str(tmp_path / "stated")]) == 0
    card = ModelCard.load(tmp_path / "stated/README.md")
    assert card.data.license == "other"
    assert "- Faces by Ada: licence CC-BY 4.0" in card.text
    edit_index(tmp_path / "data")
    assert export.main([str(run), "--card", str(tmp_path / "silent")]) == 0
    card = ModelCard.load(tmp_path / "silent/README.md")
    assert card.data.license == "unknown"
    assert "states no licence" in card.text


def test_a_card_names_no_place_of_this_machine(values, tmp_path):
    run = train(values, tmp_path, evaluate__every_images=60, evaluate__samples=10)
    assert export.main([str(run), "--card", str(tmp_path / "card")]) == 0
    for path in (tmp_path / "card").iterdir():
        assert str(tmp_path).encode() not in path.read_bytes()
        assert values["data"]["shards"].encode() not in path.read_bytes()
    config = config_of(
        values,
        data__shards=["s3://bucket/a.tar", "/home/me/b.tar", "file:///home/c"],
        cluster__env={"TOKEN": "secret"},
        objective__of="/home/me/runs/faces",
        evaluate__matcher="/home/me/matcher.pt",
    )
    shown = yaml.safe_load(public(config).to_yaml())
    assert (shown["objective"]["of"], shown["evaluate"]["matcher"]) == ("faces", "matcher.pt")
    assert shown["data"]["shards"] == ["s3://bucket/a.tar", "b.tar", "c"]
    assert (shown["cluster"]["env"], shown["run"]["storage"]) == ({}, RunConfig(name="x").storage)


def test_a_folder_that_is_in_use_is_refused(values, tmp_path, capsys):
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine.txt").write_text("kept")
    assert export.main([str(tmp_path), "--card", str(tmp_path / "full")]) == 2
    assert capsys.readouterr().err == f"ganrun: --card {tmp_path}/full: is not empty; name a new folder\n"


def test_a_folder_of_a_translator_colours_a_picture_where_the_data_is_not(values, tmp_path, monkeypatch, capfd):
    run = train(paired(values, write_pairs(tmp_path / "data"), objective={"reconstruction": {"l1": 1.0}}), tmp_path)
    assert export.main([str(run), "--card", str(tmp_path / "card")]) == 0
    card = ModelCard.load(tmp_path / "card/README.md")
    assert card.data.pipeline_tag == "image-to-image"
    shutil.rmtree(tmp_path / "data")
    Image.new("L", (32, 32), 200).save(tmp_path / "card/picture.png")
    monkeypatch.chdir(tmp_path / "card")
    (command,) = (line for line in card.text.splitlines() if line.startswith("ganrun sample"))
    assert sample.main(shlex.split(command)[2:]) == 0, capfd.readouterr().err
    assert Image.open(tmp_path / "card/made/picture.png").size == (32, 32)
