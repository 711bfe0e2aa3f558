"""A run as it is, with real Ray and a real bucket: what listens, and what it lets be seen of its secrets."""

import contextlib
import os
import shutil
import signal
import tempfile
from pathlib import Path

import psutil
import pytest

from ganrun.storage import open_storage
from tests.cli.test_commands_s3 import put
from tests.commands import Train
from tests.conftest import data_folder, write_yaml  # noqa: F401
from tests.s3 import CREDENTIALS

SECRETS = {"GANRUN_SIDECAR_TOKEN": "marked-token-of-the-sidecar", "MARKED_PASSWORD": "marked-password-of-the-user"}
MARKS = [CREDENTIALS["AWS_SECRET_ACCESS_KEY"], *SECRETS.values()]


def listening(process: psutil.Process) -> set[tuple[str, str]]:
    """(program, address) of all that the process and its children wait for connections at."""
    found = set()
    for each in [process, *process.children(recursive=True)]:
        try:
            sockets = each.net_connections("inet")
            name = " ".join(each.cmdline())[:60]
        except psutil.Error:
            continue
        found |= {(name, socket.laddr.ip) for socket in sockets if socket.status == psutil.CONN_LISTEN}
    return found


@pytest.fixture
def ray_folder():
    """Where Ray keeps its logs; short, since its sockets are there too."""
    folder = Path(tempfile.mkdtemp(prefix="gr-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder)


def test_a_run_listens_on_loopback_alone_and_keeps_its_secrets(values, data_folder, s3, tmp_path, ray_folder):  # noqa: F811
    values["data"]["shards"] = put(data_folder, f"{s3}/data")
    values["run"]["storage"] = f"{s3}/runs"
    values["cluster"] = {"workers": 2}
    values["train"] |= {"total_images": 1_000_000, "tick_images": 60}
    yaml = write_yaml(tmp_path / "small.yaml", values)
    environment = SECRETS | {"RAY_TMPDIR": str(ray_folder), "HOME": str(tmp_path)}
    command = Train(yaml, env=environment)
    try:
        command.wait_for_images(120)
        found = listening(psutil.Process(command.process.pid))
        command.process.terminate()
        code, output, error = command.wait()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(command.process.pid, signal.SIGKILL)
    assert code == 130, error
    assert {"ray::RayTrainWorker", "ray::DashboardAgent"} <= {name.strip() for name, _ in found}
    assert {(name, ip) for name, ip in found if ip not in ("127.0.0.1", "::ffff:127.0.0.1", "::1")} == set()
    assert not [mark for mark in MARKS if mark in output + error]
    storage = open_storage(f"{s3}/runs/small")
    files = [*ray_folder.rglob("*"), *tmp_path.rglob("*")]
    seen = {str(path): path.read_bytes() for path in files if path.is_file() and not path.is_symlink()}
    seen |= {name: storage.read(name) for name in storage.objects()}
    assert any("logs" in name for name in seen)
    assert [name for name, data in seen.items() if any(mark.encode() in data for mark in MARKS)] == []
