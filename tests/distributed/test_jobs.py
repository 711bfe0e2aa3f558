"""The life of a job: submitted, logged, stopped, submitted again; with Ray's dashboard, its tokens and its command."""

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest

from ganrun.records.search import read_population
from ganrun.storage import open_storage
from tests.commands import wait_for
from tests.conftest import config_of
from tests.search.making import search

PROJECT = Path(__file__).parents[2]
RAY = [sys.executable, "-m", "ray.scripts.scripts"]
TOKEN = "marked-token-of-the-cluster-0123456789"
WAIT = 300


@pytest.fixture
def cluster():
    """A head with dashboard and tokens; the environment that knows it."""
    folder = Path(tempfile.mkdtemp(prefix="gr-", dir="/tmp"))
    ports = []
    for _ in range(3):
        with socket.create_server(("127.0.0.1", 0)) as free:
            ports.append(free.getsockname()[1])
    environment = os.environ | {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": TOKEN,
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_TMPDIR": str(folder),
        "RAY_ADDRESS": f"http://127.0.0.1:{ports[1]}",
        "GANRUN_SIDECAR": "off",
    }
    options = [f"--port={ports[0]}", f"--dashboard-port={ports[1]}", f"--dashboard-agent-listen-port={ports[2]}"]
    options += ["--include-dashboard=true", "--num-cpus=4", "--object-store-memory=100000000", "--disable-usage-stats"]
    log = folder / "head.log"
    with log.open("w") as output:
        head = [*RAY, "start", "--head", "--block", f"--temp-dir={folder}", *options]
        environment_of_head = {name: value for name, value in environment.items() if name != "RAY_ADDRESS"}
        process = subprocess.Popen(head, env=environment_of_head, stdout=output, stderr=output)
    try:
        wait_for(log, "Ray runtime started")
        yield environment
    finally:
        processes = psutil.Process(process.pid).children(recursive=True)
        for each in [process, *processes]:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def ray_job(cluster, *arguments) -> tuple[int, str]:
    """Exit code and all that `ray job ...` says."""
    command = [*RAY, "job", *arguments]
    done = subprocess.run(
        command, env=cluster, cwd=PROJECT, stdout=-1, stderr=subprocess.STDOUT, text=True, timeout=WAIT, check=False
    )
    return done.returncode, done.stdout


def submit(cluster, name, config, *overrides, verb="train") -> None:
    """As the README says it."""
    variables = json.dumps({"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": "120"}})
    options = ["--no-wait", f"--submission-id={name}", "--working-dir=.", f"--runtime-env-json={variables}"]
    code, said = ray_job(
        cluster, "submit", *options, "--", sys.executable, "-m", f"ganrun.{verb}", str(config), *overrides
    )
    assert code == 0, said


def wait_for_log(cluster, name, pattern) -> str:
    deadline = time.monotonic() + WAIT
    while not re.search(pattern, said := ray_job(cluster, "logs", name)[1]):
        assert time.monotonic() < deadline, said
        assert "Traceback" not in said, said
    return said


@pytest.mark.drill
def test_a_job_is_submitted_stopped_and_submitted_again(values, tmp_path, cluster):
    yaml = tmp_path / "small.yaml"
    values["train"] |= {"tick_images": 60}
    config = config_of(values, train__total_images=1_000_000)
    yaml.write_text(config.to_yaml())

    stranger = cluster | {"RAY_AUTH_TOKEN": "some-other-token-0123456789abcdef"}
    code, said = ray_job(stranger, "submit", "--", "true")
    assert code != 0
    assert "401" in said or "403" in said or "nauthenticated" in said or "nvalid" in said, said

    submit(cluster, "first", yaml)
    wait_for_log(cluster, "first", r"[\d,]+ of 1,000,000 images")
    code, said = ray_job(cluster, "stop", "first")
    assert code == 0, said
    stopped = json.loads((tmp_path / "runs/small/latest.json").read_text())["images"]
    said = ray_job(cluster, "logs", "first")[1]
    assert f"stopped: a checkpoint at {stopped:,} images is saved; run the same command to go on" in said
    assert not (tmp_path / "runs/small/lease.json").exists()

    submit(cluster, "second", yaml, f"train.total_images={stopped + 60}")
    said = wait_for_log(cluster, "second", r"finished: [\d,]+ images shown")
    assert re.search(rf"going on with 1 worker from {stopped:,} images", said)
    assert TOKEN not in said


@pytest.mark.drill
def test_a_search_is_a_job_too(values, tmp_path, cluster):
    yaml = tmp_path / "search.yaml"
    values["train"]["tick_images"] = 600
    yaml.write_text(search(values, population=2, total_images=18_000, every=600, quantile=0.5).to_yaml())
    folder = tmp_path / "runs/search"

    submit(cluster, "first", yaml, verb="tune")
    wait_for_log(cluster, "first", r"(?s)takes over.*takes over")
    code, said = ray_job(cluster, "stop", "first")
    assert code == 0, said
    assert "stopped: each trial has saved a checkpoint" in ray_job(cluster, "logs", "first")[1]
    assert sorted(folder.glob("**/lease.json")) == []
    reported = read_population(search(values, population=2, every=600), open_storage(str(folder))).reported("00")

    submit(cluster, "second", yaml, f"train.total_images={600 * (reported + 2)}", verb="tune")
    said = wait_for_log(cluster, "second", r"search folder:")
    assert re.search(r"[1-9][\d,]* images  trial 00 starts with 1 worker", said)
    assert len(exploits(folder)) >= 3


def exploits(folder) -> list[dict]:
    """The exploits of a search."""
    found = map(json.loads, (folder / "search.jsonl").read_text().splitlines())
    return [line for line in found if line["kind"] == "exploit"]


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
