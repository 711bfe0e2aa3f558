"""A Ray on this machine, or the cluster that RAY_ADDRESS names: real processes, real and dead addresses."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile

import psutil
import pytest

from ganrun.config import ray_variables
from ganrun.config.ray_variables import LONGEST_FOLDER, session_folder
from ganrun.errors import UserError
from tests.commands import Train
from tests.conftest import RAY_STARTS, write_yaml
from tests.test_structure import ROOT
from tests.waiting import WAIT, until

LOCAL = """
import json, os, threading
import psutil
from ganrun.ray_backend.cluster import ray_cluster
with ray_cluster("runs", 1, threading.Event()) as ray:
    nice = ray.get(ray.remote(lambda: os.nice(0)).remote())
    found = set()
    for process in psutil.Process().children(recursive=True):
        try:
            found |= {each.laddr.ip for each in process.net_connections("inet") if each.status == psutil.CONN_LISTEN}
        except psutil.Error:
            continue
print(json.dumps([nice - os.nice(0), sorted(found)]))
"""
EMPTY = ("RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "RAY_TMPDIR", "RAY_USAGE_STATS_ENABLED")
EMPTY += ("RAY_worker_niceness", "GLOO_SOCKET_IFNAME", "TMPDIR")


def run_here(code, *arguments, **variables):
    """Run Python code in a process without the variables of Ray that the tests set."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env=environment | {"PYTHONPATH": str(ROOT)} | variables,
        capture_output=True,
        text=True,
        timeout=WAIT,
    )


@pytest.mark.parametrize(
    "variables",
    [
        {},
        pytest.param(dict.fromkeys(EMPTY, ""), marks=pytest.mark.drill),
        {"RAY_ADDRESS": "local", "TMPDIR": "/tmp/" + "of-a-job-scheduler" * 4},
    ],
    ids=["unset", "empty", "local-with-a-long-tmpdir"],
)
def test_a_local_ray_listens_on_loopback_and_its_workers_are_as_nice_as_we_are(variables, tmp_path):
    for _ in range(RAY_STARTS):
        done = run_here(f"import os; os.chdir({str(tmp_path)!r})" + LOCAL, **variables)
        if "The current node timed out during startup" not in done.stderr:
            break
    assert done.returncode == 0, done.stderr
    nicer, addresses = json.loads(done.stdout.splitlines()[-1])
    assert nicer == 0
    assert "127.0.0.1" in addresses
    assert set(addresses) <= {"127.0.0.1", "::ffff:127.0.0.1", "::1"}


def test_a_ray_that_does_not_start_is_one_line(values, tmp_path):
    yaml = write_yaml(tmp_path / "small.yaml", values)
    code, _, error = Train(yaml, env={"RAY_TMPDIR": "/dev/null"}).wait()
    assert code == 1
    assert "ganrun: Ray does not start on this machine: " in error
    assert "Traceback" not in error


BEGUN = ("gcs_server", "raylet", "DashboardAgent")
ALWAYS = {("raylet", signal.SIGTERM), ("DashboardAgent", signal.SIGINT)}
"""Process whose start is waited for, and signal, that are no drill: each start of a Ray takes long."""


@pytest.mark.parametrize(
    ("begun", "number"),
    [
        pytest.param(begun, number, marks=[] if (begun, number) in ALWAYS else pytest.mark.drill)
        for begun in BEGUN
        for number in (signal.SIGINT, signal.SIGTERM)
    ],
)
def test_a_signal_ends_the_start_of_a_ray_and_all_its_processes(values, tmp_path, number, begun):
    yaml = write_yaml(tmp_path / "small.yaml", values)
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:  # Ray allows no long one.
        train = Train(yaml, env={"RAY_TMPDIR": folder})
        command = psutil.Process(train.process.pid)
        until(
            lambda: any(begun in each for each in map(words, command.children(recursive=True))), train.error.read_text
        )
        started = command.children(recursive=True)
        train.process.send_signal(number)
        code, _, error = train.wait()
        until(lambda: not list(filter(words, started)), lambda: str(list(map(words, started))))
    assert code == 130, error
    assert error.endswith("ganrun: interrupted\n")
    assert "saving a checkpoint" not in error
    assert "Traceback" not in error
    assert not (tmp_path / "runs/small/lease.json").exists()


def words(process):
    """The command line of a process; empty once it has ended, also where its number has been given to another."""
    with contextlib.suppress(psutil.Error):
        return " ".join(process.cmdline()) if process.is_running() else ""
    return ""


