"""A real S3 server, SeaweedFS, on the loopback address with its own ports and credentials."""

import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.waiting import WAIT

BUCKET = "ganrun-test"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "GANRUNTESTKEY", "AWS_SECRET_ACCESS_KEY": "marked-secret-of-the-tests"}
UNSET = ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3", "AWS_DEFAULT_REGION")
GRPC = 10_000
"""Offset of the gRPC port that SeaweedFS opens beside each port."""


class Server:
    """SeaweedFS with one bucket. Data survives `kill` and `start`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ports = dict(zip(("s3", "master", "volume", "filer", "admin"), _free_ports(5), strict=True))
        self.process: subprocess.Popen[bytes] | None = None
        self.url = f"http://127.0.0.1:{self.ports['s3']}"
        self.environment = {**CREDENTIALS, "AWS_ENDPOINT_URL": self.url, "AWS_REGION": "us-east-1"}

    def start(self, ready_seconds: float = WAIT) -> None:
        """Start the server, and wait until an object can be written and read."""
        self.folder.mkdir(exist_ok=True)
        program = shutil.which("weed", path=str(Path(sys.executable).parent)) or "weed"
        options = [
            f"-dir={self.folder}",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            "-master.telemetry=false",
            "-webdav=false",
            "-admin.ui=false",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            "-s3.autoCreateBucket=false",
            f"-bucket={BUCKET}",
            *(f"-{name}.port={port}" for name, port in self.ports.items()),
            "-s3.iam.readOnly=false",
            f"-s3.port.grpc={self.ports['s3'] + GRPC}",
        ]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [program, "mini", *options], env=os.environ | CREDENTIALS, stdout=log, stderr=log
            )
        deadline = time.monotonic() + ready_seconds
        while not self._is_ready():
            assert self.process.poll() is None, (self.folder / "log").read_text()[-2000:]
            assert time.monotonic() < deadline, (self.folder / "log").read_text()[-2000:]
            time.sleep(0.2)

    def kill(self) -> None:
        """SIGKILL the server, as if its machine lost power."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def client(self, service: str = "s3", **credentials: str) -> Any:
        """Return a botocore client without retries, by default with the rights of the administrator."""
        from botocore.config import Config
        from botocore.session import Session

        credentials = {name.lower(): value for name, value in (CREDENTIALS | credentials).items()}
        config = Config(retries={"total_max_attempts": 1}, connect_timeout=60, read_timeout=60)
        return Session().create_client(service, "us-east-1", endpoint_url=self.url, config=config, **credentials)

    def user(self, policy: dict[str, Any]) -> dict[str, str]:
        """Create a user with this policy. Return its credentials as AWS variables."""
        from botocore.exceptions import ClientError

        iam, name = self.client("iam"), f"user-{time.monotonic_ns()}"
        iam.create_user(UserName=name)
        iam.put_user_policy(UserName=name, PolicyName="policy", PolicyDocument=json.dumps(policy))
        key = iam.create_access_key(UserName=name)["AccessKey"]
        credentials = {"AWS_ACCESS_KEY_ID": key["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"]}
        while True:  # Until the server knows the user.
            try:
                self.client(**credentials).get_object(Bucket=BUCKET, Key="ready")
            except ClientError as error:
                if error.response["Error"]["Code"] == "InvalidAccessKeyId":
                    time.sleep(0.05)
                    continue
            return credentials

    def _is_ready(self) -> bool:
        from botocore.exceptions import BotoCoreError, ClientError

        client = self.client()
        with contextlib.suppress(BotoCoreError, ClientError):
            client.put_object(Bucket=BUCKET, Key="ready", Body=b"yes")
            return bool(client.get_object(Bucket=BUCKET, Key="ready")["Body"].read() == b"yes")
        return False


def _free_ports(count: int) -> list[int]:
    """Return free ports below the ephemeral range; port + 10,000 is free too, for gRPC."""
    found: list[int] = []
    while len(found) < count:
        port = random.SystemRandom().randrange(11_000, 22_000)  # Hypothesis seeds `random`, alike in all processes.
        with contextlib.suppress(OSError), contextlib.ExitStack() as sockets:
            for each in (port, port + GRPC):
                sockets.enter_context(socket.socket()).bind(("127.0.0.1", each))
            found.append(port)
    return found


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory):
    """Server that all tests share."""
    server = Server(tmp_path_factory.mktemp("s3") / "data")
    try:
        server.start()
    except AssertionError:  # Another process has taken one of its ports meanwhile.
        server = Server(tmp_path_factory.mktemp("s3") / "data")
        server.start()
    try:
        yield server
    finally:
        server.kill()


@pytest.fixture
def s3(s3_server: Server, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """URI of a prefix for this test only. The environment has the endpoint and credentials."""
    for name in UNSET:
        monkeypatch.delenv(name, raising=False)
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    return f"s3://{BUCKET}/{request.node.name.replace('[', '-').replace(']', '')}-{time.monotonic_ns()}"
