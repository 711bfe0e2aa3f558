"""A real S3 server, SeaweedFS, on the loopback address and ports of its own; and what to say to it."""

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
"""So far above a port SeaweedFS takes a second one."""


class Server:
    """SeaweedFS with one bucket. Data outlives `kill` and `start`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ports = dict(zip(("s3", "master", "volume", "filer", "admin"), _free_ports(5), strict=True))
        self.process: subprocess.Popen[bytes] | None = None
        self.url = f"http://127.0.0.1:{self.ports['s3']}"
        self.environment = {**CREDENTIALS, "AWS_ENDPOINT_URL": self.url, "AWS_REGION": "us-east-1"}

    def start(self, ready_seconds: float = WAIT) -> None:
        """Starts it; ready means that it takes an object and gives it back."""
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
        """SIGKILL, as a machine that loses power."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def client(self, service: str = "s3", **credentials: str) -> Any:
        """botocore's own client, of the administrator unless told otherwise; it asks once."""
        from botocore.config import Config
        from botocore.session import Session

        credentials = {name.lower(): value for name, value in (CREDENTIALS | credentials).items()}
        config = Config(retries={"total_max_attempts": 1}, connect_timeout=60, read_timeout=60)
        return Session().create_client(service, "us-east-1", endpoint_url=self.url, config=config, **credentials)

    def user(self, policy: dict[str, Any]) -> dict[str, str]:
        """Credentials, as AWS variables, of a new user with this policy alone."""
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
    """Ports that are free, and so are those 10,000 above; below those that the system deals out."""
    found: list[int] = []
    while len(found) < count:
        port = random.randrange(11_000, 22_000)
        with contextlib.suppress(OSError), contextlib.ExitStack() as sockets:
            for each in (port, port + GRPC):
                sockets.enter_context(socket.socket()).bind(("127.0.0.1", each))
            found.append(port)
    return found


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory):
    """The server that tests share."""
    server = Server(tmp_path_factory.mktemp("s3") / "data")
    server.start()
    try:
        yield server
    finally:
        server.kill()


@pytest.fixture
def s3(s3_server: Server, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """A prefix of this test alone; the environment names server and credentials."""
    for name in UNSET:
        monkeypatch.delenv(name, raising=False)
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    return f"s3://{BUCKET}/{request.node.name.replace('[', '-').replace(']', '')}-{time.monotonic_ns()}"