# The folder of sessions.


def test_a_short_folder_is_taken(monkeypatch):
    longest = "/" + "x" * (LONGEST_FOLDER - 1)
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv("TMPDIR", longest)
    assert session_folder() == longest
    monkeypatch.setenv("TMPDIR", longest + "x")
    assert session_folder() == "/tmp"
    monkeypatch.setenv("RAY_TMPDIR", "/scratch")
    assert session_folder() == "/scratch"


def test_without_a_short_folder_the_variable_is_named(monkeypatch, tmp_path):
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv("TMPDIR", "/tmp/" + "x" * 72)
    monkeypatch.setattr(ray_variables, "FALLBACK", str(tmp_path / "gone"))
    with pytest.raises(UserError, match=rf"^TMPDIR: '/tmp/x+' is 77 bytes long.*at most {LONGEST_FOLDER} bytes$"):
        session_folder()


def test_validate_names_a_folder_that_is_too_long(values, tmp_path):
    yaml = write_yaml(tmp_path / "small.yaml", values)
    for arguments in (["--validate"], []):
        code, _, error = Train(yaml, *arguments, env={"RAY_TMPDIR": "/tmp/" + "é" * 36}).wait()
        assert code == 2
        assert error.startswith("ganrun: RAY_TMPDIR: '/tmp/éé")
        assert " is 77 bytes long" in error
        assert len(error.splitlines()) == 1


# A cluster.


@contextlib.contextmanager
def silent_server():
    """A server that accepts connections and says nothing, as a head that hangs does."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(WAIT)
        yield server, f"127.0.0.1:{server.getsockname()[1]}"


def connections(server, count):
    return [server.accept()[0] for _ in range(count)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_wait_for_a_cluster(values, tmp_path, number):
    yaml = write_yaml(tmp_path / "small.yaml", values)
    with silent_server() as (server, address):
        train = Train(yaml, address=address)
        held = connections(server, 2)  # That of our check, then Ray's own: it waits in C++ now.
        train.process.send_signal(number)
        code, _, error = train.wait()
        assert len(held) == 2
    assert code == 130, error
    assert error.endswith("ganrun: interrupted\n")
    assert "Traceback" not in error
    assert not (tmp_path / "runs/small/lease.json").exists()


IMPATIENT = """
import sys
from ganrun.ray_backend import cluster
from ganrun.train import main
cluster.JOIN_SECONDS = 1.0
sys.exit(main([sys.argv[1]]))
"""


def test_the_wait_for_a_cluster_ends_by_itself(values, tmp_path):
    yaml = write_yaml(tmp_path / "small.yaml", values)
    with silent_server() as (_, address):
        loopback = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
        done = run_here(IMPATIENT, yaml, RAY_ADDRESS=address, **loopback)
    assert done.returncode == 2, done.stderr
    assert f"ganrun: RAY_ADDRESS: what answers at '{address}' lets no one join within 1 s" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("ray://127.0.0.1:1", "(Connection refused)"),
        ("[::1]:1", "("),
        ("nowhere", "(Invalid address format: nowhere)"),
        ("auto", "("),
    ],
)
def test_an_address_at_which_no_ray_answers_is_one_line(values, tmp_path, address, reason):
    """`auto`: the last cluster of this machine is gone, and Ray's own note of it is stale."""
    yaml = write_yaml(tmp_path / "small.yaml", values)
    note_cluster(tmp_path, "127.0.0.1:1")
    # A Ray of another test listens on the loopback address only, which these settings do not look at.
    elsewhere = {"RAY_TMPDIR": str(tmp_path), "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "1"}
    code, _, error = Train(yaml, address=address, env=elsewhere).wait()
    assert code == 2
    assert f"ganrun: RAY_ADDRESS: no Ray cluster answers at '{address}' {reason}" in error
    assert len(error.splitlines()) == 2  # After "starting Ray ...".


def note_cluster(folder, address):
    """Write Ray's note of the cluster that was started last."""
    (folder / "ray").mkdir()
    (folder / "ray/ray_current_cluster").write_text(address)


def test_auto_joins_the_cluster_of_this_machine(values, tmp_path, ray_here):
    values["train"]["total_images"] = 12
    yaml = write_yaml(tmp_path / "small.yaml", values)
    note_cluster(tmp_path, ray_here[0])
    code, _, error = Train(yaml, address="auto", env={"RAY_TMPDIR": str(tmp_path)}).wait()
    assert code == 0, error
    assert "finished: 12 images shown" in error
