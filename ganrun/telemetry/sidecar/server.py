"""The sidecar's HTTP: a thread and one request a connection, few of them at once, each over soon."""

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
from ganrun.telemetry.protocol import PART_BYTES, PARTS, PUSH, SERVICE, STATE_BYTES, Address
from ganrun.telemetry.run_report import PROTOCOL_VERSION, to_json
from ganrun.telemetry.series import SERIES
from ganrun.telemetry.sidecar.exposition import Exposition
from ganrun.telemetry.sidecar.health import summary
from ganrun.telemetry.sidecar.runs import RefusedError, Runs

CONNECTIONS, IDLE_SECONDS, CONNECTION_SECONDS = 32, 5.0, 15.0
"""At once; without a byte; in all, however slowly the other side trickles."""
GOODBYE_SECONDS = 15.0
"""So long an ending sidecar waits to tell drivers that it ends, so that none starts it again."""
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
    """Listens at an address.

    Args:
        where: to listen.
        runs: that it shows.
        token: that pushes must carry; empty: none.
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
        """Without the look-up of our own name in the DNS that http.server makes."""
        socket.socket.setsockopt(self.socket, socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()

    @property
    def port(self) -> int:
        """Where it listens, also if any port was asked for."""
        return int(self.server_address[1])

    def process_request(self, request: Any, client_address: Any) -> None:
        """A thread of its own, unless there are too many."""
        if len(self._open) >= CONNECTIONS:
            self.shutdown_request(request)
            return
        self._open[request] = time.monotonic()
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Also forgets it."""
        self._open.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """Called twice a second: cuts off who takes too long."""
        now = time.monotonic()
        for request, begun in list(self._open.items()):
            if now - begun > CONNECTION_SECONDS:
                with contextlib.suppress(OSError):
                    request.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that left, or was cut off, is nobody's fault."""

    def end(self) -> None:
        """Tells the drivers that push that it ends, and ends."""
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
    """One request."""

    server: Server
    timeout = IDLE_SECONDS
    server_version, sys_version = "ganrun", ""

    def do_GET(self) -> None:
        """Pages and what they read; /metrics; /healthz."""
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
        """The same without its body."""
        self.do_GET()

    def do_POST(self) -> None:
        """The state of a run."""
        self._change(STATE_BYTES, self._take_state)

    def do_PUT(self) -> None:
        """A part of a run's state."""
        self._change(PART_BYTES, self._take_part)

    def do_DELETE(self) -> None:
        """Ends the sidecar."""
        self._change(0, self._end)

    def _take_state(self, body: bytes) -> None:
        # Of another kind, a page of another site could have a browser send it.
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
            raise RefusedError(403, "from this machine alone")
        self._answer_json(200, {"pid": os.getpid()})
        self.server.end()

    def _change(self, limit: int, change: Callable[[bytes], None]) -> None:
        """Does what needs the token with a body of so many bytes at most; a refusal says why."""
        try:
            body = self._body(limit)  # First: who is still sending does not hear the answer.
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
            raise RefusedError(413, f"Content-Length: {text[:20]}, at most {limit:,} are taken")
        body = self.rfile.read(length)
        if len(body) < length:
            raise RefusedError(400, "cut off")
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
        """Nobody reads it."""


def _page_file(name: str) -> bytes:
    return files("ganrun.telemetry.sidecar").joinpath("page", name).read_bytes()


def _constants() -> bytes:
    """Return what page.js imports: version of the reports, and by name how the keys of charted metrics begin."""
    charted = {series.key: series.prefix for series in SERIES if series.charted}
    return f"export const VERSION = {PROTOCOL_VERSION};\nexport const CHARTED = {json.dumps(charted)};\n".encode()


def _fields(query: str, *names: str) -> list[str]:
    found = parse_qs(query, max_num_fields=20, keep_blank_values=True)
    return [found.get(name, [""])[0] for name in names]
