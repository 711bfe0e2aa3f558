"""What a search makes of what Ray Tune hands over, without its processes."""

from types import SimpleNamespace

import pytest

from ganrun.errors import UserError
from ganrun.storage import Folder
from ganrun.telemetry.messages import (
    Exploit,
    Failed,
    Finished,
    ScoreTaken,
    SearchEnded,
    Stopped,
    TrialReport,
    WorkersStarted,
)
from ganrun.tuning import tuner
from ganrun.tuning.records import read_population
from ganrun.tuning.scheduler import Scheduler
from ganrun.tuning.searcher import SearchEnd, TrialQueue
from ganrun.tuning.summary import describe_record
from tests.tuning.making import exploited, search, written


class Quiet:
    def __init__(self):
        self.said = []

    def handle(self, trial, event):
        pass

    def record(self, record):
        pass

    def observe(self, states):
        pass

    def write_line(self, text):
        self.said.append(text)


class Told(dict):
    """By trial, what its workers were told."""

    def __call__(self, name, stop, commands):
        self.setdefault(name, []).extend(["stop"] * stop + commands)

    def kinds(self, name):
        return [command if command == "stop" else command.kind for command in self.get(name, [])]


class Made:
    """A scheduler with trials as Ray Tune would have made them."""

    def __init__(self, config, monkeypatch, room=2):
        self.config, self.storage = config, Folder(config.run.uri)
        self.told, self.watch = Told(), Quiet()
        self.scheduler = Scheduler(config, self.storage, read_population(config, self.storage), self.watch, self.told)
        self.population, self.queue, self.end = (
            self.scheduler.population,
            TrialQueue(self.scheduler),
            SearchEnd(self.scheduler),
        )
        monkeypatch.setattr("ray.cluster_resources", lambda: {"CPU": float(room)})

    def start(self, *names):
        """Has Ray Tune ask for trials, and start them."""
        for name in names:
            assert self.queue.suggest("id") == {"trial": name} | self.population.values[name]
            self.scheduler.on_trial_add(None, SimpleNamespace(config={"trial": name}, status="RUNNING"))

    def write_line(self, name, *events):
        """A report of a trial; what Ray Tune is told, and does."""
        trial = self.scheduler.trials[name].tune_trial
        decision = self.scheduler.on_trial_result(None, trial, {"events": list(events)})
        trial.status = {"CONTINUE": "RUNNING", "PAUSE": "PAUSED", "STOP": "TERMINATED"}[decision]
        return decision

    def reported(self, name, images, value, attempt=1):
        score = ScoreTaken(images, "FID", value, {}, "e", 20)
        checkpoint = written(images, f"{images:012d}-{attempt:04d}")
        assert self.write_line(name, score, checkpoint) == "CONTINUE"

    def decided(self):
        """Both have reported the first interval, and 01 is the worse."""
        self.reported("00", 60, 1.0)
        self.reported("01", 60, 2.0)

    def again(self, monkeypatch):
        """The search as the same command makes it once more."""
        return Made(self.config, monkeypatch)


def failed(text="the run diverged", wrong_input=False):
    return Failed(text, wrong_input)


def ended(kind, images=240):
    return {"finished": Finished, "stopped": Stopped}[kind](images)


def started(images=0, exploit=0):
    return WorkersStarted(images, 1, exploit=exploit)


@pytest.fixture
def config(values):
    return search(values, population=2)


@pytest.fixture
def running(config, monkeypatch):
    """A search of two trials that run."""
    made = Made(config, monkeypatch)
    made.start("00", "01")
    return made


def test_the_worse_is_told_and_reports_nothing_until_it_has_taken_over(running):
    running.decided()
    assert running.told.kinds("00") == ["release"] * len(running.told["00"])
    assert running.told.kinds("01").count("exploit") == 1
    (command,) = [each for each in running.told["01"] if isinstance(each, Exploit)]
    assert command.donor.endswith("/search/trials/00")
    assert (command.number, command.checkpoint) == (1, f"{60:012d}-0001")
    assert command.values == running.population.values["01"]

    running.reported("01", 120, 0.1)  # Of what it is about to give up.
    assert running.population.reported("01") == 1
    running.write_line("01", exploited(1, 60))
    running.reported("01", 120, 0.5, attempt=2)
    assert running.population.reported("01") == 2


