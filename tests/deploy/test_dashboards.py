"""The dashboards are what the table of series makes of them, and every query of theirs has an answer."""

import contextlib
import importlib
import json
import math
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from ganrun.telemetry.series import SERIES
from tests.commands import Train
from tests.conftest import config_of, small_run, write_yaml
from tests.deploy.stack import (
    DEPLOY,
    RECORDED,
    Exporter,
    ask,
    free_port,
    needs,
    prometheus,
    serving,
    sidecar,
    wait_until,
)
from tests.deploy.test_rules import ALERTS, RULES

FILES = sorted((DEPLOY / "grafana/dashboards").glob("*.json"))
RECORDED_NAMES = set(re.findall(r"^# TYPE (\w+)", RECORDED.read_text(), re.MULTILINE))
CHOSEN = {"$run": ".+", "$trial": ".*", "$node": ".*", "$__rate_interval": "1m"}
"""What stands for the variables: Grafana joins several choices to a regular expression too."""
LIVE = "live"
"""The name of the real run."""
OF_OTHERS = {
    f"ganrun_{name}"
    for name in ("gpu_seconds_total", "gpu_memory_bytes", "mode_distance", "shard_errors_total", "exploits_total")
} | {"ganrun_trials", "ganrun_worse_than_baseline"}
"""What a run on CPUs, of images without pairs, without faults and without a search does not show."""
QUIET = ("Restart", "Rollback", "Exploit", "Silent runs", "Ended")
"""What has nothing to show of a run that trains undisturbed."""


def load(name: str) -> dict[str, Any]:
    return json.loads((DEPLOY / "grafana/dashboards" / name).read_text())


