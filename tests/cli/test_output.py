"""--quiet, --verbose, NO_COLOR and completion: alike for every command."""

import argparse
import os
import pty
import subprocess
import sys

import pytest

from ganrun.__main__ import VERBS
from ganrun.cli import command
from ganrun.config.keys import all_keys
from ganrun.config.load import load_config
from ganrun.errors import RunError, UserError
from tests.recorded import ROOT, ganrun, said
from tests.waiting import WAIT


@pytest.mark.parametrize("verb", VERBS)
def test_every_command_is_quiet_or_verbose(verb):
    help = said(verb, "--help")
    assert all(option in help for option in ("-q, --quiet", "-v, --verbose"))
    code, _, error = ganrun(verb, "-q", "-v")
    assert (code, "not allowed with argument" in error) == (2, True)


@pytest.mark.parametrize("place", [("-q", "show"), ("show", "-q")])
def test_the_options_stand_before_or_after_a_verb_of_runs(place, tmp_path):
    code, output, error = ganrun("runs", *place, tmp_path)
    assert (code, output) == (2, "")
    assert error == f"ganrun: {tmp_path} is no run: there is no config.yaml; runs are at run.storage/run.name\n"


def test_a_quiet_command_says_its_result_alone(tmp_path):
    source, place = "stacked:package:fashion-mnist-10k", tmp_path / "stacked"
    options = (source, place, "--samples", "20", "--workers", "1")
    code, output, error = ganrun("prepare", *options, "--quiet")
    assert (code, output, error) == (0, f"{place}\n", "")
    _, output, error = ganrun("prepare", *options)
    assert output == f"{place}\n"
    assert "20 images" in error


def options_of(*arguments):
    return command.parse(command.parser("verb", None, ""), list(arguments))


@pytest.mark.parametrize(("raised", "code"), [(UserError("wrong"), 2), (RunError("failed"), 1)])
@pytest.mark.parametrize("arguments", [(), ("-q",), ("-v",)])
def test_an_error_is_always_said(raised, code, arguments, capsys):
    def body(options: argparse.Namespace) -> int:
        print("a note", file=sys.stderr)
        raise raised

    assert command.run(options_of(*arguments), body) == code
    error = capsys.readouterr().err
    assert error.endswith(f"ganrun: {raised}\n")
    assert ("a note" in error) == ("-q" not in arguments)
    assert ("Traceback" in error) == ("-v" in arguments)


def test_a_verbose_command_names_versions_and_files():
    _, _, error = ganrun("train", "quickstart", "--dry-run", "--verbose")
    assert " ganrun.cli.command: ganrun 0." in error or " ganrun: ganrun 0." in error
    assert "ganrun.config.config_file: config: " in error
    assert ganrun("train", "quickstart", "--dry-run")[2] == ""


@pytest.mark.parametrize(("variables", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)])
def test_colours_are_for_terminals_and_not_under_no_color(variables, coloured):
    reader, terminal = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", **variables}
    code = [sys.executable, "-m", "ganrun", "train", "no-such"]
    done = subprocess.run(code, stdout=terminal, stderr=terminal, env=environment, timeout=WAIT, cwd=ROOT)
    os.close(terminal)
    shown = os.read(reader, 4096)
    os.close(reader)
    assert done.returncode == 2
    assert (b"\x1b[" in shown) == coloured
    assert b"no-such: no such config file" in shown


def completed(line, place=ROOT):
    """What the shell is offered for a line, by the protocol of argcomplete's shell code."""
    variables = {"COMP_LINE": line, "COMP_POINT": str(len(line)), "COMP_TYPE": "9", "_ARGCOMPLETE": "1"}
    variables |= {
        "_ARGCOMPLETE_IFS": "\n",
        "_ARGCOMPLETE_SUPPRESS_SPACE": "1",
        "_ARGCOMPLETE_STDOUT_FILENAME": "/dev/stdout",
    }
    environment = {**os.environ, **variables, "PYTHONPATH": str(ROOT)}
    code = [sys.executable, "-m", "ganrun"]
    done = subprocess.run(code, env=environment, capture_output=True, text=True, timeout=WAIT, cwd=place)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("ganrun t", ["train", "tune"]),
        ("ganrun train quick", ["quickstart"]),
        ("ganrun train quickstart train.tick", ["train.tick_images="]),
        ("ganrun train quickstart --dr", ["--dry-run"]),
        ("ganrun runs sh", ["show"]),
        ("ganrun prepare --ver", ["--verify", "--verbose"]),
        ("ganrun configs dcgan_6", ["dcgan_64"]),
    ],
)
def test_a_shell_completes(line, offered):
    assert sorted(completed(line)) == sorted(offered)


def test_configs_complete_to_files_too(tmp_path):
    (tmp_path / "quicker.yaml").touch()
    (tmp_path / "quicker.txt").touch()
    assert completed("ganrun tune quick", tmp_path) == ["quickstart", "quicker.yaml"]


def test_keys_are_those_of_a_config():
    values = load_config("pbt_quickstart").model_dump()
    keys = set(all_keys())
    assert {
        "run.name",
        "optimizer.generator.learning_rate",
        "optimizer.generator.learning_rate.begin",
        "tune.population",
        "data.fields",
        "objective.loss",
    } <= keys
    for section, below in values.items():
        assert any(key.partition(".")[0] == section for key in keys)
        if isinstance(below, dict) and section != "own":
            assert {f"{section}.{name}" for name in below} <= keys | {key.rpartition(".")[0] for key in keys}
