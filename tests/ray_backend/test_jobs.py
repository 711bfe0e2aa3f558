"""What a job is sent is small."""

import subprocess
from pathlib import Path

PROJECT = Path(__file__).parents[2]


def test_what_a_job_is_sent_is_small():
    """The rules are those of .gitignore; what they leave is the program, and what it reads."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-from=.rayignore", "--exclude-standard"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\n")
    ignored = subprocess.run(
        ["git", "ls-files", "--cached", "--ignored", "--exclude-from=.rayignore"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\n")
    sent = [PROJECT / name for name in set(listed) - set(ignored) if name]
    assert {path.relative_to(PROJECT).parts[0] for path in sent if len(path.relative_to(PROJECT).parts) > 1} == {
        *("ganrun", "configs")
    }
    assert sum(path.stat().st_size for path in sent) < 30 * 2**20
