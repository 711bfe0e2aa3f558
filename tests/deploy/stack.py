"""Real Prometheus and Alertmanager on the loopback address, with the files of deploy/; what they scrape and tell."""

import contextlib
import json
import queue
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.waiting import WAIT

ROOT = Path(__file__).parent.parent.parent
DEPLOY = ROOT / "deploy"
RECORDED = Path(__file__).with_name("recorded.txt")
"""What a sidecar and two nodes of Ray answer while two runs and a search of three trials go on."""
TOKEN = "marked-token-of-the-tests"


def needs(*programs: str) -> pytest.MarkDecorator:
    """Skips without these programs, which Debian's packages prometheus and prometheus-alertmanager bring."""
    missing = [program for program in programs if not shutil.which(program)]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


class Exporter:
    """Answers /metrics as a sidecar does: a recorded exposition whose counters rise with every scrape.

    Args:
        text: the exposition.
    """

    def __init__(self, text: str) -> None:
        self.text, self.scrapes = text, 0

    def answer(self, path: str, headers: Any, body: bytes) -> bytes:
        self.scrapes += 1
        rise = self.scrapes
        return re.sub(
            r"^(ganrun_\w+_total(?:{.*})?) (\S+)$",
            lambda line: f"{line[1]} {float(line[2]) + rise}",
            self.text,
            flags=re.M,
        ).encode()


class Webhook:
    """Keeps what Alertmanager tells it: pairs of the Authorization header and the body."""

    def __init__(self) -> None:
        self.told: queue.Queue[tuple[str, dict[str, Any]]] = queue.Queue()

    def answer(self, path: str, headers: Any, body: bytes) -> bytes:
        self.told.put((headers["Authorization"], json.loads(body)))
        return b""


@contextlib.contextmanager
def serving(service: Exporter | Webhook) -> Iterator[str]:
    """Its address, HOST:PORT."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            answer = service.answer(self.path, self.headers, body)
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write(answer)

        do_POST = do_GET

        def log_message(self, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@contextlib.contextmanager
def prometheus(
    folder: Path, *targets: str, alertmanager: str = "127.0.0.1:9", config: dict[str, Any] | None = None
) -> Iterator[str]:
    """Prometheus with deploy's files, scraping these addresses every half second; its URL.

    Args:
        folder: not there yet.
        targets: take the sidecar's place.
        alertmanager: its address.
        config: in place of deploy's prometheus.yml.
    """
    shutil.copytree(DEPLOY / "prometheus", folder)
    config = config or yaml.safe_load((folder / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "500ms", "scrape_timeout": "500ms", "evaluation_interval": "500ms"}
    config["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"] = [alertmanager]
    if targets:
        (job,) = (job for job in config["scrape_configs"] if job["job_name"] == "ganrun")
        job["static_configs"][0]["targets"] = list(targets)
        config["scrape_configs"] = [job]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    address = f"127.0.0.1:{free_port()}"
    options = [f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
    with running(["prometheus", *options, f"--web.listen-address={address}"], folder / "log", address):
        yield f"http://{address}"


@contextlib.contextmanager
def alertmanager(folder: Path, webhook: str) -> Iterator[str]:
    """Alertmanager with deploy's file, which tells this webhook; its address."""
    shutil.copytree(DEPLOY / "alertmanager", folder)
    text = (folder / "alertmanager.yml").read_text()
    text = text.replace("localhost:9095", webhook).replace("group_wait: 10s", "group_wait: 1s")
    (folder / "alertmanager.yml").write_text(text)
    (folder / "webhook_token").write_text(TOKEN)
    address = f"127.0.0.1:{free_port()}"
    options = [f"--config.file={folder}/alertmanager.yml", f"--storage.path={folder}/data", "--cluster.listen-address="]
    with running(["prometheus-alertmanager", *options, f"--web.listen-address={address}"], folder / "log", address):
        yield address


@contextlib.contextmanager
def running(command: list[str], log: Path, address: str) -> Iterator[None]:
    """The program, from when it is ready until the end of the block."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        wait_until(lambda: answers(f"http://{address}/-/ready"), lambda: log.read_text()[-2000:])
        yield
    finally:
        process.kill()
        process.wait()


def sidecar(port: int) -> subprocess.Popen[bytes]:
    """A sidecar at this port of the loopback address."""
    return subprocess.Popen([sys.executable, "-m", "ganrun.sidecar", "--listen", f"127.0.0.1:{port}"])


def answers(url: str) -> bool:
    """Whether it does, with 200."""
    with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=60) as response:
        return bool(response.status == 200)
    return False


def wait_until(is_so: Any, why_not: Any, seconds: float = WAIT) -> None:
    """Fails with `why_not()` if it does not become so."""
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, why_not()
        time.sleep(0.2)


def ask(url: str, path: str, **parameters: str) -> Any:
    """What Prometheus's API says under /api/v1/."""
    address = f"{url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
    try:
        with urllib.request.urlopen(address, timeout=WAIT) as response:
            return json.load(response)["data"]
    except urllib.error.HTTPError as error:
        raise AssertionError(f"{parameters}: {error.read().decode()}") from error


def free_port() -> int:
    """Of the loopback address."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])
