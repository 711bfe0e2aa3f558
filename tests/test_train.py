"""`ganrun train` as a user runs it: real processes, real Ray."""

import contextlib
import json
import os
import re
import signal
import time

import psutil
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.commands import Train, ray_workers
from tests.conftest import config_of, write_data, write_yaml
from tests.holding import hold_at, hold_of
from tests.ranks import latest_tensors, run_folder, run_ranks

PLACE = """
import os

import ray

if ray.is_initialized() and (group := ray.util.get_current_placement_group()):
    strategy = ray.util.placement_group_table(group)["strategy"]
    with open(os.environ["TOLD"], "a") as file:
        file.write(f"{strategy} {os.environ['NCCL_DEBUG']} {os.environ['OMP_NUM_THREADS']}\\n")
"""
"""Module of a user that writes down where its worker is, and in which environment."""


def test_a_run_on_this_machine_alone(values, tmp_path, monkeypatch):
    values["evaluate"] = {"every_images": 120, "samples": 20}
    values["telemetry"] = {"trackers": ["tensorboard"]}
    values["cluster"] = {"placement": "spread", "env": {"NCCL_DEBUG": "WARN", "OMP_NUM_THREADS": 1}}
    (tmp_path / "their_place.py").write_text(PLACE)
    values["run"]["imports"] = ["their_place"]
    yaml = write_yaml(tmp_path / "small.yaml", values)
    told = tmp_path / "told"
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.setenv("TOLD", str(told))
    run, priorities = Train(yaml, "run.name=alone"), set()
    while run.process.poll() is None:
        for worker in ray_workers(run.process.pid):
            with contextlib.suppress(psutil.Error):
                priorities.add(worker.nice())
        time.sleep(0.05)
    assert priorities == {os.nice(0)}
    assert "SPREAD WARN 1" in told.read_text()
    code, output, error = run.wait()
    folder = tmp_path / "runs" / "alone"
    assert (code, output.strip()) == (0, str(folder)), error
    assert "240 of 240 images" in error
    assert re.search(r"Fréchet distance \(efficientnet-lite0, n=20\): [\d.]+ at 60 images, [\d.]+ at 240", error)
    assert {entry.name for entry in folder.iterdir() if entry.name != ".lock"} == {
        *("config.yaml", "latest.json", "best.json", "checkpoints", "metrics", "events", "samples", "tensorboard")
    }
    assert json.loads((folder / "latest.json").read_text())["images"] == 240
    assert sorted(path.name for path in (folder / "samples").iterdir())[-1] == "000000000240.png"
    lines = [json.loads(line) for line in (folder / "metrics/0001-000000000000.jsonl").read_text().splitlines()]
    ticks = [line for line in lines if "loss/generator" in line]
    assert [tick["images"] for tick in ticks] == [60, 120, 180, 240]
    assert {"time", "loss/discriminator", "logit/real", "images_per_second"} <= ticks[0].keys()
    scores = [line["images"] for line in lines if "frechet_distance" in line]
    assert scores == [60, 120, 240]
    tracked = EventAccumulator(str(folder / "tensorboard"))
    tracked.Reload()
    assert [each.step for each in tracked.Scalars("loss/generator")] == [60, 120, 180, 240]
    assert [each.step for each in tracked.Scalars("frechet_distance")] == scores

    code, output, error = Train(yaml, "run.name=alone").wait()
    assert (code, output.strip()) == (0, str(folder))
    assert "nothing left to do" in error


def test_interrupted_killed_and_resumed_it_ends_as_if_undisturbed(values, tmp_path, ray_here):
    total = 1_800  # The second hold is at 1,200 at the latest.
    changes = {"train__total_images": total, "train__tick_images": 150, "checkpoint__every_images": 300}
    changes |= {"run__patience_seconds": 3_600}  # Rank 1 waits while rank 0 is held, for as long as a command takes.
    undisturbed = config_of(values, run__name="undisturbed", cluster__workers=2, **changes)
    disturbed = config_of(values, run__name="disturbed", run__imports=["tests.holding"], cluster__workers=2, **changes)
    yaml = tmp_path / "disturbed.yaml"
    yaml.write_text(disturbed.to_yaml())

    hold_at(disturbed, 600)
    first = Train(yaml, address=ray_here[0])
    first.wait_for_images(300)
    code, _, error = Train(yaml, address=ray_here[0]).wait()
    assert code == 1
    assert re.search(rf"is held by process {first.process.pid} on .* until \d\d:\d\d:\d\d", error)
    os.killpg(first.process.pid, signal.SIGINT)
    code, _, error = first.wait()
    assert code == 130, error
    stopped = json.loads((run_folder(disturbed) / "latest.json").read_text())["images"]
    assert 300 <= stopped < total
    assert f"a checkpoint at {stopped:,} images is saved" in error

    hold_at(disturbed, stopped + 600)
    second = Train(yaml, address=ray_here[0])
    second.wait_for_images(stopped + 450)
    ray_workers(ray_here[1])[-1].kill()
    hold_of(disturbed).unlink()
    code, _, error = second.wait()
    assert code == 0, error
    assert error.count("; restarting the workers") == 1
    assert error.count("resuming with 2 workers from") == 2
    kinds = [
        json.loads(line)["kind"]
        for file in sorted((run_folder(disturbed) / "events").iterdir())
        for line in file.read_text().splitlines()
    ]
    assert [kind for kind in kinds if kind not in ("attempt", "checkpoint", "left", "collapse_suspected")] == [
        "start",
        "stop",
        "start",
        "start",
        "finish",
    ]

    run_ranks(undisturbed, 2, tmp_path / "meeting")
    tensors, expected = latest_tensors(disturbed), latest_tensors(undisturbed)
    assert tensors.keys() == expected.keys()
    for name, tensor in tensors.items():
        assert torch.equal(tensor, expected[name]), name


