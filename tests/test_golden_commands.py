"""Output of each command with --help and --dry-run equals the recording."""

import re
import subprocess
import sys

import pytest

from tests.recorded import ROOT, expect_text, masked, said
from tests.waiting import WAIT

CONFIGS = sorted(path.name for path in (ROOT / "configs").glob("*.yaml"))
VERBS = re.findall(r"^  (\w+) ", said("--help"), re.MULTILINE)
SUB_VERBS = ("list", "show", "curve", "delete", "gc")

of_this_argparse = pytest.mark.skipif(sys.version_info >= (3, 13), reason="argparse words its help in another way")


def test_the_verbs_are_those_recorded():
    expect_text("help/ganrun.txt", said("--help"))


@of_this_argparse
@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_verb(verb):
    expect_text(f"help/{verb}.txt", said(verb, "--help"))


@of_this_argparse
@pytest.mark.parametrize("verb", SUB_VERBS)
def test_help_of_a_verb_of_runs(verb):
    expect_text(f"help/runs_{verb}.txt", said("runs", verb, "--help"))


@pytest.mark.parametrize("name", CONFIGS)
def test_a_dry_run_of_a_config(name, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.delenv("GANRUN_BUCKET", raising=False)
    expect_text(f"dry_run/{name}.txt", said("train", f"configs/{name}", "--dry-run"))


@pytest.mark.parametrize("name", [name for name in CONFIGS if "tune:" in (ROOT / "configs" / name).read_text()])
def test_a_dry_run_of_a_search_says_the_same(name, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.delenv("GANRUN_BUCKET", raising=False)
    assert said("tune", f"configs/{name}", "--dry-run") == said("train", f"configs/{name}", "--dry-run")


def test_overrides_and_defaults_of_a_dry_run(tmp_path):
    config = tmp_path / "least.yaml"
    config.write_text("run: {name: least}\ndata: {shards: data, image_size: 32}\ntrain: {total_images: 100}\n")
    changes = ("optimizer.generator.learning_rate=1e-4", "cluster.workers=[1, 4]", "objective.penalties={r1: 1}")
    expect_text("dry_run/least.txt", said("train", config, "--dry-run", *changes))


def test_faults_of_a_config_are_all_named(tmp_path):
    config = tmp_path / "wrong.yaml"
    config.write_text("run: {name: -}\ndata: {shards: data, imagesize: 32}\ntrain: {total_images: no}\nmodl: {}\n")
    command = [sys.executable, "-m", "ganrun.train", config, "--dry-run", "model.name=dcgam", "data.batch_size=7"]
    # In a process of its own: here other tests have registered networks of their own.
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=WAIT)
    assert (done.returncode, done.stdout) == (2, "")
    expect_text("dry_run/faults.txt", masked(done.stderr, tmp_path))