def test_who_died_with_an_order_is_told_again(running):
    running.decided()
    running.write_line("01", exploited(1, 60))
    running.told.clear()
    running.write_line("01", started(60, exploit=1))
    assert "exploit" not in running.told.kinds("01")
    running.write_line("01", started(60, exploit=0))
    assert running.told.kinds("01") == ["exploit"]
    running.reported("01", 120, 0.1)
    assert running.population.reported("01") == 1


def test_who_was_done_before_it_was_told_starts_again(running):
    running.decided()
    assert running.write_line("01", ended("finished")) == "PAUSE"
    assert running.scheduler.states()["01"] == "paused"
    assert running.scheduler.choose_trial_to_run(None) is running.scheduler.trials["01"].tune_trial
    assert running.write_line("00", ended("finished")) == "STOP"
    assert running.scheduler.states() == {"00": "finished", "01": "paused"}
    assert not running.end.stop_all()


def test_who_failed_takes_over_at_the_next_comparison(running):
    assert running.write_line("01", started(), failed()) == "PAUSE"
    assert running.scheduler.states()["01"] == "failed"
    assert running.scheduler.choose_trial_to_run(None) is None
    running.reported("00", 60, 1.0)
    assert running.scheduler.states()["01"] == "paused"
    assert running.scheduler.choose_trial_to_run(None) is running.scheduler.trials["01"].tune_trial
    assert running.population.last_exploit("01").checkpoint == f"{60:012d}-0001"
    assert running.watch.said == [
        "trial 01 failed; after the next comparison it continues from a copy of another: the run diverged"
    ]


def test_whose_process_died_is_started_again_by_ray_tune_and_has_failed_when_that_gives_up(running):
    trial = running.scheduler.trials["01"].tune_trial
    trial.should_recover = lambda: True
    running.scheduler.on_trial_error(None, trial)
    assert running.scheduler.states()["01"] == "running"
    trial.should_recover = lambda: False
    running.scheduler.on_trial_error(None, trial)
    assert running.scheduler.states()["01"] == "failed"


def test_who_failed_at_the_end_has_failed_and_the_others_end_the_search(running):
    running.population.decided = 3
    running.write_line("01", failed())
    assert running.scheduler.states()["01"] == "failed"
    assert not running.end.stop_all()
    running.write_line("00", ended("finished"))
    assert running.end.stop_all()


def test_wrong_input_ends_the_search_and_the_others_save_and_leave(running):
    assert running.write_line("00", failed("run.imports: no", wrong_input=True)) == "PAUSE"
    assert isinstance(running.scheduler.fault, UserError)
    assert str(running.scheduler.fault) == "trial 00: run.imports: no"
    assert running.told.kinds("01") == ["stop"]
    assert not running.end.stop_all()
    assert running.write_line("01", ended("stopped", 60)) == "PAUSE"
    assert running.end.stop_all()


def test_who_is_to_stop_leaves_and_nobody_starts(running):
    running.scheduler.stop()
    assert (running.told.kinds("00"), running.told.kinds("01")) == (["stop"], ["stop"])
    assert running.write_line("00", ended("stopped", 60)) == "PAUSE"
    assert running.scheduler.choose_trial_to_run(None) is None
    assert not running.end.stop_all()
    running.write_line("01", ended("stopped", 60))
    assert running.end.stop_all()