@pytest.mark.drill
def test_a_run_that_diverges_stops_with_its_last_good_checkpoint(values, tmp_path, ray_here):
    values["optimizer"] = {"generator": {"learning_rate": 1e200}}
    values["train"] |= {"total_images": 2_400, "nonfinite_tolerance": 3}
    values["checkpoint"]["every_images"] = 12
    yaml = write_yaml(tmp_path / "diverges.yaml", values)
    code, _, error = Train(yaml, address=ray_here[0]).wait()
    assert code == 1
    assert "the run diverged" in error
    assert "rolled back to" in error
    *_, events = sorted((run_folder(config_of(values)) / "events").iterdir())
    assert events.name == "0003.jsonl"
    assert json.loads(events.read_text().splitlines()[-1])["kind"] == "failed"
    assert "more than train.nonfinite_tolerance: 3" in error
    assert "Traceback" not in error
    for name, tensor in latest_tensors(config_of(values)).items():
        assert torch.isfinite(tensor).all(), name


@pytest.mark.drill
def test_a_shard_corrupt_behind_the_index_ends_the_run_at_once(values, tmp_path, ray_here):
    folder = write_data(tmp_path / "data")
    shard = folder / "000003.tar"
    content = bytearray(shard.read_bytes())
    content[700] ^= 1
    shard.write_bytes(content)
    values["data"]["shards"] = str(folder)
    yaml = write_yaml(tmp_path / "damaged.yaml", values)
    code, _, error = Train(yaml, address=ray_here[0]).wait()
    assert code == 2
    assert re.search(r"ganrun: .*000003\.tar: sha256 \w+, but the index says", error)
    assert "Traceback" not in error


def test_a_fault_in_the_users_module_ends_the_run_at_once_and_names_its_line(values, tmp_path, ray_here, monkeypatch):
    (tmp_path / "faulty_for_a_test.py").write_text(
        "from ganrun.games.losses import AdversarialLoss\nfrom ganrun.config.registry import LOSSES\n"
        "LOSSES['faulty'] = AdversarialLoss(lambda real, fake: real.no_such_method(), lambda fake: fake.mean())\n"
    )
    monkeypatch.chdir(tmp_path)
    values["run"]["imports"] = ["faulty_for_a_test"]
    values["objective"] = {"loss": "faulty"}
    yaml = write_yaml(tmp_path / "faulty.yaml", values)
    cause = "faulty_for_a_test.py:3: AttributeError: 'Tensor' object has no attribute 'no_such_method'"
    code, _, error = Train(yaml, "--validate", address=ray_here[0]).wait()
    assert (code, error) == (
        2,
        "ganrun: objective.game=gan model.name=dcgan: a round of 2 images in each of 2 slots: " + cause + "\n",
    )
    code, _, error = Train(yaml, address=ray_here[0]).wait()
    assert code == 2
    assert f"ganrun: objective.game=gan model.name=dcgan: {tmp_path}/{cause}; its traceback is in {tmp_path}" in error
    assert "Traceback" not in error
    assert "restarting the workers" not in error
    events = (tmp_path / "runs/small/events/0001.jsonl").read_text().splitlines()
    (failed,) = [event for event in map(json.loads, events) if event["kind"] == "failed"]
    assert failed["traceback"].rstrip().endswith("AttributeError: 'Tensor' object has no attribute 'no_such_method'")
    assert failed["traceback"].count("Traceback") == 1


def test_validate_finds_what_a_run_would_be_refused_for(values, tmp_path):
    yaml = write_yaml(tmp_path / "small.yaml", values)
    for override, reason in (
        ("run.imports=[no_such_module]", "run.imports: cannot import 'no_such_module'"),
        ("run.start_from=nowhere", "neither a run with a checkpoint nor a checkpoint"),
    ):
        code, _, error = Train(yaml, "--validate", override).wait()
        assert code == 2
        assert reason in error


def test_a_dashboard_is_no_cluster_to_train_on(values, tmp_path):
    yaml = write_yaml(tmp_path / "small.yaml", values)
    code, _, error = Train(yaml, address="http://127.0.0.1:8265").wait()
    assert code == 2
    assert "RAY_ADDRESS: 'http://127.0.0.1:8265' is where jobs are submitted: `ray job submit" in error


def test_a_cluster_that_does_not_answer_is_named(values, tmp_path):
    yaml = write_yaml(tmp_path / "small.yaml", values)
    code, _, error = Train(yaml, address="127.0.0.1:1").wait()
    assert code == 2
    assert "RAY_ADDRESS: no Ray cluster answers at '127.0.0.1:1'" in error
