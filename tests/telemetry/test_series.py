"""The table of metrics, and that nobody else spells their names."""

import ast
from pathlib import Path

import pytest

from ganrun.telemetry import series as metrics
from ganrun.telemetry.series import SERIES, read_tick_key

PACKAGE = Path(metrics.__file__).parent.parent
PRODUCERS = {
    "games/gan.py": {"logit/real", "logit/fake", "logit_sign/real"},
    "games/adaptive_augmentation.py": {"logit_sign/real"},
    "games/objective.py": {"logit/wrong"},
    "games/gain.py": {"logit/real", "logit/fake"},
    "evaluation/evaluation.py": {"frechet_distance"},
    "evaluation/modes.py": {"mode_distance"},
    "evaluation/point_evaluator.py": {"frechet_distance", "mode_distance"},
}
"""Where values come from: the algorithm and its scores are read without the table."""
OTHERS = {"telemetry/records.py": {"collapse_suspected"}, "training/metric_recorder.py": {"nonfinite"}}
"""Names of other things: a kind of event, a tensor of a checkpoint."""


def literals(tree):
    """Strings in code; docstrings are none."""
    documents = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documents:
            yield node.value


def is_name_of_a_metric(text):
    """Names of one common word (images, workers, kid) are words of other things, too."""
    own = {name for each in SERIES for name in (each.name, each.key) if "_" in name} | {metrics.NONFINITE.key}
    prefixes = tuple(each.prefix for each in SERIES if each.prefix.endswith("/"))
    return text.removeprefix(metrics.PREFIX) in own or text.startswith(prefixes)


def test_a_metric_is_spelled_in_the_table_and_where_it_is_produced():
    found = {}
    for path in PACKAGE.rglob("*.py"):
        spelled = set(filter(is_name_of_a_metric, literals(ast.parse(path.read_text()))))
        if spelled and path.name != "series.py":
            found[path.relative_to(PACKAGE).as_posix()] = spelled
    assert found == PRODUCERS | OTHERS


@pytest.mark.parametrize(
    "code", ['line["images_per_second"]', 'f"loss/{player}"', 'BY_NAME["ganrun_gpu_seconds_total"]']
)
def test_a_name_that_is_spelled_is_found(code):
    assert any(map(is_name_of_a_metric, literals(ast.parse(code))))


def test_the_page_takes_names_from_the_table():
    page = (PACKAGE / "telemetry/sidecar/page/page.js").read_text()
    assert [name for each in SERIES for name in (f'"{each.key}"', f'"{each.key}/"') if name in page] == []


@pytest.mark.parametrize(
    ("key", "series", "labels"),
    [
        ("images_per_second", metrics.IMAGES_PER_SECOND, ()),
        ("nonfinite", metrics.NONFINITE, ()),
        ("loss/generator", metrics.LOSS, ("generator", "total")),
        ("loss/generator/penalty/r1", metrics.LOSS, ("generator", "penalty/r1")),
        ("shard_errors/timeout", metrics.SHARD_ERRORS, ("timeout",)),
        ("own/thing", metrics.LOSS, ("", "own/thing")),
        ("images", metrics.LOSS, ("", "images")),
        ("logit", metrics.LOSS, ("", "logit")),
        ("nonfinite/x", metrics.LOSS, ("", "nonfinite/x")),
    ],
)
def test_a_key_of_a_tick_is_read(key, series, labels):
    assert read_tick_key(key) == (series, labels)


def test_a_key_of_every_metric_of_a_tick_is_read_back():
    for each in SERIES:
        if each.source == "tick":
            labels = tuple("xyz"[: len(each.labels)])
            assert read_tick_key(each.of(*labels)) == (each, labels)


def test_names_are_those_of_prometheus():
    assert len({each.name for each in SERIES}) == len(SERIES)
    assert all(each.name.endswith("_total") == (each.kind == "counter") for each in SERIES)
