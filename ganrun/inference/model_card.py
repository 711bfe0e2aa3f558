"""Folder of a checkpoint for a model hub: card (README.md with metadata), config, EMA networks, samples, scores."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

import ganrun
from ganrun.config.schema import Config
from ganrun.data.index import DataSet, open_data
from ganrun.errors import UserError
from ganrun.inference.sampling import Sampler, draw_grid, write_file
from ganrun.run_folder.run_folder import find_checkpoint
from ganrun.training import checkpoint

SAMPLES, LICENCE, DATA_LICENCE = "samples.png", "LICENSE", "DATA_LICENSE"
"""Picture of samples; licence beside the shards, and its copy in the folder."""
SHOWN = 64
"""Images in the picture of samples."""
UNCONDITIONAL, PICTURES, OTHER = "unconditional-image-generation", "image-to-image", "other"
"""Tasks by the names of the hub."""
PAGE = """---
{metadata}---

# {config.run.name}

`{config.model.name}` trained by ganrun {version} until {images:,} training images were shown: {config.data.channels}
channels, {config.data.image_size} pixels a side, game `{config.objective.game}`, loss `{config.objective.loss}`. The
weights are the exponential moving average.

![Samples]({samples})

## Use

In this folder, with `pip install ganrun`{needs}:

```sh
{sample}
ganrun export . --out generator.pt2
```

In Python, `ganrun.load(".")` is a run, with its `sample`, `generator` and `config`.

`config.yaml` is the whole config; `manifest.json` has the hashes of the files.

## Scores

{scores}

## Training data

{about_data}

