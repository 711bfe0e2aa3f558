"""A process of a run dies or hangs, while its workers are on two hosts: `make drill`."""

import os
import random
import re
import signal
import time

import pytest

pytestmark = pytest.mark.drill


def test_worker_killed(drill, undisturbed):
    """Ray Train starts the workers again; the command ends with 0."""
    run = drill()
    driver = run.train()
    run.wait_for_images(1_500, driver)
    run.fault()
    os.kill(run.worker(1), signal.SIGKILL)
    driver.ends(0)
    run.verdict("worker process killed", "Ray Train", undisturbed(run.config))


def test_worker_hung(drill, undisturbed):
    """Ray Train gives the workers up and starts them again; the command ends with 0.

    It is rank 0, which writes, and it wakes up when its successor is at work.
    """
    run = drill()
    driver = run.train()
    run.wait_for_images(1_500, driver)
    hung = run.worker(0)
    run.fault()
    os.kill(hung, signal.SIGSTOP)
    try:
        run.wait(lambda: run.notes()[-1].attempt > 1, driver)
    finally:
        run.wake(hung)
    driver.ends(0)
    run.verdict("worker hung in a collective", "Ray Train", undisturbed(run.config))


def test_workers_killed_at_20_random_moments(drill, undisturbed):
    """Ray Train starts the workers again each time; the command ends with 0. Half of the kills meet them at work."""
    run = drill(train__total_images=4_800, checkpoint__every_images=120, cluster__max_failures=99)
    driver, dice = run.train(), random.Random(0)
    while len(run.faults) < 20:
        at_work, fault = dice.random() < 0.5, max(run.faults, default=0)
        run.wait(lambda: any(map(run.workers, run.cluster.hosts())), driver)
        if at_work:
            run.wait(lambda since=fault: max((note.time for note in run.notes()), default=0) > since, driver)
        time.sleep(dice.uniform(0, 3 if at_work else 10))
        if workers := [pid for host in run.cluster.hosts() for pid in run.workers(host)]:
            run.fault()
            os.kill(dice.choice(workers), signal.SIGKILL)
    driver.ends(0)
    run.verdict("kill -9 at 20 random moments, a kill", "Ray Train", undisturbed(run.config))


def test_driver_killed(drill, undisturbed):
    """The user runs the command again on the same machine: the dead driver's lease is taken over at once."""
    run = drill()
    driver = run.train()
    run.wait_for_images(1_500, driver)
    run.fault()
    driver.process.kill()
    run.again()
    run.verdict("driver killed", "the user", undisturbed(run.config))


def test_two_submissions_of_one_name(drill, undisturbed):
    """Nobody restarts anything: one command runs the run and ends with 0, the other says so and ends with 1."""
    run = drill()
    drivers = [run.train("head"), run.train("host1")]
    run.wait(lambda: any(driver.process.poll() is not None for driver in drivers))
    refused, running = sorted(drivers, key=lambda driver: driver.process.poll() is None)
    assert re.search(r"two-submissions.* is held by process \d+ on .* until", refused.ends(1))
    running.ends(0)
    run.verdict("two submissions of one name", "nobody has to", undisturbed(run.config))
