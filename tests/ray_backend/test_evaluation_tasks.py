"""Scores taken by tasks of their own: the same numbers, and whatever befalls a task, the run goes on."""

import contextlib
import json
import os
import re
import subprocess
import sys
import time

import psutil
import pytest
import torch

from ganrun.errors import RunError
from ganrun.ray_backend import evaluation_tasks as scores
from ganrun.run_folder.curve import read_curve, read_events
from ganrun.storage import Folder
from ganrun.telemetry.messages import LastScoresAwaited, Note, Progress, ScoreFound
from ganrun.telemetry.records import ScoreWanted
from ganrun.worker.worker import run_worker
from tests.commands import LOCAL_RAY, Train
from tests.conftest import config_of, write_yaml
from tests.ranks import StopAt, checkpoints_awaited, run_folder, run_ranks
from tests.tuning.making import MUTATIONS
from tests.waiting import WAIT

EVALUATED = {
    "train__total_images": 180,
    "evaluate__every_images": 60,
    "evaluate__samples": 20,
    "evaluate__metrics": ["kid"],
}


class Answering(StopAt):
    """A driver that has scores taken, in its own time; those at these images fail."""

    def __init__(self, config, failing=(), late=0):
        super().__init__()
        self.config, self.failing, self.late, self.wanted = config, failing, late, []

    def send(self, event):
        super().send(event)
        if isinstance(event, ScoreWanted):
            self.wanted.append(event)
        if isinstance(event, LastScoresAwaited):
            self.late = 0

    def commands(self):
        answered = self.wanted[: max(0, len(self.wanted) - self.late)]
        del self.wanted[: len(answered)]
        return [ScoreFound(each.images, each.checkpoint, *self.answer(each)) for each in answered]

    def answer(self, wanted):
        if wanted.images in self.failing:
            return None, "Out of memory"
        score, picture = scores._score(self.config.run.uri, self.config.evaluate.metrics, 1, wanted.checkpoint)
        return score, "", picture


def scored(config, at):
    """The scores in the metrics by images, without the time."""
    curve = read_curve(Folder(run_folder(config)))[0]
    return {
        channel["images"]: {name: channel[name] for name in ("frechet_distance", "kid")}
        for channel in curve
        if "frechet_distance" in channel and channel["images"] in at
    }


def kinds(config):
    return [event.kind for event in read_events(Folder(run_folder(config)))[0]]


def train_with(config, channel):
    with checkpoints_awaited():  # Of one that is not written nobody takes a score.
        run_worker(config, 0, 1, torch.device("cpu"), channel)


@pytest.mark.parametrize("late", [0, 2])
def test_a_task_finds_what_the_workers_would_and_best_json_follows_it(values, tmp_path, late):
    inline = config_of(values, run__name="inline", checkpoint__keep=1, **EVALUATED)
    run_ranks(inline, 1, tmp_path / "meeting")
    config = config_of(values, evaluate__where="task", checkpoint__keep=1, **EVALUATED)
    train_with(config, Answering(config, late=late))
    times = [60, 120, 180]
    found = scored(config, times)
    assert list(found) == times
    assert found == scored(inline, times)
    best = json.loads((run_folder(config) / "best.json").read_text())
    expected = min(found, key=lambda images: found[images]["frechet_distance"])
    assert (best["images"], best["score"]) == (expected, found[expected]["frechet_distance"])
    assert (run_folder(config) / "checkpoints" / best["checkpoint"] / "manifest.json").exists()


def test_a_task_scores_by_as_many_samples_as_it_is_asked_for(values):
    config = config_of(values, train__total_images=60, evaluate__samples=20)
    train_with(config, StopAt())
    (checkpoint,) = Folder(run_folder(config)).list("checkpoints")
    score, picture = scores._score(config.run.uri, (), 1, checkpoint, 6)
    assert (score["name"], picture) == ("Fréchet distance (efficientnet-lite0, n=6)", None)


class Crashing(Answering):
    """One that says of the first checkpoint that it is the best there can be, and dies later."""

    def send(self, event):
        super().send(event)
        if event == Progress(108):
            raise ConnectionError("the driver is gone")

    def answer(self, wanted):
        score, why, picture = super().answer(wanted)
        return (score | {"value": -1.0} if wanted.images == 60 else score), why, picture


def test_a_best_score_that_came_after_its_checkpoint_is_still_the_best_after_a_crash(values):
    """The checkpoint that the run goes on from does not know of it."""
    config = config_of(values, evaluate__where="task", **EVALUATED)
    with pytest.raises(ConnectionError):
        train_with(config, Crashing(config))
    train_with(config, Answering(config))
    best = json.loads((run_folder(config) / "best.json").read_text())
    assert (best["images"], best["score"]) == (60, -1.0)
    assert list(scored(config, range(999))) == [60, 120, 180]


def test_a_task_that_fails_costs_its_score_alone(values):
    config = config_of(values, evaluate__where="task", **EVALUATED)
    channel = Answering(config, failing=(120,))
    train_with(config, channel)
    assert list(scored(config, range(999))) == [60, 180]
    assert kinds(config).count("score_failed") == 1
    assert Note("no score at 120 images: Out of memory") in channel.events
    assert kinds(config)[-1] == "finish"


