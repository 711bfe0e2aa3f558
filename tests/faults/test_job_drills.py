"""The life of a job on the local cluster, by the words of README and docs/cluster.md: `make drill`."""

import json
import os
import re
import shlex
import subprocess
import sys
import time

import pytest

from ganrun.storage import open_storage
from ganrun.tuning.records import read_population
from tests.faults.cluster import ROOT, WAIT
from tests.keys import upload_with_keys
from tests.tuning.making import search

pytestmark = pytest.mark.drill
RAY = [sys.executable, "-m", "ray.scripts.scripts"]


class Jobs:
    """`ray job ...` from a shell that `python -m cluster.local env` let in."""

    def __init__(self, cluster):
        self.environment = os.environ | cluster.credentials() | {"RAY_ADDRESS": cluster.dashboard()}

    def __call__(self, *arguments):
        """Exit code and all that it says."""
        done = subprocess.run(
            [*RAY, "job", *arguments],
            env=self.environment,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=WAIT,
        )
        return done.returncode, done.stdout

    def submit(self, name, yaml, *overrides, verb="train", **variables):
        variables = json.dumps({"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": "120"} | variables})
        options = ["--no-wait", f"--submission-id={name}", "--working-dir=.", f"--runtime-env-json={variables}"]
        code, said = self("submit", *options, "--", "python", "-m", f"ganrun.{verb}", str(yaml), *overrides)
        assert code == 0, said

    def wait_for(self, name, pattern):
        """Until its logs have this; the logs."""
        deadline = time.monotonic() + WAIT
        while not re.search(pattern, said := self("logs", name)[1]):
            assert time.monotonic() < deadline, said
            assert "Traceback" not in said, said
        return said


@pytest.fixture
def jobs(cluster):
    return Jobs(cluster)


def test_a_job_is_submitted_stopped_and_submitted_again(drill, undisturbed, jobs):
    """Whoever stopped the job submits it again; it succeeds, with the undisturbed run's weights."""
    run = drill()
    jobs.submit("first", run.yaml)
    jobs.wait_for("first", r"[\d,]+ of 3,600 images")
    run.fault()
    code, said = jobs("stop", "first")
    assert code == 0, said
    assert "'first' was stopped" in jobs("status", "first")[1]
    stopped = json.loads(run.folder.storage.read("latest.json"))["images"]
    said = jobs("logs", "first")[1]
    assert f"stopped: a checkpoint at {stopped:,} images is saved; run the same command to go on" in said
    jobs.submit("second", run.yaml)
    said += jobs.wait_for("second", r"finished: 3,600 images shown")
    assert f"resuming with 2 workers from {stopped:,} images" in said
    run.wait(lambda: "'second' succeeded" in jobs("status", "second")[1])
    for secret in (jobs.environment["RAY_AUTH_TOKEN"], jobs.environment["AWS_SECRET_ACCESS_KEY"]):
        assert secret not in said
    row = run.verdict("job stopped and submitted again", "the user", undisturbed(run.config))
    assert row.images == 0


def test_the_readmes_job_trains(jobs, data_folder):
    """Nobody restarts anything: the README's words, with a bucket that there is, and overrides for what this is not."""
    (words,) = re.findall(
        r"^ray job submit (.*?configs/dcgan_celeba.yaml)$", (ROOT / "README.md").read_text(), re.M | re.S
    )
    upload_with_keys(data_folder, "s3://ganrun/celeba64")
    small = ["cluster.gpus_per_worker=0", "cluster.workers=2", "cluster.cpus_per_worker=1", "evaluate.every_images=0"]
    small += [
        "data.image_size=16",
        "data.channels=1",
        "model.width=4",
        "train.total_images=1_280",
        "train.tick_images=640",
    ]
    code, said = jobs("submit", *shlex.split(words.replace("\\\n", "").replace("my-bucket", "ganrun")), *small)
    assert code == 0, said
    assert "finished: 1,280 images shown" in said
    latest = open_storage("s3://ganrun/runs/dcgan-celeba").read("latest.json")
    assert json.loads(latest)["images"] == 1_280


def test_a_search_is_stopped_and_submitted_again(values, tmp_path, jobs):
    """Whoever stopped the job submits it again; the trials go on where they were, and take over others."""
    config = search(values, population=2, total_images=18_000, every=600, quantile=0.5)
    config = config.model_copy(update={"run": config.run.model_copy(update={"storage": "s3://ganrun/runs"})})
    (yaml := tmp_path / "search.yaml").write_text(config.to_yaml())
    folder = open_storage("s3://ganrun/runs/search")
    jobs.submit("search", yaml, verb="tune")
    jobs.wait_for("search", r"(?s)from a copy of.*from a copy of")
    code, said = jobs("stop", "search")
    assert code == 0, said
    assert "stopped: each trial has saved a checkpoint" in jobs("logs", "search")[1]
    assert not any(open_storage(f"{folder.uri}/trials/{name}").list().count("lease.json") for name in ("00", "01"))
    reported = read_population(config, folder).reported("00")
    jobs.submit("again", yaml, f"train.total_images={600 * (reported + 2)}", verb="tune")
    said = jobs.wait_for("again", r"search folder:")
    assert re.search(r"[1-9][\d,]* images  trial 00 starts with 1 worker", said)
    assert len(read_population(config, folder).exploits) >= 3


def test_who_has_another_token_submits_nothing(jobs):
    """Nobody restarts anything: what is refused did not begin."""
    jobs.environment |= {"RAY_AUTH_TOKEN": "some-other-token-0123456789abcdef"}
    code, said = jobs("submit", "--", "true")
    assert code != 0
    assert "401" in said or "403" in said or "nauthenticated" in said or "nvalid" in said, said


def test_the_sidecar_of_a_job_stays(drill, jobs, cluster):
    """Nobody restarts anything: the sidecar that a job started is not ended with it, and still shows the run."""
    run = drill(train__total_images=600)
    jobs.submit("watched", run.yaml, GANRUN_SIDECAR="")
    jobs.wait_for("watched", r"finished: 600 images shown")
    run.wait(lambda: "'watched' succeeded" in jobs("status", "watched")[1])
    run.assert_nothing_left()
    ask = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:9108/metrics', timeout=30).read().decode())"
    shown = cluster.popen("head", ["python", "-c", ask], stdout=subprocess.PIPE, text=True).communicate()[0]
    assert f'ganrun_images{{run="{run.config.run.name}"' in shown
