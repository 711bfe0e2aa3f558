"""The storage of a run goes away or is full: `make drill`."""

import json
import os
import shutil
import subprocess
import time

import pytest

from tests.commands import Train
from tests.conftest import config_of
from tests.ranks import run_folder

pytestmark = pytest.mark.drill
AWAY_SECONDS = 30


def test_storage_killed_for_30_seconds(drill, undisturbed):
    """Nobody restarts anything but the server: the run waits for it, twice, and the command ends with 0."""
    run = drill(data__cache_mib=0)
    driver = run.train()
    run.wait_for_images(800, driver)
    away(run)
    run.wait(run.is_saving, driver)
    away(run)
    said = driver.ends(0)
    assert 2 <= said.count("does not answer") + said.count("answers again") <= 8, said
    run.verdict("storage killed for 30 s", "nobody has to", undisturbed(run.config))


def away(run):
    run.fault()
    run.cluster.network.kill("storage")
    time.sleep(AWAY_SECONDS)
    run.cluster.start("storage")


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
        assert f"resuming with 1 worker from {good:,} images" in error
    finally:
        subprocess.run(["umount", str(disk)], check=True)
