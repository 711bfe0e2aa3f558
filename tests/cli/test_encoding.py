"""Output of a command on a terminal that knows ASCII alone."""

import os
import subprocess
import sys

import pytest

from tests.waiting import WAIT

PRINTS = r"""
import sys
from ganrun.cli import command
from ganrun.errors import RunError, UserError

options = command.parse(command.parser("verb", None, ""), [])

def body(options):
    print("Fr\xe9chet", "\udcff")
    print("Fr\xe9chet", file=sys.stderr)
    raise {raised}

sys.exit(command.run(options, body))
"""


@pytest.mark.parametrize(("raised", "code"), [("UserError('\xe9')", 2), ("RunError('\xe9')", 1), ("SystemExit(0)", 0)])
@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_a_character_that_cannot_be_encoded_is_escaped(raised, code, encoding):
    done = subprocess.run(
        [sys.executable, "-c", PRINTS.format(raised=raised)],
        env=os.environ | {"PYTHONIOENCODING": encoding},
        capture_output=True,
        timeout=WAIT,
    )
    assert done.returncode == code, done.stderr
    assert b"Traceback" not in done.stderr
    assert done.stdout.decode(encoding).startswith(r"Fr\xe9chet" if encoding == "ascii" else "Fr\xe9chet")
    assert r"\udcff" in done.stdout.decode(encoding)


@pytest.mark.parametrize(
    "verb",
    [
        *("train", "tune", "prepare", "evaluate", "sample", "project", "paint"),
        *("export", "runs", "sidecar", "configs", "doctor", "bench"),
    ],
)
def test_help_can_be_printed_in_ascii(verb):
    done = subprocess.run(
        [sys.executable, "-m", "ganrun", verb, "--help"],
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
        capture_output=True,
        timeout=WAIT,
    )
    assert done.returncode == 0, done.stderr
