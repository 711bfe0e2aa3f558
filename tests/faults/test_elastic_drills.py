"""A run over one to three workers while hosts are lost, come back and are taken away: `make drill`."""

import re

import pytest

pytestmark = pytest.mark.drill
LONG = 12_000
"""Images of a run that sees a host come back: two minutes."""


@pytest.fixture
def elastic(drill):
    """A run over as many of the three hosts as there are, and its command, once all are at work."""

    def start(**changes):
        run = drill(cluster__workers=[1, 3], **changes)
        driver = run.train()
        run.wait_for_images(1_500, driver)
        run.wait(lambda: len(run.hosts_of_workers()) == 3, driver)
        return run, driver

    return start


def test_host_killed_and_back(elastic, undisturbed):
    """Ray Train goes on with two workers, and with three when the host is back; the command ends with 0."""
    run, driver = elastic(train__total_images=LONG)
    run.fault()
    run.cluster.network.kill("host2")
    driver.waits_for("there are 2 workers now")
    run.wait(lambda: run.notes()[-1].attempt == 2, driver)
    run.fault()  # To come back costs a start too, though nothing is lost.
    run.cluster.start("host2")
    driver.waits_for("there are 3 workers now")
    run.wait(lambda: run.hosts_of_workers() == ["head", "host1", "host2"], driver)
    said = driver.ends(0)
    (saved,) = re.findall(r"the workers save at ([\d,]+) images", said)
    assert f"there are 3 workers now; resuming from {saved} images" in said
    run.verdict("host killed, and back, of a run over [1, 3]", "Ray Train", undisturbed(run.config), exact=False)


def test_one_of_three_hosts_cut_off_and_back(elastic, undisturbed):
    """Ray Train goes on with two workers; the one that was cut off writes nothing more; the command ends with 0."""
    run, driver = elastic()
    run.fault()
    run.cluster.network.cut("host1")
    driver.waits_for("there are 2 workers now")
    run.cluster.network.join("host1")
    driver.ends(0)
    run.verdict("host cut off, of a run over [1, 3]", "Ray Train", undisturbed(run.config), exact=False)


def test_host_to_be_taken_away(elastic, undisturbed):
    """Its workers leave it on notice, Ray Train goes on with two; the command ends with 0."""
    run, driver = elastic()
    run.fault()
    run.notice("host2", seconds=600)
    driver.waits_for("is being drained: the workers save at")
    driver.waits_for("there are 2 workers now")
    run.wait(lambda: run.hosts_of_workers() == ["head", "host1"], driver)
    driver.ends(0)
    run.cluster.network.kill("host2")
    row = run.verdict("host to be taken away, of a run over [1, 3]", "Ray Train", undisturbed(run.config), exact=False)
    assert row.images == 0