def test_who_is_asked_to_stop_does_not_wait_for_scores(values):
    config = config_of(values, evaluate__where="task", **EVALUATED)
    channel = Answering(config, late=9)
    channel.images = 120
    train_with(config, channel)
    assert not scored(config, range(999))
    assert kinds(config)[-1] == "stop"


class Failing(Answering):
    """One whose workers have an error; it would answer if they waited."""

    def send(self, event):
        super().send(event)
        if event == Progress(132):
            raise self.error


@pytest.mark.parametrize("error", [ConnectionError("the driver is gone"), RunError("no disk")], ids=["restart", "end"])
def test_workers_that_fail_do_not_wait_for_scores(values, error):
    config = config_of(values, evaluate__where="task", **EVALUATED)
    channel = Failing(config, late=9)
    channel.error = error
    with pytest.raises(type(error), match=str(error)):
        train_with(config, channel)
    assert len(channel.wanted) == 2
    assert LastScoresAwaited() not in channel.events
    assert not scored(config, range(999))
    latest = json.loads((run_folder(config) / "latest.json").read_text())
    assert latest["images"] == 120  # The pending checkpoint is written.
    assert kinds(config)[-1] == ("failed" if isinstance(error, RunError) else "score_wanted")


CANCELLED = """
import json, sys, time
import ray
from ganrun.config.schema import Config
from ganrun.ray_backend import evaluation_tasks
from ganrun.telemetry.messages import Restart
from ganrun.telemetry.records import ScoreWanted

def endless(*_):
    time.sleep(10_000)

evaluation_tasks._score = endless
ray.init("local", num_cpus=1, include_dashboard=False, log_to_driver=False, object_store_memory=10**8)
config = Config.model_validate(json.loads(sys.argv[1]))
tasks = evaluation_tasks.EvaluationTasks(config.run, config.evaluate, config.cluster, search=False)
def wait_for(cpus):
    while ray.available_resources().get("CPU", 0) != cpus:
        time.sleep(0.1)

tasks.handle(ScoreWanted(images=60, checkpoint="a"))
while not tasks._running:
    assert tasks.poll() == []
wait_for(0)
tasks.handle(Restart("failure", 1, "worker 0 died"))
wait_for(1)
print(tasks.poll())
"""


def test_the_task_of_workers_that_are_gone_is_cancelled(values):
    argument = json.dumps(config_of(values, evaluate__where="task", **EVALUATED).model_dump(mode="json"))
    environment = os.environ | LOCAL_RAY
    done = subprocess.run(
        [sys.executable, "-c", CANCELLED, argument], env=environment, capture_output=True, text=True, timeout=WAIT
    )
    assert (done.returncode, done.stdout.splitlines()[-1:]) == (0, ["[]"]), done.stderr


@pytest.mark.drill
def test_a_task_that_is_killed_does_not_hurt_the_run(values, tmp_path, ray_here):
    config = config_of(
        values, evaluate__where="task", **EVALUATED | {"train__total_images": 6_000, "evaluate__every_images": 2_000}
    )
    run = Train(write_yaml(tmp_path / "small.yaml", config.model_dump(mode="json")), address=ray_here[0])
    killed = False
    while run.process.poll() is None:
        for process in psutil.Process(ray_here[1]).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if not killed and "ray::_score" in " ".join(process.cmdline()):
                    process.kill()
                    killed = True
        time.sleep(0.2)
    code, _, error = run.wait()
    assert code == 0, error
    assert killed
    assert re.search(r"no score at [\d,]+ images: .*died", error), error
    assert 6_000 in scored(config, range(9_999))


ASKED = """
import json, sys, time
import ray
from ganrun.config.schema import Config
from ganrun.ray_backend.evaluation_tasks import EvaluationTasks
from ganrun.telemetry.messages import LastScoresAwaited
from ganrun.telemetry.records import ScoreWanted

ray.init(logging_level=50, log_to_driver=False)
found = []
for values in json.loads(sys.argv[1]):
    config, answers = Config.model_validate(values), []
    asked = EvaluationTasks(config.run, config.evaluate, config.cluster, search=config.tune is not None)
    for images in (60, 120):
        asked.handle(ScoreWanted(images=images, checkpoint=f"{images:012d}-0001"))
    asked.handle(LastScoresAwaited())
    while len(answers) < 2:
        answers += asked.poll()
        time.sleep(0.1)
    found.append([(each.images, each.why) for each in answers])
print(json.dumps(found))
"""


def test_a_run_has_its_newest_score_taken_and_a_search_all(values, ray_here):
    search = {"tune__population": 2, "tune__perturb_every_images": 60, "tune__mutations": MUTATIONS}
    configs = [config_of(values, evaluate__where="task", **EVALUATED, **more) for more in ({}, search)]
    argument = json.dumps([config.model_dump(mode="json") for config in configs])
    environment = os.environ | LOCAL_RAY | {"RAY_ADDRESS": ray_here[0]}
    done = subprocess.run(
        [sys.executable, "-c", ASKED, argument], env=environment, capture_output=True, text=True, timeout=WAIT
    )
    assert done.returncode == 0, done.stderr
    of_run, of_search = json.loads(done.stdout.splitlines()[-1])
    assert [images for images, _ in of_run] == [images for images, _ in of_search] == [60, 120]
    assert of_run[0][1] == "a newer one came before the cluster had anything idle"
    for _, why in [of_run[1], *of_search]:
        assert "neither a run with a checkpoint nor a checkpoint" in why  # A task has looked for it.
