"""One local cluster for all drills of a session, healed before each; and the table of what they cost."""

import signal

import pytest

from tests.conftest import config_of, small_run
from tests.faults.cluster import INTERVAL, ROOT, Drill, cluster_up, heal, table, why_no_hosts
from tests.keys import FIELDS, upload_with_keys
from tests.ranks import latest_tensors, run_ranks

TOTAL = 3_600
"""Images of a drill's run: 300 rounds, half a minute."""


@pytest.fixture(scope="session")
def three_hosts():
    """A local cluster with a CPU on each of three hosts."""
    if why := why_no_hosts():
        pytest.skip(why)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))  # Of tests.faults.noting, which no job is sent.
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # Lest what ends the drills leaves the cluster.
        with cluster_up() as cluster:
            yield cluster


@pytest.fixture
def cluster(three_hosts, monkeypatch):
    """The cluster, whole, with access to its storage from here."""
    from ganrun.storage import s3_client

    heal(three_hosts)
    for name, value in three_hosts.credentials().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(s3_client, "_filesystems", {})
    return three_hosts


@pytest.fixture
def drill(cluster, data_folder, tmp_path, request):
    """Makes a run on the cluster, named like the test; `changes` are as for `config_of`."""

    made = []

    def make(**changes):
        name = request.function.__name__.removeprefix("test_").replace("_", "-")
        upload_with_keys(data_folder, "s3://ganrun/data")
        values = small_run("s3://ganrun/runs", data_folder)
        values["run"] |= {"name": name, "imports": ["tests.faults.noting"]}
        values["data"] |= {"shards": "s3://ganrun/data", "fields": FIELDS}
        values["train"] |= {"total_images": TOTAL, "tick_images": 120}
        values["checkpoint"] |= {"every_images": INTERVAL}
        values["cluster"] = {"workers": 2, "cpus_per_worker": 1, "max_failures": 3}
        made.append(Drill(cluster, config_of(values, **changes), tmp_path))
        return made[-1]

    yield make
    for run in made:
        run.end()


@pytest.fixture(scope="session")
def undisturbed(data_folder, tmp_path_factory):
    """The tensors at the end of the run to which nothing happens, by the number of images that it has."""
    known = {}

    def tensors(config):
        total = config.train.total_images
        if total not in known:
            folder = tmp_path_factory.mktemp("undisturbed")
            values = small_run(folder, data_folder)
            values["train"] |= {"total_images": total, "tick_images": config.train.tick_images}
            alone = config_of(values)
            run_ranks(alone, 2, folder / "meeting")
            known[total] = latest_tensors(alone)
        return known[total]

    return tensors


def pytest_terminal_summary(terminalreporter):
    lines = table()
    if len(lines) > 2:
        terminalreporter.section("drills")
        terminalreporter.write_line("\n".join(lines))
