"""`ganrun tune` as a user runs it: real processes, real Ray."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter

import psutil
import pytest
import yaml

from ganrun.config.load import parse
from ganrun.config.schema import Config
from ganrun.config.tunable import value_of
from ganrun.preparation.table import make_table
from ganrun.run_folder.curve import read_events
from ganrun.storage import open_storage
from ganrun.telemetry.records import Exploited
from tests.cli.test_commands_s3 import put
from tests.commands import LOCAL_RAY, Command
from tests.conftest import free_port, ray_head, write_yaml
from tests.densities.runs import run_values
from tests.paired import paired, write_pairs
from tests.sentences import of_text, write_captioned
from tests.test_tables import write_table
from tests.tuning.making import MUTATIONS
from tests.waiting import WAIT

LISTED = """
import json, ray
ray.init(logging_level=50, log_to_driver=False)
groups = [each for each in ray.util.placement_group_table().values() if each["state"] != "REMOVED"]
from ray._private.state import actors
living = [each["ActorClassName"] for each in actors().values() if each["State"] != "DEAD"]
print(json.dumps([len(groups), living, ray.available_resources().get("CPU")]))
"""


OF_A_DENSITY = {"optimizer.density.learning_rate": {"log_uniform": [1e-4, 1e-2]}}


@pytest.fixture
def values_of_search(values):
    """Return the config values of a search with two trials of two workers each, and one exploit decision."""
    values["train"] |= {"total_images": 1_200, "tick_images": 300}
    values["evaluate"] = {"every_images": 600, "samples": 12}
    values["cluster"] = {"workers": 2, "cpus_per_worker": 1}
    values["tune"] = {"population": 2, "quantile": 0.5, "perturb_every_images": 600, "mutations": MUTATIONS}
    values["checkpoint"] = {"every_images": 0, "keep": 99}
    return values


def left_behind(address):
    """Return placement groups, live actors and free CPUs of a Ray."""
    environment = os.environ | LOCAL_RAY | {"RAY_ADDRESS": address}
    done = subprocess.run([sys.executable, "-c", LISTED], env=environment, capture_output=True, text=True, timeout=WAIT)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def assert_nothing_left(address, head, before=()):
    """Check that no placement group and no actor is left, except actors that existed before."""
    deadline = time.monotonic() + WAIT
    while True:
        groups, living, cpus = left_behind(address)
        # Ray Train keeps one coordinator for the whole cluster, of any number of runs.
        ours = Counter(living) - Counter(before) - Counter(["_AutoscalingCoordinatorActor"])
        if (groups, ours, cpus) == (0, Counter(), 8.0):
            break
        assert time.monotonic() < deadline, (groups, ours, cpus)
        time.sleep(1)
    assert [*processes(head, "RayTrain"), *processes(head, "ray::ImplicitFunc")] == []


def processes(head, name):
    """Return processes of the Ray with this head, by name."""
    children = psutil.Process(head).children(recursive=True)
    return [each for each in children if name in " ".join(each.cmdline())]


def lines(folder, kind):
    """Return the records of one kind in search.jsonl, in a folder or bucket."""
    found = map(json.loads, open_storage(str(folder)).read("search.jsonl").splitlines())
    return [line for line in found if line["kind"] == kind]


def files(folder, trial, checkpoint):
    return json.loads(open_storage(f"{folder}/trials/{trial}/checkpoints/{checkpoint}").read("manifest.json"))["files"]


def assert_exploits_copied(folder):
    """Check that each exploiting trial has saved the donor's tensors and continues with the new hyper-parameters."""
    exploits = lines(folder, "exploit")
    for exploit in exploits:
        trial = open_storage(f"{folder}/trials/{exploit['trial']}")
        events, _ = read_events(trial)
        (told,) = [each for each in events if isinstance(each, Exploited) and each.number == exploit["number"]]
        name = f"{told.images:012d}-{told.attempt:04d}"
        own = files(folder, exploit["trial"], name)
        theirs = files(folder, exploit["donor"], exploit["checkpoint"])
        tensors = [name for name in theirs if name.endswith(".safetensors")]
        assert len(tensors) >= 4  # A density has one player.
        assert [name for name in tensors if own[name]["sha256"] != theirs[name]["sha256"]] == []
        config = parse(trial.read(f"checkpoints/{name}/config.yaml"), "x")
        assert {key: value_of(config, key) for key in exploit["after"]} == exploit["after"]
    return exploits


