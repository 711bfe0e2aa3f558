"""Fuzzing of `ganrun train --dry-run` and `--validate`: whatever the config, it ends as it promises.

It exits with 0 or 2, never with a traceback, and a refusal says `ganrun: ` and why. `make test` runs some examples,
`make drill` an hour.
"""

import contextlib
import functools
import io
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ganrun import train
from ganrun.config.keys import flat
from ganrun.config.schema import Config
from tests.conftest import small_run, write_data

WATCHDOG_SECONDS = 120
"""Longest time of one command. It takes less than a second; this ends a hang only."""
EXAMPLES = {"dry_run": 200, "arguments": 150, "validate": 60, "own": 60}
"""Examples in `make test`: about 20 s of CPU time in all."""
DRILL_SECONDS = 3600


class HangError(BaseException):
    """The command did not end. No Exception, which it would catch."""


def _hang(*_: object) -> None:
    raise HangError


@functools.cache
def data_folder() -> Path:
    """Return the small data set, which lasts as long as this process."""
    _kept.append(tempfile.TemporaryDirectory())
    return write_data(Path(_kept[-1].name) / "data")


_kept: list["tempfile.TemporaryDirectory[str]"] = []


@contextlib.contextmanager
def elsewhere() -> Iterator[Path]:
    """Work in a folder of its own, in which relative paths of configs end."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            yield Path(folder)
        finally:
            os.chdir(before)


def check(values: Any, arguments: list[str], variables: dict[str, str]) -> None:
    """Run the command on a config in this process and check its end."""
    folder_of_data = data_folder()
    with elsewhere() as folder, mock.patch.dict(os.environ, variables):
        if isinstance(values, bytes):
            Path("run.yaml").write_bytes(values)
        else:
            tree = small_run(folder / "runs", folder_of_data)
            for key, value in values.items():
                put(tree, key, value)
            Path("run.yaml").write_text(yaml.safe_dump(tree), "utf-8")
        code, err = run(["run.yaml", *arguments])
    assert code in (0, 2), (code, err)
    assert "Traceback" not in err, err
    assert not code or "ganrun: " in err or err.startswith("usage: "), err


def put(tree: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    for parent in parents:
        if not isinstance(tree.get(parent), dict):
            tree[parent] = {}
        tree = tree[parent]
    tree[last] = value


def run(arguments: list[str]) -> tuple[int, str]:
    """Run the command in this process; return its exit code and stderr, which takes UTF-8 only."""
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
    before = signal.signal(signal.SIGALRM, _hang)
    signal.alarm(WATCHDOG_SECONDS)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = train.main(arguments)
    except SystemExit as error:  # argparse's.
        code = error.code if isinstance(error.code, int) else 1
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    return code, err.buffer.getvalue().decode()  # type: ignore[attr-defined]


# Values. No path leads out of the folder, no address to a network, and no size to more memory than there is.

PLAIN = flat(Config.model_validate(small_run(Path("runs"), Path("data"))))
KEYS = sorted({*PLAIN, "own.a", "own.b.c", "tune.metric", "objective.penalties.r1", "optimizer.critic.beta1"})
ODD_KEYS = ("", "x", "${", "${oc.env:FUZZED}", "a.b", "x y", "1", "é", "run", "data.fields")
ADDRESSES = {"run.storage", "run.start_from", "data.shards", "evaluate.extractor", "evaluate.extractor_weights"}
MEMORY = {"model.width", "model.latent_size", "model.classes", "data.image_size", "data.channels"}
TEMPLATES = ["", "a" * 300, "é" * 130, "${oc.env:FUZZED}", "${oc.env:FUZZED,3}", "${run.seed}", "${", "${own}", "1e400"]
NAMES = ["gan", "dcgan", "resnet", "mlp", "hinge", "wasserstein", "relativistic", "hypersphere", "float64", "bf16"]
signs = st.characters(exclude_characters="/.\0~", exclude_categories=["Cs"])
words = st.text(signs, max_size=12) | st.sampled_from(TEMPLATES)
known = st.sampled_from(NAMES)
huge = st.sampled_from([10**9, 2**63, 10**30, 10**400, -(10**30), 0.5, 1e-320, 1e308, 1e6])
values = st.recursive(
    words | st.integers(-3, 100) | huge | st.floats() | st.none() | st.booleans() | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=4,
)
small = words | st.integers(-3, 40) | st.floats(-2, 40) | st.none() | st.booleans()
alike: dict[type, st.SearchStrategy[Any]] = {
    bool: st.booleans(),
    int: st.integers(1, 12) | st.integers(0, 10**30),
    float: st.floats(0, 1, exclude_min=True) | st.floats(0, 1e300),
    str: known,
}


@st.composite
def changes(draw: st.DrawFn) -> dict[str, Any]:
    """Draw some keys of a config, mostly with values of their type."""
    drawn = {}
    for key in draw(st.lists(st.sampled_from([*KEYS * 3, *ODD_KEYS]), max_size=3, unique=True)):
        if key in MEMORY:
            drawn[key] = draw(small | known)
        elif key in ADDRESSES:
            drawn[key] = draw(words)
        else:
            right = alike.get(type(PLAIN.get(key)))
            drawn[key] = draw(right if right is not None and draw(st.integers(0, 3)) else values | known)
    return drawn


environments = st.dictionaries(
    st.sampled_from(["FUZZED", "GANRUN_SIDECAR", "RAY_ADDRESS", "RAY_TMPDIR", "XDG_CACHE_HOME"]),
    words | st.just("\udcff"),  # A byte that is not UTF-8.
    max_size=2,
)
loose = st.sampled_from(["{a: 1}", "[1", "{", "&a *a", "1e3", "\udcff", "- a", "!!python/none", "2026-11-29", "0x10"])
overrides = st.lists(st.builds("{}={}".format, st.sampled_from([*KEYS, *ODD_KEYS]), words | loose), max_size=3)


def fuzz_dry_run(changed: dict[str, Any], variables: dict[str, str]) -> None:
    check(changed, ["--dry-run"], variables)


def fuzz_arguments(content: bytes | None, arguments: list[str], variables: dict[str, str]) -> None:
    check({} if content is None else content, [*arguments, "--dry-run"], variables)


def fuzz_validate(changed: dict[str, Any], variables: dict[str, str]) -> None:
    check({"model.width": 2, **changed}, ["--validate"], variables)


def fuzz_own(names: list[str], player: str, more: dict[str, Any], module: str, game: str) -> None:
    own: dict[str, Any] = {"own.names": names, "own.player": player} if module == "tests.own_games" else {}
    own |= {f"own.{name}": value for name, value in more.items()}
    check({"run.imports": [module], "objective.game": game, "model.width": 2, **own}, ["--validate"], {})


parts = st.text(max_size=5) | st.sampled_from(
    ["time", "images", "loss/x", "logit/real", "logit", "a/b/c", "penalty/", "/"]
)
FUZZERS: dict[str, tuple[Callable[..., None], tuple[Any, ...]]] = {
    "dry_run": (fuzz_dry_run, (changes(), environments)),
    "arguments": (fuzz_arguments, (st.none() | st.binary(max_size=40), overrides, environments)),
    "validate": (fuzz_validate, (changes(), environments)),
    "own": (
        fuzz_own,
        (
            st.lists(parts, max_size=3),
            st.sampled_from(["namer", "generator"]) | words,
            st.dictionaries(
                st.sampled_from(["stretch", "stretch.weight", "stretch.sizes", "plain", "x.y"]), values, max_size=2
            ),
            st.sampled_from(["tests.own_games"] * 3 + ["tests.own_settings", "tests", "nowhere", "tests."]),
            st.sampled_from(["named"] * 6 + ["spare", "faulty", "gan", "pull"]),
        ),
    ),
}


def fuzz(name: str, **changes: Any) -> None:
    checked, strategies = FUZZERS[name]
    quiet = list(HealthCheck)
    settings(deadline=None, database=None, suppress_health_check=quiet, **changes)(given(*strategies)(checked))()


@pytest.mark.parametrize("name", FUZZERS)
def test_whatever_the_config_it_ends_as_promised(name: str) -> None:
    fuzz(name, max_examples=EXAMPLES[name], derandomize=True)


@pytest.mark.drill
@pytest.mark.parametrize("name", FUZZERS)
def test_whatever_the_config_it_ends_as_promised_for_an_hour(name: str) -> None:
    end = time.monotonic() + DRILL_SECONDS / len(FUZZERS)
    while time.monotonic() < end:
        fuzz(name, max_examples=300)
