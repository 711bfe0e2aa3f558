"""Shared fixtures: a small data set, configs over it, and a local Ray."""

import contextlib
import hashlib
import io
import json
import os
import socket
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
import webdataset
from hypothesis import HealthCheck, settings
from PIL import Image

from ganrun.config import registry
from ganrun.config.schema import Config
from ganrun.data.index import Index, Shard
from tests.commands import LOCAL_RAY
from tests.s3 import s3, s3_server
from tests.waiting import until

__all__ = ["s3", "s3_server"]

settings.register_profile("any speed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any speed")  # Tests pass on a busy machine, too.
os.environ["GANRUN_SIDECAR"] = "off"  # No test pushes to, or starts, the sidecar of whoever runs the tests.

SLOWEST = (
    "test_train.py",
    "cluster/test_local.py",
    "test_documents.py",
    "test_tune.py",
    "ray_backend/",
    "security/test_live_run.py",
    "tuning/test_result_grid.py",
    "worker/test_exploit.py",
    "deploy/",
)
"""Files that mostly wait for Ray and other servers. They come first, so that none is left alone at the end."""
RAY_STARTS = 5
"""Ray itself gives up on its start after 30 s, on a busy machine too early."""
SIZES = (30, 25, 35, 20, 31)
"""Samples in the shards of the small data set: unequal, and 141 in all, which 2, 4 and 6 slots do not divide."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the slowest files first."""
    tests = Path(__file__).parent

    def rank(item: pytest.Item) -> int:
        name = item.path.relative_to(tests).as_posix()
        return next((place for place, start in enumerate(SLOWEST) if name.startswith(start)), len(SLOWEST))

    items.sort(key=rank)


def write_shards(folder: Path, sizes: Sequence[int], sample: Callable[[int], dict[str, bytes]]) -> tuple[Shard, ...]:
    """Write shards of so many samples each. `sample` returns the members of a sample by number."""
    shards, number = [], 0
    folder.mkdir(parents=True)
    for shard, samples in enumerate(sizes):
        stream = io.BytesIO()
        with webdataset.TarWriter(stream, mtime=0) as tar:
            for _ in range(samples):
                tar.write({"__key__": f"{number:06d}", **sample(number)})
                number += 1
        data = stream.getvalue()
        (folder / f"{shard:06d}.tar").write_bytes(data)
        shards.append(Shard(f"{shard:06d}.tar", samples, len(data), hashlib.sha256(data).hexdigest()))
    return tuple(shards)


def png(pixels: np.ndarray) -> bytes:
    """Encode uint8 pixels [H, W] or [H, W, 3]."""
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, "png")
    return encoded.getvalue()


def write_data(folder: Path, sizes: tuple[int, ...] = SIZES, image_size: int = 16, channels: int = 1) -> Path:
    """Write shards of labelled images of random blobs, with their index."""
    random = np.random.default_rng(0)

    def sample(number: int) -> dict[str, bytes]:
        pixels = random.integers(0, 256, (4, 4, channels), np.uint8).repeat(image_size // 4, 0)
        return {"png": png(pixels.repeat(image_size // 4, 1).squeeze()), "cls": str(number % 3).encode()}

    index = Index(image_size, channels, ("a", "b", "c"), write_shards(folder, sizes, sample))
    (folder / "index.json").write_bytes(index.to_json())
    return folder


@pytest.fixture(scope="module", autouse=True)
def registries() -> Iterator[None]:
    """Remove what the tests of a file have registered, and forget their modules: the next import registers again."""
    tables = [table for table in vars(registry).values() if isinstance(table, registry.Registry)]
    before, loaded = [dict(table.data) for table in tables], set(sys.modules)
    yield
    for table, entries in zip(tables, before, strict=True):
        table.data = entries
    for name in set(sys.modules) - loaded:
        values = getattr(sys.modules[name], "__dict__", {}).values()
        if not name.startswith("ganrun.") and any(isinstance(value, registry.Registry) for value in values):
            del sys.modules[name]


@pytest.fixture(scope="module")
def extractor(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fast TorchScript extractor."""
    from tests.models.test_extractors import Brightness

    path = tmp_path_factory.mktemp("extractor") / "brightness.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(Brightness()), path)
    return path


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Use one thread: on tensors this small, threads wait for each other more than they compute."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the small data set, shared by all tests: read only."""
    return write_data(tmp_path_factory.mktemp("data") / "small")


@pytest.fixture
def values(tmp_path: Path, data_folder: Path) -> dict[str, dict[str, Any]]:
    """Config values of a small run. Tests change them before they build a `Config`."""
    return small_run(tmp_path / "runs", data_folder)


def small_run(storage: Path, data_folder: Path) -> dict[str, dict[str, Any]]:
    """Return the config values of a small run over the small data set."""
    return {
        "run": {"name": "small", "storage": str(storage)},
        "data": {
            "shards": str(data_folder),
            "image_size": 16,
            "channels": 1,
            "batch_size": 12,
            "slots": 6,
            "shuffle_shards": 2,
        },
        "model": {"width": 4, "latent_size": 8},
        "train": {"total_images": 240, "precision": "float64", "tick_images": 60},
        "checkpoint": {"every_images": 0, "keep": 9},
    }


def config_of(values: dict[str, dict[str, Any]], **changes: Any) -> Config:
    """Build a config from values and changes, written section__key=value."""
    values = json.loads(json.dumps(values))
    for name, value in changes.items():
        section, key = name.split("__")
        values.setdefault(section, {})[key] = value
    return Config.model_validate(values)


def write_yaml(path: Path, values: dict[str, dict[str, Any]]) -> Path:
    """Write values as a YAML config file."""
    import yaml

    path.write_text(yaml.safe_dump(values))
    return path


@pytest.fixture(scope="session")
def ray_here(tmp_path_factory):
    """Local Ray shared by the tests of a module: (address, process)."""
    with ray_head(tmp_path_factory.mktemp("ray") / "log", "--include-dashboard=false") as found:
        yield found


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@contextlib.contextmanager
def ray_head(log: Path, *options: str, **variables: str) -> Iterator[tuple[str, int]]:
    """Start a local Ray with 8 CPUs; yield (address, process)."""
    environment = os.environ | LOCAL_RAY | variables
    for _ in range(RAY_STARTS):
        port = free_port()
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--num-cpus=8"]
        command += [f"--port={port}", "--object-store-memory=100000000", "--disable-usage-stats", *options]
        with log.open("w") as output:
            process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
        try:
            if _has_started(process, log):
                yield f"127.0.0.1:{port}", process.pid
                return
        finally:
            _kill(process)
    raise AssertionError(log.read_text())


def _has_started(process: "subprocess.Popen[bytes]", log: Path) -> bool:
    until(lambda: "Ray runtime started" in log.read_text() or process.poll() is not None, log.read_text)
    return process.poll() is None


def _kill(process: "subprocess.Popen[bytes]") -> None:
    """Kill a process and all its descendants."""
    children: list[psutil.Process] = []
    with contextlib.suppress(psutil.NoSuchProcess):
        children = psutil.Process(process.pid).children(recursive=True)
    for each in [process, *children]:
        with contextlib.suppress(psutil.NoSuchProcess):
            each.kill()
    process.wait()