def test_a_search_of_trials_of_two_workers(values_of_search, tmp_path, ray_here):
    values_of_search["tune"]["samples"] = 6
    path, before = write_yaml(tmp_path / "search.yaml", values_of_search), left_behind(ray_here[0])[1]
    code, output, error = Command("tune", path, "run.name=whole", address=ray_here[0]).wait()
    folder = tmp_path / "runs" / "whole"
    assert (code, output.strip()) == (0, str(folder)), error
    assert "Traceback" not in error
    exploits = assert_exploits_copied(folder)
    assert [each["interval"] for each in exploits] == [1]
    # A trial that led by an interval reports it again after an exploit, and the first report is void.
    reports = {(each["trial"], each["interval"]): each for each in lines(folder, "report")}
    assert reports.keys() == {(trial, interval) for trial in ("00", "01") for interval in range(3)}
    best = json.loads((folder / "best.json").read_text())
    assert json.loads((folder / best["checkpoint"] / "manifest.json").read_text())["scores"][0]["samples"] == 6
    (end,) = lines(folder, "end")
    assert end["score"]["samples"] == 12
    shown = f"the best checkpoint, of trial {end['best']}: Fréchet distance (efficientnet-lite0, n=12) "
    assert f"{shown}{end['score']['value']:.4g}" in error
    assert best["score"] == min(each["score"] for each in reports.values() if each["checkpoint"])
    assert (folder / best["checkpoint"] / "manifest.json").exists()
    for name in ("scores.png", "samples.png", "hyperparameters.png"):
        assert (folder / name).read_bytes().startswith(b"\x89PNG")
    schedule = Config.model_validate(yaml.safe_load((folder / "schedule.yaml").read_text()))
    assert schedule.tune is None
    assert_nothing_left(*ray_here, before)

    code, output, error = Command("tune", path, "run.name=whole", address=ray_here[0]).wait()
    assert (code, output.strip()) == (0, str(folder)), error
    assert "nothing left to do" in error
    code, _, error = Command("tune", path, "run.name=whole", "tune.quantile=0.25", address=ray_here[0]).wait()
    assert code == 2
    assert "was begun with another config: tune.quantile was 0.5, is 0.25" in error


def test_without_the_section_there_is_nothing_to_search(values, tmp_path):
    code, _, error = Command("tune", write_yaml(tmp_path / "plain.yaml", values)).wait()
    assert code == 2
    assert "tune: missing" in error


@pytest.fixture
def whole_ray(tmp_path):
    """Ray with a dashboard, which Ray Train needs to clean up placement groups of dead drivers."""
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    options = ("--include-dashboard=true", "--dashboard-host=127.0.0.1", f"--dashboard-port={port}")
    with ray_head(tmp_path / "ray.log", *options, RAY_API_SERVER_ADDRESS=address) as found:
        yield found


@pytest.mark.drill
def test_interrupted_killed_and_its_processes_killed_it_comes_to_its_end(values_of_search, tmp_path, whole_ray):
    values_of_search["train"] |= {"total_images": 9_000, "tick_images": 900}
    values_of_search["evaluate"]["every_images"] = values_of_search["tune"]["perturb_every_images"] = 900
    path = write_yaml(tmp_path / "search.yaml", values_of_search)
    folder = tmp_path / "runs" / "small"

    first = Command("tune", path, address=whole_ray[0])
    first.wait_for("continues from a copy of")
    os.killpg(first.process.pid, signal.SIGINT)
    code, _, error = first.wait()
    assert code == 130, error
    assert "each trial has saved a checkpoint" in error
    assert_nothing_left(*whole_ray)
    before = len(lines(folder, "exploit"))

    second = Command("tune", path, address=whole_ray[0])
    second.wait_for("continues from a copy of")
    workers, trials = processes(whole_ray[1], "RayTrainWorker"), processes(whole_ray[1], "ray::ImplicitFunc")
    assert (len(workers), len(trials)) == (4, 2)
    workers[0].kill()
    second.wait_for(" starts with 2 workers", 3)  # Two at the beginning, one again.
    trials[0].kill()
    second.wait_for(" starts with 2 workers", 4)
    second.wait_for("continues from a copy of", 3)
    os.killpg(second.process.pid, signal.SIGKILL)
    second.wait()
    assert_nothing_left(*whole_ray)
    assert len(lines(folder, "exploit")) >= before + 3

    code, _, error = Command("tune", path, address=whole_ray[0]).wait()
    while code == 1 and "is held by" in error:
        time.sleep(5)
        code, _, error = Command("tune", path, address=whole_ray[0]).wait()
    assert code == 0, error
    exploits = assert_exploits_copied(folder)
    intervals = [each["interval"] for each in exploits]
    assert intervals == sorted(set(intervals))
    reports = {(each["trial"], each["interval"]) for each in lines(folder, "report")}
    whole = {(trial, interval) for trial in ("00", "01") for interval in range(1, 11)}
    # The kill may have cost a report, and so a decision: those who are there are not held up.
    assert len(whole - reports) <= 1
    assert len(intervals) >= 9 - len(whole - reports)
    assert_nothing_left(*whole_ray)