def queries(dashboard: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Titles with expressions of panels and marks."""
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"]
    for mark in dashboard["annotations"]["list"]:
        yield mark["name"], mark["expr"]


ALL = [(path.name, *each) for path in FILES for each in queries(load(path.name))]


def names_in(expression: str) -> set[str]:
    """Metrics that it asks for."""
    return set(re.findall(r"(?<![\w:$])(?:\w+:)?(?:ganrun|ray)_\w+(?::\w+)?", expression))


def test_the_dashboards_are_what_the_script_makes(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(DEPLOY / "grafana"), *sys.path])
    made = importlib.import_module("make").dashboards()
    assert made == {path.name: path.read_text() for path in FILES}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_dashboard_is_of_the_sdk_s_types(path):
    register_default_plugins()
    read = Dashboard.from_json(json.loads(path.read_text()))
    assert JSONEncoder(sort_keys=True, indent=1).encode(read) + "\n" == path.read_text()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_panels_say_what_they_show_and_do_not_overlap(path):
    taken = set()
    for panel in load(path.name)["panels"]:
        place = panel["gridPos"]
        cells = {
            (place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])
        }  # fmt: skip
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
        assert panel["type"] == "row" or panel["description"]


def test_panels_ask_the_source_that_is_provisioned():
    file = DEPLOY / "grafana/provisioning/datasources/prometheus.yml"
    (source,) = yaml.safe_load(file.read_text())["datasources"]
    asked = [each["datasource"] for path in FILES for each in load(path.name)["panels"] if each["type"] != "row"]
    asked += [each["datasource"] for path in FILES for each in load(path.name)["annotations"]["list"]]
    assert all(each == {"type": source["type"], "uid": source["uid"]} for each in asked)


def test_every_series_is_on_a_panel_or_in_an_alert():
    asked = {name for _, _, expression in ALL for name in names_in(expression)}
    asked |= {name for rule in ALERTS.values() for name in names_in(rule["expr"])}
    assert {series.full_name for series in SERIES} - asked == set()


def test_every_query_names_what_there_is():
    groups = [group for path in RULES for group in yaml.safe_load(path.read_text())["groups"]]
    rules = {rule["record"]: rule for group in groups for rule in group["rules"] if "record" in rule}
    asked = {name for _, _, expression in ALL for name in names_in(expression)}
    asked |= {name for rule in [*ALERTS.values(), *rules.values()] for name in names_in(rule["expr"])}
    recorded = {name for name in RECORDED_NAMES if name.startswith("ray_")}
    assert asked <= {series.full_name for series in SERIES} | rules.keys() | recorded


def test_the_recording_has_every_series():
    assert {series.full_name for series in SERIES} <= RECORDED_NAMES


@contextlib.contextmanager
def trained(folder: Path, data_folder: Path, ray: str) -> Iterator[str]:
    """Two workers train for as long as the block lasts, and push to a sidecar; its address."""
    config = config_of(
        small_run(folder / "runs", data_folder),
        run__name=LIVE,
        train__total_images=100_000_000,
        cluster__workers=2,
        checkpoint__every_images=600,
        evaluate__every_images=100_000_000,  # The score at the first tick is enough, and a later one's time too much.
        evaluate__samples=20,
        evaluate__metrics=["kid", "precision", "recall", "density"],
        telemetry__push_seconds=1,
    )
    address = f"127.0.0.1:{free_port()}"
    watcher = sidecar(int(address.rpartition(":")[2]))
    yaml = write_yaml(folder / "live.yaml", config.model_dump(mode="json"))
    run = Train(yaml, address=ray, env={"GANRUN_SIDECAR": f"http://{address}"})
    try:
        yield address
        run.process.send_signal(signal.SIGINT)
        code, _, error = run.wait()
        assert code == 130, error
    finally:
        run.process.kill()
        watcher.kill()
        watcher.wait()


@pytest.fixture(scope="module")
def url(tmp_path_factory, data_folder, ray_here):
    """Prometheus, which scrapes a real run, and a recording of what a run on CPUs, or without a search, has not."""
    folder = tmp_path_factory.mktemp("dashboards")
    with (
        serving(Exporter(RECORDED.read_text())) as target,
        trained(folder, data_folder, ray_here[0]) as address,
        prometheus(folder / "prometheus", target, address) as url,
    ):
        seen = "run:ganrun_left_seconds:avg15m and on (run, trial) changes(ganrun_images_total[1m]) > 0"
        wait_until(lambda: answer(url, seen), lambda: ask(url, "targets"))  # The last rule, and two scrapes.
        yield url


def answer(url: str, expression: str, run: str = ".+") -> Any:
    for name, value in (CHOSEN | {"$run": run}).items():
        expression = expression.replace(name, value)
    return ask(url, "query", query=expression)["result"]


@needs("prometheus")
@pytest.mark.parametrize(("file", "title", "expression"), ALL)
def test_a_query_has_an_answer(url, file, title, expression):
    found = answer(url, expression)
    assert found
    assert not any(math.isnan(float(each["value"][1])) for each in found)


@needs("prometheus")
def test_a_real_run_answers_all_but_what_it_has_not(url):
    asked = [(title, expression) for file, title, expression in ALL if not names_in(expression) & OF_OTHERS]
    asked = [(title, expression) for title, expression in asked if "ray_" not in expression and title not in QUIET]
    wait_until(
        lambda: all(answer(url, expression, LIVE) for _, expression in asked),
        lambda: [title for title, expression in asked if not answer(url, expression, LIVE)],
    )
    for title, expression in asked:
        value = answer(url, expression, LIVE)[0]["value"][1]
        print(f"{title}: {value}")
    assert len(asked) > 35


@needs("prometheus")
def test_the_variables_have_values(url):
    variables = [each for path in FILES for each in load(path.name)["templating"]["list"]]
    assert {each["name"] for each in variables} == {"run", "trial", "node"}
    for each in variables:
        series, label = re.fullmatch(r"label_values\((.*), (\w+)\)", each["query"]).groups()
        assert ask(url, f"label/{label}/values", **{"match[]": series.replace("$run", ".+")})
