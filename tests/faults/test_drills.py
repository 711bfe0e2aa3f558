"""Slow fault drills: `make drill`. Each says who restarts the run and what end it expects."""

import json
import os
import random
import shutil
import signal
import subprocess
import time

import pytest
import torch

from tests.commands import Train, ray_workers
from tests.conftest import config_of
from tests.ranks import latest_tensors, run_folder, run_ranks

pytestmark = pytest.mark.drill


def assert_equal(tensors, expected):
    assert tensors.keys() == expected.keys()
    for name, tensor in tensors.items():
        assert torch.equal(tensor, expected[name]), name


def test_workers_killed_at_random_moments(values, tmp_path, ray_here):
    """Ray Train restarts them within the command; the weights are the undisturbed run's, bit for bit."""
    changes = {"train__total_images": 24_000, "train__tick_images": 300, "checkpoint__every_images": 600}
    disturbed = config_of(values, cluster__workers=2, cluster__max_failures=99, **changes)
    undisturbed = config_of(values, run__name="undisturbed", cluster__workers=2, **changes)
    yaml = tmp_path / "small.yaml"
    yaml.write_text(disturbed.to_yaml())
    command, moments, kills = Train(yaml, address=ray_here[0]), random.Random(0), 0
    while command.process.poll() is None:
        time.sleep(moments.uniform(8, 20))
        if kills < 6 and (workers := ray_workers(ray_here[1])):
            moments.choice(workers).kill()
            kills += 1
    code, _, error = command.wait()
    assert code == 0, error
    print(f"\n{kills} workers killed")
    assert kills >= 3
    run_ranks(undisturbed, 2, tmp_path / "meeting")
    assert_equal(latest_tensors(disturbed), latest_tensors(undisturbed))


def test_driver_killed(values, tmp_path, ray_here):
    """The user runs the command again: it is refused until the lease expires, and then goes on."""
    config = config_of(
        values, cluster__workers=2, train__total_images=9_600, train__tick_images=300, checkpoint__every_images=600
    )
    undisturbed = config.model_copy(update={"run": config.run.model_copy(update={"name": "undisturbed"})})
    yaml = tmp_path / "small.yaml"
    yaml.write_text(config.to_yaml())
    first = Train(yaml, address=ray_here[0])
    first.wait_for_images(1_200)
    os.killpg(first.process.pid, signal.SIGKILL)
    first.wait()
    begun = time.monotonic()
    code, _, error = Train(yaml, address=ray_here[0]).wait()
    assert code == 1, error
    while code == 1 and "is held by" in error:
        time.sleep(5)
        code, _, error = Train(yaml, address=ray_here[0]).wait()
    assert code == 0, error
    print(f"\ndone {time.monotonic() - begun:.0f} s after the driver was killed, of which up to 60 s are the lease's")
    run_ranks(undisturbed, 2, tmp_path / "meeting")
    assert_equal(latest_tensors(config), latest_tensors(undisturbed))


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("mount"), reason="needs root, to mount a small disk")
def test_disk_full(values, tmp_path, ray_here):
    """The run goes on, says what it could not write, and ends with 1 and its last checkpoint; then it goes on."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)], check=True)
    try:
        values["run"]["storage"] = str(disk)
        values["model"]["width"] = 16
        config = config_of(values, train__total_images=1_200, checkpoint__every_images=300)
        yaml = tmp_path / "small.yaml"
        yaml.write_text(config.to_yaml())
        code, _, error = Train(yaml, address=ray_here[0]).wait()
        assert code == 1, error
        assert "could not be written: No space left on device" in error
        assert "Traceback" not in error
        good = json.loads((run_folder(config) / "latest.json").read_text())["images"]
        assert 0 < good < 1_200
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        code, _, error = Train(yaml, address=ray_here[0]).wait()
        assert code == 0, error
        assert f"going on with 1 worker from {good:,} images" in error
    finally:
        subprocess.run(["umount", str(disk)], check=True)
