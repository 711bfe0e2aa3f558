"""HTTP server of the sidecar: one thread and one request per connection, with limits on number and duration."""

import contextlib
import hmac
import ipaddress
import json
import os
import socket
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any
from urllib.parse import parse_qs, urlsplit

from prometheus_client import CONTENT_TYPE_LATEST

import ganrun
from ganrun.config.score_names import OF_GAMES, PAIRED
from ganrun.telemetry.baselines import AT
from ganrun.telemetry.protocol import PART_BYTES, PARTS, PUSH, SERVICE, STATE_BYTES, Address
from ganrun.telemetry.run_report import PROTOCOL_VERSION, to_json
from ganrun.telemetry.series import SERIES
from ganrun.telemetry.sidecar.exposition import Exposition
from ganrun.telemetry.sidecar.health import summary
from ganrun.telemetry.sidecar.runs import RefusedError, Runs

CONNECTIONS, IDLE_SECONDS, CONNECTION_SECONDS = 32, 5.0, 15.0
"""Limits: simultaneous connections; seconds without a byte; seconds of a whole connection."""
GOODBYE_SECONDS = 15.0
"""Longest wait of an ending sidecar for the next push of each run, which it answers with 410 so that no driver
restarts it."""
PAGE = {
    "/": ("page.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
    "/chart.js": ("chart.js", "text/javascript"),
}
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


class Server(ThreadingHTTPServer):
    """HTTP server of the sidecar.

    Args:
        where: address to listen at.
        runs: runs to show.
        token: bearer token that requests with effects must carry; empty if none is needed.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, where: Address, runs: Runs, token: str) -> None:
        self.runs, self.exposition, self.token = runs, Exposition(runs), token
        self.ending = threading.Event()
        self.page = {path: (_page_file(name), kind) for path, (name, kind) in PAGE.items()}
        self.page["/constants.js"] = _constants(), "text/javascript"
        self._open: dict[socket.socket, float] = {}
        self.address_family = socket.AF_INET6 if ":" in where.host else socket.AF_INET
        super().__init__(where, Handler)

    def server_bind(self) -> None:
        """Bind the socket, without the DNS look-up of the host's name that http.server does."""
        socket.socket.setsockopt(self.socket, socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()

    @property
    def port(self) -> int:
        """Port of the server, also if 0 (any) was requested."""
        return int(self.server_address[1])

    def process_request(self, request: Any, client_address: Any) -> None:
        """Handle a connection in a thread of its own; close it if there are CONNECTIONS already."""
        if len(self._open) >= CONNECTIONS:
            self.shutdown_request(request)
            return
        self._open[request] = time.monotonic()
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Close a connection."""
        self._open.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """Cut off connections older than CONNECTION_SECONDS. Called twice a second."""
        now = time.monotonic()
        for request, begun in list(self._open.items()):
            if now - begun > CONNECTION_SECONDS:
                with contextlib.suppress(OSError):
                    request.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore errors of connections that the client closed or that were cut off."""

    def end(self) -> None:
        """Tell the drivers that push, and end the server."""
        self.ending.set()
        threading.Thread(target=self._say_goodbye, daemon=True).start()

    def _say_goodbye(self) -> None:
        deadline = time.monotonic() + GOODBYE_SECONDS
        while time.monotonic() < deadline and self._running():
            time.sleep(0.1)
        self.shutdown()

    def _running(self) -> bool:
        return any(run.state(self.runs.clock()) == "running" for run in self.runs.known())


class Handler(BaseHTTPRequestHandler):
    """Handler of one request."""

    server: Server
    timeout = IDLE_SECONDS
    server_version, sys_version = "ganrun", ""

    def do_GET(self) -> None:
        """Serve the page and its data, /metrics and /healthz."""
        url = urlsplit(self.path)
        if url.path in self.server.page:
            self._answer(200, *self.server.page[url.path])
        elif url.path == "/metrics":
            self._answer(200, self.server.exposition.text(), CONTENT_TYPE_LATEST)
        elif url.path == "/healthz":
            about = {"service": SERVICE, "ganrun": ganrun.__version__, "push": [PUSH], "pid": os.getpid()}
            self._answer_json(200, about | {"ending": self.server.ending.is_set()})
        elif url.path == "/runs":
            now = self.server.runs.clock()
            runs = [summary(run, now) for run in self.server.runs.known()]
            self._answer_json(200, {"version": PROTOCOL_VERSION, "runs": runs})
        elif url.path == "/part":
            name, trial, part = _fields(url.query, "run", "trial", "part")
            found = self.server.runs.part(name, trial, part)
            if found is None:
                self._answer_json(404, {"error": "no such part"})
            else:
                self._answer(200, found[1], PARTS[part])
        else:
            self._answer_json(404, {"error": "see /, /runs, /metrics and /healthz"})

    def do_HEAD(self) -> None:
        """Answer as GET does, without the body."""
        self.do_GET()

    def do_POST(self) -> None:
        """Accept a report on a run."""
        self._change(STATE_BYTES, self._take_state)

    def do_PUT(self) -> None:
        """Accept a part of a run's state."""
        self._change(PART_BYTES, self._take_part)

    def do_DELETE(self) -> None:
        """End the sidecar."""
        self._change(0, self._end)

    def _take_state(self, body: bytes) -> None:
        # With another content type, a page of another site could make a browser send it.
        if self.headers.get_content_type() != "application/json":
            raise RefusedError(415, "Content-Type: application/json")
        if self.path != PUSH:
            raise RefusedError(
                404, f"this sidecar takes {PUSH} and not {self.path[:50]}: let both be of the same ganrun"
            )
        ending = self.server.ending.is_set()
        wanted = self.server.runs.push(body, last=ending)
        if ending:
            raise RefusedError(410, "the sidecar ends")
        self._answer_json(200, {"want": wanted})

    def _take_part(self, body: bytes) -> None:
        url = urlsplit(self.path)
        if url.path != f"{PUSH}/part":
            raise RefusedError(404, f"parts go to {PUSH}/part")
        run, trial, part, digest = _fields(url.query, "run", "trial", "part", "digest")
        self.server.runs.put_part(run, trial, part, digest, body)
        self._answer(204, b"", "text/plain")

    def _end(self, _: bytes) -> None:
        if not self.server.token and not ipaddress.ip_address(self.client_address[0]).is_loopback:
            raise RefusedError(403, "allowed from this machine only, unless GANRUN_SIDECAR_TOKEN is set")
        self._answer_json(200, {"pid": os.getpid()})
        self.server.end()

    def _change(self, limit: int, change: Callable[[bytes], None]) -> None:
        """Check the token and call `change` with the body, at most `limit` bytes. Answer a refusal with its reason."""
        try:
            body = self._body(limit)  # First: a client that is still sending does not read the answer.
            bearer = f"Bearer {self.server.token}".encode()
            given = self.headers.get("Authorization", "").encode()
            if self.server.token and not hmac.compare_digest(given, bearer):
                raise RefusedError(401, "GANRUN_SIDECAR_TOKEN is not the sidecar's: set the same for both")
            change(body)
        except RefusedError as refused:
            self._answer_json(refused.status, {"error": str(refused)})

    def _body(self, limit: int) -> bytes:
        text = self.headers.get("Content-Length", "0")
        length = int(text) if text.isdecimal() and len(text) < 20 else limit + 1
        if length > limit:
            raise RefusedError(413, f"Content-Length: {text[:20]}, at most {limit:,} are accepted")
        body = self.rfile.read(length)
        if len(body) < length:
            raise RefusedError(400, "the body is shorter than Content-Length")
        return body

    def _answer_json(self, status: int, value: Any) -> None:
        self._answer(status, to_json(value), "application/json")

    def _answer(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        text = kind.startswith("text/") and "charset" not in kind
        self.send_header("Content-Type", f"{kind}; charset=utf-8" if text else kind)
        self.send_header("Content-Length", str(len(body)))
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Write no log."""


def _page_file(name: str) -> bytes:
    return files("ganrun.telemetry.sidecar").joinpath("page", name).read_bytes()


def _constants() -> bytes:
    """Return constants.js: version of the reports, prefix of the keys of charted metrics, scores of pairs and games."""
    charted = {series.key: series.prefix for series in SERIES if series.charted}
    constants = {"VERSION": PROTOCOL_VERSION, "CHARTED": charted, "PAIRED": PAIRED, "OF_GAMES": OF_GAMES, "AT": AT}
    return "".join(f"export const {name} = {json.dumps(value)};\n" for name, value in constants.items()).encode()


def _fields(query: str, *names: str) -> list[str]:
    found = parse_qs(query, max_num_fields=20, keep_blank_values=True)
    return [found.get(name, [""])[0] for name in names]
