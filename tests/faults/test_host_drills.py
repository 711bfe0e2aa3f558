"""A host fails while a run trains over two of three: `make drill`."""

import contextlib
import subprocess
import time

import pytest

from tests.faults.cluster import heal

pytestmark = pytest.mark.drill
NOTICE_SECONDS = 30


def test_host_killed(drill, undisturbed):
    """Ray Train starts the workers again, the lost one on the third host; the command ends with 0."""
    run = drill()
    driver, lost = train_until_a_host_other_than_the_head_works(run)
    run.fault()
    run.cluster.network.kill(lost)
    run.wait_for_images(2_400, driver)
    assert lost not in run.hosts_of_workers()
    assert len(run.hosts_of_workers()) == 2
    driver.ends(0)
    run.verdict("host killed", "Ray Train, on the third host", undisturbed(run.config))


def test_host_cut_off_and_back(drill, undisturbed):
    """Ray Train starts the workers again, the lost one on the third host; the command ends with 0.

    What was cut off comes back when its successor is at work, and writes nothing more.
    """
    run = drill()
    driver, lost = train_until_a_host_other_than_the_head_works(run)
    run.fault()
    run.cluster.network.cut(lost)
    run.wait(lambda: run.notes()[-1].attempt > 1, driver)
    run.cluster.network.join(lost)
    driver.ends(0)
    run.verdict("host cut off, and back", "Ray Train, on the third host", undisturbed(run.config))


def test_host_drained_with_notice(drill, undisturbed):
    """Ray Train starts the workers again, the lost one on the third host; the command ends with 0."""
    run = drill()
    driver, lost = train_until_a_host_other_than_the_head_works(run)
    run.fault()
    run.notice(lost, NOTICE_SECONDS)
    time.sleep(NOTICE_SECONDS)
    run.cluster.network.kill(lost)
    driver.ends(0)
    run.verdict("host taken back, 30 s after a notice", "Ray Train, on the third host", undisturbed(run.config))


def test_head_killed(drill, undisturbed):
    """Whoever runs the cluster starts it again, whoever ran the command, on another host, runs it again.

    The first one ends with 1, and says what it lost.
    """
    run = drill()
    driver = run.train("host1")
    run.wait_for_images(1_500, driver)
    run.fault()
    run.cluster.network.kill("head")
    driver.ends(1)
    heal(run.cluster)
    run.again("host1")
    run.verdict("head killed", "the user, cluster and command", undisturbed(run.config))


def test_disk_full_on_a_host(drill, undisturbed, small_disks):
    """Nobody has to restart anything: shards are not kept on it, and the command ends with 0."""
    run = drill(cluster__workers=3)
    fill(small_disks / "host1/.cache")
    run.fault()
    run.train().ends(0)
    assert run.hosts_shown() == {"head", "host1", "host2"}
    kept = {host: list((small_disks / host / ".cache/ganrun/shards").glob("[!.]*")) for host in ("host1", "host2")}
    assert [len(kept[host]) for host in kept] == [0, 5]
    run.verdict("disk of a host full, 3 workers", "nobody has to", undisturbed(run.config), exact=False)


@pytest.fixture
def small_disks(cluster):
    """The hosts' folders; those but the head have a disk of 48 MiB for their cache. (Ray's own logs are elsewhere:
    without room for them it starts no worker.)"""
    others = cluster.hosts()[1:]
    for host in others:
        cluster.network.kill(host)
        (disk := cluster.folder / host / ".cache").mkdir(exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", str(disk)], check=True)
    try:
        cluster.start(*others)
        yield cluster.folder
    finally:
        for host in others:
            cluster.network.kill(host)
            subprocess.run(["umount", str(cluster.folder / host / ".cache")], check=True)


def fill(folder):
    """Not a byte is left."""
    with (folder / "fill").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(2**12))


def train_until_a_host_other_than_the_head_works(run):
    """The driver is on the head; the name of the other host."""
    driver = run.train()
    run.wait_for_images(1_500, driver)
    return driver, next(host for host in run.hosts_of_workers() if host != "head")
