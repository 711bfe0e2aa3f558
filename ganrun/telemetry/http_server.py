"""HTTP servers of ganrun: one thread and one request per connection, with limits on number and duration."""

import contextlib
import hmac
import socket
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from ganrun.telemetry.protocol import Address
from ganrun.telemetry.run_report import to_json

CONNECTIONS, IDLE_SECONDS, CONNECTION_SECONDS = 32, 5.0, 15.0
"""Limits: simultaneous connections; seconds without a byte; seconds of a whole connection."""
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


class RefusedError(Exception):
    """A request is refused, with an HTTP status and a reason."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class BoundedServer(ThreadingHTTPServer):
    """HTTP server with limits.

    Args:
        where: address to listen at.
        handler: of one request.
        token: bearer token that requests with effects must carry; empty if none is needed.
    """

    daemon_threads = True
    request_queue_size = 64
    connection_seconds = CONNECTION_SECONDS

    def __init__(self, where: Address, handler: "type[BoundedHandler]", token: str) -> None:
        self.token = token
        self._open: dict[socket.socket, float] = {}
        self.address_family = socket.AF_INET6 if ":" in where.host else socket.AF_INET
        super().__init__(where, handler)

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
        """Cut off connections older than `connection_seconds`. Called twice a second."""
        now = time.monotonic()
        for request, begun in list(self._open.items()):
            if now - begun > self.connection_seconds:
                with contextlib.suppress(OSError):
                    request.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore errors of connections that the client closed or that were cut off."""


class BoundedHandler(BaseHTTPRequestHandler):
    """Handler of one request, with limits."""

    server: BoundedServer
    timeout = IDLE_SECONDS
    server_version, sys_version = "ganrun", ""
    headers_sent = HEADERS
    token_is_wrong = "the token is not that of this server"

    def change(self, limit: int, change: Callable[[bytes], None]) -> None:
        """Check the token and call `change` with the body, at most `limit` bytes. Answer a refusal with its reason."""
        try:
            body = self._body(limit)  # First: a client that is still sending does not read the answer.
            bearer = f"Bearer {self.server.token}".encode()
            given = self.headers.get("Authorization", "").encode()
            if self.server.token and not hmac.compare_digest(given, bearer):
                raise RefusedError(401, self.token_is_wrong)
            change(body)
        except RefusedError as refused:
            self.answer_json(refused.status, {"error": str(refused)})

    def check_is_json(self) -> None:
        """Refuse another content type: a page of another site could make a browser send it."""
        if self.headers.get_content_type() != "application/json":
            raise RefusedError(415, "Content-Type: application/json")

    def _body(self, limit: int) -> bytes:
        text = self.headers.get("Content-Length", "0")
        length = int(text) if text.isdecimal() and len(text) < 20 else limit + 1
        if length > limit:
            raise RefusedError(413, f"Content-Length: {text[:20]}, at most {limit:,} are accepted")
        body = self.rfile.read(length)
        if len(body) < length:
            raise RefusedError(400, "the body is shorter than Content-Length")
        return body

    def answer_json(self, status: int, value: Any) -> None:
        """Answer with a value as JSON."""
        self.answer(status, to_json(value), "application/json")

    def answer(self, status: int, body: bytes, kind: str) -> None:
        """Answer with a body of a content type."""
        self.send_response(status)
        text = kind.startswith("text/") and "charset" not in kind
        self.send_header("Content-Type", f"{kind}; charset=utf-8" if text else kind)
        self.send_header("Content-Length", str(len(body)))
        for name, value in self.headers_sent.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Write no log."""
