"""The records of a search: its lines, what it was begun with, its pictures; and what it pushes."""

import io
import json

import pytest
from PIL import Image

from ganrun.config.run_spec import resolve
from ganrun.errors import RunError, UserError
from ganrun.run_folder.cleanup import delete_run
from ganrun.run_folder.report import describe_run
from ganrun.run_folder.status import read_status
from ganrun.storage import Folder
from ganrun.telemetry.messages import Progress, SearchEnded, TrialExploit, TrialReport, WorkersStarted
from ganrun.telemetry.run_report import to_json
from ganrun.telemetry.sidecar.runs import parse
from ganrun.telemetry.state import RunHistory, RunState, SearchState
from ganrun.tuning.plots import draw_hyperparameters, draw_samples, draw_scores
from ganrun.tuning.records import append_records, point_best, read_population, settle, terminate_last_line
from ganrun.tuning.trial_config import trial_config
from tests.tuning.making import exploited, search


def records_of(population):
    reports = [
        TrialReport(
            trial, interval, 60 * interval, 10.0 * number + interval, f"{60 * interval:012d}-0001" if interval else None
        )
        for interval in (0, 1, 2)
        for number, trial in enumerate(population.trials)
    ]
    before = population.first["03"]
    exploit = TrialExploit(1, "03", "00", 1, 60, "x", before, {key: value / 2 for key, value in before.items()})
    return [*reports[:8], exploit, *reports[8:]]


@pytest.fixture
def begun(values, tmp_path):
    """A search and its folder, with two intervals behind it."""
    config, storage = search(values), Folder(tmp_path / "runs" / "search")
    storage.write("config.yaml", config.to_yaml().encode())
    append_records(storage, records_of(read_population(config, storage)))
    return config, storage


def test_the_population_is_what_the_lines_say_but_for_one_that_was_cut_off(begun):
    config, storage = begun
    storage.append("search.jsonl", b'{"kind": "report", "tri')
    terminate_last_line(storage)
    append_records(storage, [SearchEnded()])
    assert storage.read("search.jsonl").splitlines()[-1].endswith(b'"kind": "end", "best": null, "score": null}')
    population = read_population(config, storage)
    assert population.decided == 1
    assert population.reported("03") == 2
    assert population.values["03"] == population.exploits[0].after
    assert population.best() == TrialReport("00", 1, 60, 1.0, f"{60:012d}-0001")


def test_a_line_of_another_search_is_named(begun):
    config, storage = begun
    append_records(storage, [TrialReport("../77", 1, 60, None, None)])
    with pytest.raises(RunError, match=r"search\.jsonl: line 14 is not of this search"):
        read_population(config, storage)


def test_best_json_points_into_the_trial(begun):
    config, storage = begun
    point_best(storage, read_population(config, storage).best())
    pointer = json.loads(storage.read("best.json"))
    assert pointer == {"checkpoint": f"trials/00/checkpoints/{60:012d}-0001", "images": 60, "attempt": 1, "score": 1.0}


def test_what_a_search_was_begun_with_cannot_change_but_its_length_and_machines_can(begun, values):
    config, storage = begun
    assert settle(config, storage) == resolve(config)
    longer = search(values, total_images=300)
    assert settle(longer.model_copy(update={"cluster": config.cluster.model_copy(update={"workers": 3})}), storage)
    with pytest.raises(UserError, match=r"tune\.quantile was 0\.25, is 0\.5"):
        settle(search(values, quantile=0.5), storage)
    with pytest.raises(UserError, match=r"run\.seed was 0, is 1"):
        settle(config.model_copy(update={"run": config.run.model_copy(update={"seed": 1})}), storage)


def test_slots_stay_those_that_the_search_was_begun_with(values, tmp_path):
    values["data"]["slots"] = None
    config, storage = search(values), Folder(tmp_path / "slots")
    settled = settle(config, storage)
    assert settled.data.slots == 1
    storage.write("config.yaml", settled.to_yaml().encode())
    append_records(storage, [SearchEnded()])
    more = config.model_copy(update={"cluster": config.cluster.model_copy(update={"workers": 2})})
    assert settle(more, storage).data.slots == 1


def test_a_run_is_no_search(values, tmp_path):
    storage = Folder(tmp_path / "run")
    storage.write("checkpoints/x/manifest.json", b"{}")
    with pytest.raises(UserError, match="is a run and no search"):
        settle(search(values), storage)


def test_pictures_show_all_trials(begun):
    config, storage = begun
    population = read_population(config, storage)
    assert draw_samples(storage, population) is None
    for number, trial in enumerate(population.trials):
        picture = io.BytesIO()
        Image.new("L", (20, 20), 255 * (number == 2)).save(picture, "png")
        storage.write(f"trials/{trial}/samples/000000000060.png", picture.getvalue())
    for picture in (draw_scores(population), draw_hyperparameters(population), draw_samples(storage, population)):
        assert Image.open(io.BytesIO(picture)).size[0] > 500


def test_a_search_is_shown_with_the_images_that_all_trials_have(begun):
    _, storage = begun
    run = read_status(storage)
    assert (run.state, run.images, run.trials) == ("stopped", 120, 4)
    assert f"ganrun tune {storage.uri}/config.yaml" in describe_run(run, storage.now())


def test_a_search_is_deleted_with_its_trials(begun):
    _, storage = begun
    storage.write("trials/00/latest.json", b"{}")
    storage.write("notes.txt", b"mine")
    assert delete_run(storage) == ["notes.txt"]
    assert storage.list() == ["notes.txt"]


def test_a_sidecar_takes_the_search_and_its_trials_by_their_labels(values):
    config = search(values)
    state = SearchState(config.run, config.telemetry)
    state.observe({"00": "running", "01": "running", "02": "failed", "03": "paused"})
    pushed = parse(to_json(state.report()))
    assert (pushed.name, pushed.trial) == ("search", "")
    series = {tuple(labels.values()): value for name, labels, value in state.report().series if name == "trials"}
    assert series == {("pending",): 0, ("running",): 2, ("paused",): 1, ("finished",): 0, ("failed",): 1}

    settings = trial_config(config, "02", {})
    trial = RunState(settings.run, settings.train, settings.telemetry, RunHistory(), "search")
    trial.handle(WorkersStarted(0, 1))
    trial.handle(Progress(120))
    trial.handle(exploited(1, 60))
    trial.handle(Progress(180))
    pushed = parse(to_json(trial.report()))
    assert (pushed.name, pushed.trial) == ("search", "02")
    series = {name: value for name, _, value in trial.report().series}
    assert (series["exploits_total"], series["images"], series["images_total"]) == (1, 180, 240)
