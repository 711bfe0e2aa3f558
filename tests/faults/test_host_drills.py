"""A host, or what is on it, fails while a run trains over two of three: `make drill`."""

import os
import signal

import pytest

pytestmark = pytest.mark.drill


def test_worker_killed(drill, undisturbed):
    """Ray Train starts the workers again; the command ends with 0."""
    run = drill()
    driver = run.train()
    run.wait_for_images(1_500, driver)
    run.fault()
    os.kill(run.workers(run.hosts_of_workers()[-1])[0], signal.SIGKILL)
    driver.ends(0)
    run.verdict("worker process killed", "Ray Train", undisturbed(run.config))


def test_host_killed(drill, undisturbed):
    """Ray Train starts the workers again, the lost one on the third host; the command ends with 0."""
    run = drill()
    driver = run.train()
    run.wait_for_images(1_500, driver)
    before = run.hosts_of_workers()
    run.fault()
    run.cluster.network.kill(before[-1])
    run.wait_for_images(2_400, driver)
    after = run.hosts_of_workers()
    assert len(before) == len(after) == 2
    assert before[-1] not in after
    driver.ends(0)
    run.verdict("host killed", "Ray Train, on the third host", undisturbed(run.config))
