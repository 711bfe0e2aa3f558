"""HTTP proxy in front of a real S3 server that injects faults into requests."""

import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPResponse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.waiting import WAIT

REFUSALS = {500: "InternalError", 503: "SlowDown", 403: "AccessDenied"}


@dataclass
class Fault:
    """Fault of the next `times` requests whose "METHOD /path?query" matches `pattern`.

    Attributes:
        kind: an HTTP status to answer; `reset`: reset the connection; `lost`: forward the request, then reset;
            `cut`: send half of the answer; `garbled`: send invalid XML; `slow`: send `slow_bytes` bytes every 0.05 s;
            `hang`: never answer.
    """

    kind: str | int
    pattern: str = ""
    times: int = 1
    slow_bytes: int = 100


class Proxy:
    """Proxy on a port of its own. `seen` lists all requests."""

    def __init__(self, port: int) -> None:
        self.server_port = port
        self.faults: list[Fault] = []
        self.seen: list[str] = []
        self.on_request: Callable[[str], None] = lambda request: None
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"proxy": self}))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def next_fault(self, request: str) -> Fault | None:
        self.on_request(request)
        with self._lock:
            self.seen.append(request)
            for fault in self.faults:
                if fault.times > 0 and re.search(fault.pattern, request):
                    fault.times -= 1
                    return fault
        return None

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def proxied(port: int) -> Iterator[Proxy]:
    proxy = Proxy(port)
    try:
        yield proxy
    finally:
        proxy.close()


class _Handler(BaseHTTPRequestHandler):
    proxy: Proxy
    protocol_version = "HTTP/1.1"

    def handle_one_request(self) -> None:
        self.raw_requestline = self.rfile.readline(65_537)
        if not self.raw_requestline or not self.parse_request():
            self.close_connection = True
            return
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        fault = self.proxy.next_fault(f"{self.command} {self.path}")
        if fault and fault.kind == "hang":
            time.sleep(3600)
        if fault and fault.kind == "reset":
            self._reset()
            return
        if fault and isinstance(fault.kind, int):
            code = REFUSALS[fault.kind]
            content = f"<Error><Code>{code}</Code><Message>by the proxy</Message></Error>".encode()
            self._answer(fault.kind, [("Content-Length", str(len(content)))], content)
            return
        connection = HTTPConnection("127.0.0.1", self.proxy.server_port, timeout=WAIT)
        connection.request(self.command, self.path, body, dict(self.headers.items()))
        self._pass_on(connection.getresponse(), fault)
        connection.close()

    def _pass_on(self, response: HTTPResponse, fault: Fault | None) -> None:
        content = response.read()
        headers = [pair for pair in response.getheaders() if pair[0].lower() not in ("transfer-encoding", "connection")]
        if self.command != "HEAD" and not any(name.lower() == "content-length" for name, _ in headers):
            headers.append(("Content-Length", str(len(content))))
        match fault.kind if fault else None:
            case "lost":
                self._reset()
            case "cut":
                self._answer(response.status, headers, content[: len(content) // 2])
                self._reset()
            case "garbled":
                self._answer(response.status, headers, content.replace(b"<", b"*"))
            case "slow":
                self._answer(response.status, headers, b"")
                for start in range(0, len(content), fault.slow_bytes):
                    self.wfile.write(content[start : start + fault.slow_bytes])
                    time.sleep(0.05)
            case _:
                self._answer(response.status, headers, content)

    def _answer(self, status: int, headers: list[tuple[str, str]], content: bytes) -> None:
        self.log_request = lambda *_: None
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)
        self.wfile.flush()

    def _reset(self) -> None:
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