@pytest.mark.drill
def test_trials_that_do_not_fit_at_once_take_turns(values_of_search, tmp_path, ray_here):
    values_of_search["cluster"] = {"workers": 2, "cpus_per_worker": 3}  # Of 8 CPUs.
    path = write_yaml(tmp_path / "search.yaml", values_of_search)
    code, _, error = Command("tune", path, address=ray_here[0]).wait()
    assert code == 0, error
    assert "1 of 2 trials fit the cluster at once (a trial needs 6 CPUs, 0 GPUs): they take turns" in error
    assert [each["interval"] for each in assert_exploits_copied(tmp_path / "runs" / "small")] == [1]


@pytest.mark.drill
@pytest.mark.parametrize("task", ["images", "translation", "low_resolution", "masked", "table", "density", "text"])
def test_a_search_in_a_bucket_that_tasks_score(values_of_search, tmp_path, s3, task):
    values = values_of_search
    if task == "table":
        make_table(str(write_table(tmp_path / "table.csv")), f"{s3}/table")
        values["data"] |= {"shards": f"{s3}/table", "image_size": 1, "channels": 3, "fields": {"image": "point"}}
        values["model"] = {"name": "gain", "width": 8}
        values["objective"] = {"game": "gain", "condition": "masked"}
        values["evaluate"] = {name: values["evaluate"][name] for name in ("every_images", "samples")}
        values["evaluate"] |= {"held_out_share": 0.1, "metrics": ["rmse"]}
        rate = "optimizer.generator.learning_rate"
        values["tune"] |= {"metric": "rmse", "mode": "min", "mutations": {rate: MUTATIONS[rate]}}
    elif task == "text":
        captions = put(write_captioned(tmp_path / "captions"), f"{s3}/captions")
        values = of_text(values, captions, evaluate={"held_out_share": 0.1})
    elif task not in ("images", "density"):
        pairs = put(write_pairs(tmp_path / "pairs"), f"{s3}/pairs")
        values = paired(values, pairs, evaluate={"held_out_share": 0.1})
        if task != "translation":
            values["objective"] = {"condition": task, "reconstruction": {"l1": 10.0}}
    if task == "density":
        values = run_values(values, "pixelcnn")
        values["evaluate"] |= {"held_out_share": 0.1, "metrics": ["bits_per_dimension"]}
        values["tune"] |= {"metric": "bits_per_dimension", "mutations": OF_A_DENSITY}
    values["run"]["storage"] = f"{s3}/runs"
    values["evaluate"]["where"] = "task"
    values["cluster"]["workers"] = 1
    path = write_yaml(tmp_path / "search.yaml", values)
    with ray_head(tmp_path / "ray.log", "--include-dashboard=false") as ray:
        code, output, error = Command("tune", path, address=ray[0]).wait()
        assert (code, output.strip()) == (0, f"{s3}/runs/small"), error
        assert_nothing_left(*ray)
    assert "Traceback" not in error
    assert [each["interval"] for each in assert_exploits_copied(f"{s3}/runs/small")] == [1]
    folder = open_storage(f"{s3}/runs/small")
    assert {"scores.png", "samples.png", "schedule.yaml", "best.json"} <= set(folder.list())
    assert [name for name in (".ray", "trials/00/.ray", "trials/01/.ray") if folder.list(name)] == []


@pytest.mark.drill
def test_a_sweep_over_seeds(values_of_search, tmp_path, ray_here):
    values_of_search["tune"] |= {"method": "seeds", "mutations": {}, "population": 3}
    path = write_yaml(tmp_path / "search.yaml", values_of_search)
    code, _, error = Command("tune", path, address=ray_here[0]).wait()
    assert code == 0, error
    assert "over 3 seeds" in error
    seeds = [
        yaml.safe_load((tmp_path / f"runs/small/trials/{trial}/config.yaml").read_text())["run"]["seed"]
        for trial in ("00", "01", "02")
    ]
    assert seeds == [0, 1, 2]
