"""Each alert fires when it should, after its `for` and not before, and for that run alone: promtool's word."""

import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from tests.deploy.stack import DEPLOY, ROOT, needs
from tests.waiting import WAIT

RULES = sorted((DEPLOY / "prometheus/rules").glob("*.yml"))
ALERTS = {
    rule["alert"]: rule for group in yaml.safe_load((DEPLOY / "prometheus/rules/alerts.yml").read_text())["groups"]
    for rule in group["rules"]
}  # fmt: skip
UP = {"ganrun_up{RUN}": "1x500"}
COUNTED_ONCE = "0x20 1x40"


class Case(NamedTuple):
    """Series in promtool's notation, a value a minute; RUN stands for the label of the run."""

    since: int
    """The first minute at which the alert's expression holds for the bad run."""
    bad: dict[str, str]
    good: dict[str, str]


CASES = {
    "GanrunRunFailed": Case(
        5, {'ganrun_ended{RUN,ending="failed"}': "_x5 1x20"}, {'ganrun_ended{RUN,ending="finished"}': "_x5 1x20"}
    ),
    "GanrunRunSilent": Case(
        5,
        {"ganrun_up{RUN}": "1x4 0x20"},
        {
            "ganrun_up{RUN}": "1x4 0x20",
            'ganrun_ended{RUN,ending="stopped"}': "_x5 1x20",
            'ganrun_up{RUN,trial="resting"}': "1x4 0x20",
        },
    ),
    "GanrunNoProgress": Case(
        20,
        UP | {"ganrun_images_total{RUN}": "0+10x10 100x40"},
        UP
        | {"ganrun_images_total{RUN}": "0+10x60"}
        | {'ganrun_images_total{RUN,trial="starting"}': "_x12 0x40", 'ganrun_up{RUN,trial="starting"}': "_x12 1x40"},
    ),
    "GanrunImagesPerSecondFallen": Case(
        407,
        UP | {"ganrun_images_per_second{RUN}": "100x400 50x60"},
        UP | {"ganrun_images_per_second{RUN}": "100x400 75x60"},
    ),
    "GanrunDataWaitHigh": Case(
        25, UP | {"ganrun_data_wait_ratio{RUN}": "0.1x20 0.6x40"}, UP | {"ganrun_data_wait_ratio{RUN}": "0.29x60"}
    ),
    "GanrunStraggler": Case(
        26,
        UP
        | {'ganrun_rank_round_seconds{RUN,rank="0"}': "1x60"}
        | {'ganrun_rank_round_seconds{RUN,rank="1"}': "1x20 2x40"},
        UP
        | {'ganrun_rank_round_seconds{RUN,rank="0"}': "1x60"}
        | {'ganrun_rank_round_seconds{RUN,rank="1"}': "1.4x60"}
        | {'ganrun_rank_round_seconds{RUN,trial="alone",rank="0"}': "9x60", 'ganrun_up{RUN,trial="alone"}': "1x60"},
    ),
    "GanrunNonFinite": Case(21, {"ganrun_nonfinite_total{RUN}": COUNTED_ONCE}, {"ganrun_nonfinite_total{RUN}": "5x60"}),
    "GanrunRolledBack": Case(
        21, {"ganrun_rollbacks_total{RUN}": COUNTED_ONCE}, {"ganrun_rollbacks_total{RUN}": "5x60"}
    ),
    "GanrunCollapseSuspected": Case(
        10,
        {'ganrun_collapse_suspected{RUN,symptom="gradient_vanished"}': "0x9 1x20"},
        {'ganrun_collapse_suspected{RUN,symptom="gradient_vanished"}': "0x30"},
    ),
    "GanrunRecallFallen": Case(
        21, UP | {"ganrun_recall{RUN}": "0.6x20 0.2x20"}, UP | {"ganrun_recall{RUN}": "0.6x20 0.4x20"}
    ),
    "GanrunScoreWorsening": Case(
        21,
        UP | {'ganrun_frechet_distance{RUN,extractor="a",samples="2048"}': "10x20 13x50"},
        UP
        | {'ganrun_frechet_distance{RUN,extractor="a",samples="2048"}': "10x20 12x50"}
        | {'ganrun_frechet_distance{RUN,extractor="b",samples="2048"}': "90x70"},
    ),
    "GanrunWorseThanBaseline": Case(
        21,
        {'ganrun_worse_than_baseline{RUN,metric="l1"}': "1x60", "ganrun_target_images{RUN}": "100x60"}
        | {"ganrun_images{RUN}": "10x20 60x40"},
        {'ganrun_worse_than_baseline{RUN,metric="l1"}': "0x60", "ganrun_target_images{RUN}": "100x60"}
        | {'ganrun_worse_than_baseline{RUN,trial="early",metric="l1"}': "1x60"}
        | {'ganrun_images{RUN,trial="early"}': "50x60", 'ganrun_target_images{RUN,trial="early"}': "100x60"}
        | {"ganrun_images{RUN}": "60x60"},
    ),
    "GanrunCheckpointOld": Case(
        61,
        UP | {"ganrun_checkpoint_last_success_timestamp_seconds{RUN}": "0x90"},
        UP | {"ganrun_checkpoint_last_success_timestamp_seconds{RUN}": "0+30x90"},
    ),
    "GanrunCheckpointFailing": Case(
        21, {"ganrun_checkpoint_failures_total{RUN}": COUNTED_ONCE}, {"ganrun_checkpoint_failures_total{RUN}": "5x60"}
    ),
    "GanrunWorkerLost": Case(
        21,
        {'ganrun_restarts_total{RUN,reason="failure"}': COUNTED_ONCE},
        {'ganrun_restarts_total{RUN,reason="resume"}': COUNTED_ONCE},
    ),
    "GanrunSearchStalled": Case(
        25,
        {'ganrun_trials{RUN,state="running"}': "2x60", 'ganrun_images_total{RUN,trial="1"}': "0+10x10 100x50"},
        {'ganrun_trials{RUN,state="running"}': "2x60", 'ganrun_images_total{RUN,trial="1"}': "0+10x60"}
        | {'ganrun_trials{RUN,state="terminated"}': "2x60", 'ganrun_images_total{RUN,trial="2"}': "7x60"}
        | {'ganrun_trials{run="starting",state="pending"}': "_x16 2x60"},
    ),
    "GanrunSidecarGone": Case(5, {'up{job="ganrun",RUN}': "1x4 0x20"}, {}),
}  # fmt: skip