def test_trials_that_do_not_fit_take_turns_those_behind_first(config, monkeypatch):
    made = Made(config, monkeypatch, room=1)
    made.start("00")
    assert made.queue.suggest("id") is None
    assert made.scheduler.states() == {"00": "running", "01": "pending"}
    assert len(made.watch.said) == 1
    assert "1 of 2 trials fit the cluster at once (a trial needs 1 CPUs, 0 GPUs): they take turns" in made.watch.said[0]
    made.reported("00", 60, 1.0)
    assert "stop" in made.told.kinds("00")
    made.write_line("00", ended("stopped", 72))
    assert made.scheduler.choose_trial_to_run(None) is None
    made.start("01")
    made.reported("01", 60, 2.0)
    assert "stop" not in made.told.kinds("01")  # It is to take over first, and is not ahead.
    made.write_line("01", exploited(1, 60))
    made.reported("01", 120, 2.0)
    assert "stop" in made.told.kinds("01")
    made.write_line("01", ended("stopped", 132))
    assert made.scheduler.choose_trial_to_run(None) is made.scheduler.trials["00"].tune_trial


def test_a_search_that_goes_on_gives_an_order_again_that_a_trial_may_not_have_behind_it(running, monkeypatch):
    running.decided()
    again = running.again(monkeypatch)
    assert again.population.last_exploit("01") == running.population.last_exploit("01")
    again.start("00", "01")
    again.write_line("01", started(60, exploit=0))
    assert again.told.kinds("01") == ["exploit"]
    once_more = running.again(monkeypatch)
    once_more.start("00", "01")
    once_more.write_line("01", started(60, exploit=1))
    assert "exploit" not in once_more.told.kinds("01")


def test_a_search_that_goes_on_leaves_those_alone_that_are_done(running, monkeypatch):
    running.decided()
    for images in (120, 180, 240):
        running.reported("00", images, 1.0)
    again = running.again(monkeypatch)
    assert again.scheduler.states() == {"00": "finished", "01": "pending"}
    again.start("01")
    assert again.queue.suggest("id") is None


SCORE = {"name": "FID-12", "value": 7.25, "samples": 12, "metrics": {"kid": 0.5}}
BEST = TrialReport("01", 2, 120, 3.0, "000000000120-0001")


def test_the_best_checkpoint_is_scored_once_more_by_all_samples(values, monkeypatch):
    config, asked = search(values, samples=6), []
    monkeypatch.setattr(tuner, "begin_score", lambda *about: asked.append(about))
    monkeypatch.setattr("ray.wait", lambda tasks, timeout: (tasks, []))
    monkeypatch.setattr("ray.get", lambda task: (SCORE, None))
    assert tuner._last_score(config, BEST, Quiet(), lambda: False) == SCORE
    (uri, evaluate, cluster, checkpoint) = asked.pop()
    assert (uri, checkpoint) == (f"{config.run.uri}/trials/01", BEST.checkpoint)
    assert (evaluate.samples, cluster) == (12, config.cluster)
    told = describe_record(SearchEnded("01", SCORE))
    assert told == "the best checkpoint, of trial 01: FID-12 7.25, kid 0.5"
    assert tuner._last_score(search(values), BEST, Quiet(), lambda: False) is None
    assert asked == []
    assert describe_record(SearchEnded("01")) == ""


def test_a_search_ends_without_that_score_too(values, monkeypatch):
    def fail(task):
        raise RuntimeError

    config, watch, cancelled = search(values, samples=6), Quiet(), []
    monkeypatch.setattr(tuner, "begin_score", lambda *about: "task")
    monkeypatch.setattr("ray.wait", lambda tasks, timeout: (tasks, []))
    monkeypatch.setattr("ray.get", fail)
    assert tuner._last_score(config, BEST, watch, lambda: False) is None
    assert watch.said == ["the best checkpoint has no score of evaluate.samples: RuntimeError"]
    monkeypatch.setattr("ray.wait", lambda tasks, timeout: ([], tasks))
    monkeypatch.setattr("ray.cancel", lambda task, force: cancelled.append(task))
    assert tuner._last_score(config, BEST, watch, lambda: True) is None
    assert cancelled == ["task"]