The licence of these weights is yours to choose: set `license` at the top of this file.
"""


def write_card(run: str, folder: Path) -> None:
    """Write the folder. It is a checkpoint too: `ganrun sample FOLDER` and the other commands read it.

    Args:
        run: folder of a run (its newest checkpoint) or of a checkpoint.
        folder: is made; must not exist, or be empty.

    Raises:
        UserError: no checkpoint, the folder is in use, or the data of a condition cannot be read.
        RunError: the checkpoint is corrupt.
    """
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise UserError(f"--card {folder}: is not empty; name a new folder")
    sampler = Sampler(run)
    storage, directory = find_checkpoint(run)
    manifest, config = checkpoint.read_manifest(storage, directory), public(sampler.config)
    networks = [f"{name}_ema" if name in sampler.game.averaged else name for name in sampler.game.networks]
    files = checkpoint.read(storage, directory, only=tuple(f"{name}.safetensors" for name in networks))
    files[checkpoint.CONFIG] = config.to_yaml().encode()
    listed = {name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in files.items()}
    facts = manifest | {"format": checkpoint.FORMAT, "files": listed}
    data = _data_of(sampler.config)
    if data and LICENCE in data.places[0].list():
        files[DATA_LICENCE] = data.places[0].read(LICENCE)
    draw_grid(sampler, folder / SAMPLES, SHOWN, 0, False, lambda count: None)
    for name, content in files.items():
        write_file(folder / name, content)
    write_file(folder / "README.md", card_of(sampler, config, facts, data, DATA_LICENCE in files).encode())
    write_file(folder / checkpoint.MANIFEST, json.dumps(facts, indent=1).encode())  # Last: the folder is whole now.


def public(config: Config) -> Config:
    """Return a config without the paths of this machine (only their last part) and without environment variables."""

    def shown(place: str) -> str:
        is_here = "://" not in place or place.startswith("file:")
        return Path(place).name if is_here and not place.startswith("package:") else place

    def all_shown(places: str | list[str]) -> str | list[str]:
        return shown(places) if isinstance(places, str) else [shown(each) for each in places]

    evaluate, perceptual = config.evaluate, config.objective.perceptual
    keys = ("extractor", "extractor_weights", "lpips_weights", "matcher", "shards")
    places = {name: getattr(evaluate, name) for name in keys}
    weights = perceptual.weights and shown(perceptual.weights)
    return config.model_copy(
        update={
            "run": config.run.model_copy(update={"storage": "runs", "start_from": None}),
            "data": config.data.model_copy(update={"shards": all_shown(config.data.shards)}),
            "objective": config.objective.model_copy(
                update={
                    "of": config.objective.of and shown(config.objective.of),
                    "perceptual": perceptual.model_copy(update={"weights": weights}),
                }
            ),
            "evaluate": evaluate.model_copy(update={name: at and all_shown(at) for name, at in places.items()}),
            "cluster": config.cluster.model_copy(update={"env": {}}),
        }
    )


def card_of(sampler: Sampler, config: Config, facts: Mapping[str, Any], data: DataSet | None, has_file: bool) -> str:
    """Return the card: metadata of the hub as YAML, and a page.

    Args:
        sampler: the generator.
        config: its public config.
        facts: manifest of the checkpoint.
        data: its training data; None if it cannot be read.
        has_file: True if the data's licence is a file of the folder.
    """
    task, shards = _task(sampler), config.data.shards
    source = shards if isinstance(shards, str) else ", ".join(shards)
    scores = [(score, *each) for score in facts.get("scores", ()) for each in _values(score)]
    metadata: dict[str, Any] = {
        "license": "other" if data and _licences(data, has_file) else "unknown",
        "library_name": "ganrun",
        "tags": list(dict.fromkeys(("gan", config.model.name, config.objective.game))),
    }
    metadata |= {"pipeline_tag": task} if task != OTHER else {}
    if scores:
        metrics = [{"type": key, "value": value, "name": _title(score, key)} for score, key, value in scores]
        result = {"task": {"type": task}, "dataset": {"name": source, "type": source}, "metrics": metrics}
        metadata["model-index"] = [{"name": config.run.name, "results": [result]}]
    imports = ", ".join(config.run.imports)
    return PAGE.format(
        metadata=yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True),
        config=config,
        version=ganrun.__version__,
        images=facts["images"],
        samples=SAMPLES,
        sample=f"ganrun sample . --out made {'--input picture.png' if task == PICTURES else '--count 16'}",
        needs=f" and the modules {imports} of `run.imports`" if imports else "",
        scores="\n".join(_table(scores)) if scores else "None at this checkpoint; `ganrun evaluate` computes them.",
        about_data="\n".join(_about_data(source, data, has_file)),
    )


def _data_of(config: Config) -> DataSet | None:
    try:
        return open_data(config.data.shards, 0)
    except UserError:
        return None


def _task(sampler: Sampler) -> str:
    if sampler.of_points:
        return OTHER
    return UNCONDITIONAL if sampler.classes or not sampler.game.condition.fields else PICTURES


def _values(score: Mapping[str, Any]) -> list[tuple[str, float]]:
    found = {score["measure"]: score["value"], **score["metrics"]}
    return [(name, value) for name, value in found.items() if value is not None]


def _title(score: Mapping[str, Any], key: str) -> str:
    return str(score["name"]) if key == score["measure"] else f"{key} (n={score['samples']})"


def _table(scores: list[tuple[Mapping[str, Any], str, float]]) -> list[str]:
    rows = ["| score | value | samples | seed | extractor (SHA-256) | resize | held out by |", "|---" * 7 + "|"]
    for score, key, value in scores:
        extractor = f"{score['extractor']} ({score['extractor_sha256'][:12]})" if score.get("extractor") else "none"
        cells = (score["samples"], score["seed"], extractor, score.get("resize"), score.get("held_out") or "none")
        rows.append(f"| {_title(score, key)} | {value:.5g} | " + " | ".join(map(str, cells)) + " |")
    return rows


def _licences(data: DataSet, has_file: bool) -> list[str]:
    return list(data.index.made.get("licences", ())) + [f"[{DATA_LICENCE}]({DATA_LICENCE})"] * has_file


def _about_data(source: str, data: DataSet | None, has_file: bool) -> list[str]:
    if data is None:
        return [f"`{source}`, which could not be read when this card was made. State its licence here."]
    made = data.index.made.get("source")
    lines = [f"`{source}`{f' ({made})' if made else ''}: {data.index.samples:,} samples.", ""]
    if stated := _licences(data, has_file):
        return [*lines, "Its licences, as stated with it:", "", *(f"- {each}" for each in stated)]
    return [*lines, "Its index states no licence. State it here before you publish this folder."]
