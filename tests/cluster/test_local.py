"""The local cluster: starts, trains over its hosts, loses one, and leaves nothing behind."""

import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from cluster.local.hosts import LocalCluster
from tests.conftest import config_of
from tests.faults.cluster import ROOT, free_number, why_no_hosts
from tests.faults.history import read_notes
from tests.waiting import WAIT

pytestmark = pytest.mark.skipif(bool(why_no_hosts()), reason=str(why_no_hosts()))


@pytest.fixture(scope="module")
def name():
    """Of a cluster of two hosts with a CPU each; gone at the end, whatever happened."""
    number = free_number()
    try:
        said = local(f"d{number}", "up", "--hosts=2", "--cpus=1", f"--net=10.78.{number}")
        assert re.search(r"head .* alive .*\nhost1 .* alive .*\nstorage", said)
        assert f"--name d{number} exec head -- ganrun train" in said
        yield f"d{number}"
    finally:
        folder = LocalCluster(f"d{number}").folder
        if folder.exists():
            local(f"d{number}", "down")
        assert not folder.exists()
        for listing in (["ip", "netns"], ["ip", "link"], ["ps", "axww", "-o", "args"]):
            there = subprocess.run(listing, capture_output=True, text=True, check=True).stdout
            assert f"ganrund{number}" not in there
            assert str(folder) not in there


def local(name, *arguments):
    """`python -m cluster.local ...`; what it says."""
    command = [sys.executable, "-m", "cluster.local", "--name", name, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=2 * WAIT)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.drill
def test_a_host_is_killed_and_started(name):
    assert re.search(r"host1 .* alive", local(name, "status"))
    local(name, "kill", "host1")
    assert LocalCluster(name).network.pids("host1") == []
    local(name, "start", "host1")
    assert re.search(r"host1 .* alive", local(name, "status"))


METADATA = """
import http.server, json, time
begun = time.monotonic()
class Service(http.server.BaseHTTPRequestHandler):
    def do_PUT(self):
        self.answer(200 if self.path == "/latest/api/token" else 404, "secret")
    def do_GET(self):
        known = self.headers["X-aws-ec2-metadata-token"] == "secret"
        there = time.monotonic() - begun > 8 and self.path == "/latest/meta-data/spot/instance-action"
        notice = '{"action": "terminate", "time": "2096-01-01T00:00:00Z"}'
        self.answer((200 if there else 404) if known else 401, notice)
    def answer(self, code, text):
        self.send_response(code)
        self.end_headers()
        self.wfile.write(text.encode())
http.server.HTTPServer(("127.0.0.1", 8081), Service).serve_forever()
"""


@pytest.mark.parametrize(
    "notice",
    [
        pytest.param(["now"], marks=pytest.mark.drill),
        ["aws", "--metadata=http://127.0.0.1:8081/latest"],
    ],
)
def test_a_host_that_is_to_be_taken_away_is_left(name, notice):
    cluster = LocalCluster(name)
    service = cluster.popen("host1", [sys.executable, "-c", METADATA])
    try:
        left = cluster.popen("host1", [sys.executable, "cluster/notice.py", *notice], cwd=ROOT, stderr=subprocess.PIPE)
        assert left.wait(WAIT) == 0, left.stderr.read()
        deadline = time.monotonic() + WAIT
        while "host1" in cluster.alive():  # With nothing to do it goes at once.
            assert time.monotonic() < deadline
            time.sleep(0.5)
    finally:
        service.kill()
    cluster.network.kill("host1")
    cluster.start("host1")


def test_then_it_trains_over_two_hosts_from_and_to_its_bucket(name, values, data_folder, tmp_path):
    values["run"] |= {"storage": "s3://ganrun/runs", "imports": ["tests.faults.noting"]}
    values["data"] |= {"shards": "s3://ganrun/data"}
    values["cluster"] = {"workers": 2, "cpus_per_worker": 1}
    yaml = tmp_path / "small.yaml"
    yaml.write_text(config_of(values).to_yaml())
    local(name, "exec", "head", "--", "ganrun", "prepare", f"shards:{data_folder}", "s3://ganrun/data")
    said = local(name, "exec", "host1", "--", "ganrun", "train", str(yaml))
    assert said.splitlines()[-1] == "s3://ganrun/runs/small"
    notes = read_notes(LocalCluster(name).folder / "notes/small")
    assert {(note.host, note.rank) for note in notes} in ({("head", 0), ("host1", 1)}, {("head", 1), ("host1", 0)})


def test_who_has_no_token_is_not_let_in(name):
    exports = dict(re.findall(r"export (\w+)=(.*)", local(name, "env")))
    ask = urllib.request.Request(exports["RAY_ADDRESS"] + "/api/v0/nodes")
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(ask, timeout=WAIT)
    ask.add_header("Authorization", f"Bearer {exports['RAY_AUTH_TOKEN']}")
    with urllib.request.urlopen(ask, timeout=WAIT) as answer:
        assert answer.status == 200
    assert Path(LocalCluster(name).folder).stat().st_mode & 0o077 == 0


def test_a_command_that_fails_says_so(name):
    command = [sys.executable, "-m", "cluster.local", "--name", name]
    assert subprocess.run([*command, "exec", "head", "--", "sh", "-c", "exit 7"], cwd=ROOT).returncode == 7
    done = subprocess.run([*command, "kill", "host9"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == "no host 'host9'; the hosts are head, host1, storage\n"
    done = subprocess.run([*command, "up"], cwd=ROOT, capture_output=True, text=True)
    assert "is up already" in done.stderr