def test_there_is_a_case_for_each_alert():
    assert CASES.keys() == ALERTS.keys()


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_says_how_bad_it_is_and_what_to_do(name):
    rule = ALERTS[name]
    assert "for" in rule
    assert rule["labels"]["severity"] in ("warning", "critical")
    assert rule["annotations"].keys() == {"summary", "runbook"}
    assert f"| `{name}` | {rule['labels']['severity']} |" in (ROOT / "docs/monitoring.md").read_text()


def promtool(*arguments: str, folder: Path | None = None) -> str:
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, timeout=WAIT, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def check(folder: Path, series: dict[str, str], firing: dict[int, list[str]]) -> None:
    """At each minute exactly these alerts fire."""
    expression = 'count by (alertname, run) (ALERTS{alertstate="firing"})'
    asked = [
        {
            "expr": expression,
            "eval_time": f"{minute}m",
            "exp_samples": [{"labels": each, "value": 1} for each in alerts],
        }
        for minute, alerts in firing.items()
    ]
    test: dict[str, Any] = {
        "rule_files": [str(path) for path in RULES],
        "evaluation_interval": "1m",
        "group_eval_order": ["ganrun_recording", "ganrun_alerts"],
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": name, "values": values} for name, values in series.items()],
                "promql_expr_test": asked,
            }
        ],
    }
    (folder / "test.yml").write_text(yaml.safe_dump(test))
    promtool("test", "rules", "test.yml", folder=folder)


@needs("promtool")
@pytest.mark.parametrize("name", CASES)
def test_an_alert_fires_for_its_run_alone(name, tmp_path):
    case, rule = CASES[name], ALERTS[name]
    series = {'up{job="ganrun",run="sidecar"}': "1x500"}
    for run, each in (("bad", case.bad), ("good", case.good)):
        series |= {key.replace("RUN", f'run="{run}"'): values for key, values in each.items()}
    at = case.since + int(rule["for"].removesuffix("m"))
    check(tmp_path, series, {at - 1: [], at: [f'{{alertname="{name}", run="bad"}}']})


@needs("promtool")
def test_no_sidecar_at_all_is_noticed(tmp_path):
    check(tmp_path, {"ganrun_up": "_x20"}, {1: [], 2: ['{alertname="GanrunSidecarGone"}']})


@needs("promtool")
def test_prometheus_takes_its_files():
    promtool("check", "rules", *map(str, RULES))
    promtool("check", "config", str(DEPLOY / "prometheus/prometheus.yml"))


@needs("amtool")
def test_alertmanager_takes_its_file():
    file = DEPLOY / "alertmanager/alertmanager.yml"
    done = subprocess.run(["amtool", "check-config", file], capture_output=True, text=True, timeout=WAIT)
    assert done.returncode == 0, done.stdout + done.stderr
