"""HTTP server of the page on which one paints.

    GET  /          the page, its script and style
    GET  /about     what the page must know of the run
    POST /edit      an `Edit`; answered with lines of JSON: {"share", "image"} while it is done, then the results
    POST /sample    a `Sample`; answered with random images of the run
    POST /walk      a `Walk`; answered with its images and latents
    POST /picture   a file with a picture; answered with the picture in the run's size

It keeps nothing of those who paint. Edits are done one after the other, since each uses all cores. One whose page has
gone ends at the next line that cannot be sent.
"""

import json
import threading
import time
from collections.abc import Callable
from importlib.resources import files
from typing import Any

from ganrun.errors import UserError
from ganrun.inference.paint.edits import Decode, Edit, Painter, Sample, Walk, log_line, parsed, png_of, png_of_drawing
from ganrun.inference.paint.painters import LatentPainter
from ganrun.telemetry.http_server import HEADERS, BoundedHandler, BoundedServer, RefusedError
from ganrun.telemetry.protocol import Address

PAGE = {
    "/": ("paint.html", "text/html"),
    "/paint.css": ("paint.css", "text/css"),
    **{f"/{name}.js": (f"{name}.js", "text/javascript") for name in ("paint", "pad", "server", "palette", "walk")},
}
EDIT_BYTES, PICTURE_BYTES = 12 * 2**20, 32 * 2**20
"""Size limits of an edit and of a picture."""
LINE_SECONDS = 0.15
"""Time between two lines of progress."""
CONNECTION_SECONDS = 180.0
"""Longest time of an edit, with the wait for those before it."""


class Server(BoundedServer):
    """HTTP server of one run.

    Args:
        where: address to listen at.
        painter: the run.
        decode: (encoded picture, name for messages) -> drawing in the run's size; raises UserError.
        log: called with a line for each edit that was done; one at a time.
        token: bearer token that everything but the page itself needs; empty if none is needed.
    """

    connection_seconds = CONNECTION_SECONDS

    def __init__(
        self,
        where: Address,
        painter: Painter,
        decode: Decode,
        log: Callable[[str], object],
        token: str,
    ) -> None:
        self.painter, self.decode, self.log = painter, decode, log
        self.turn = threading.Lock()
        folder = files("ganrun.inference.paint").joinpath("page")
        self.page = {path: (folder.joinpath(name).read_bytes(), kind) for path, (name, kind) in PAGE.items()}
        of_sidecar = files("ganrun.telemetry.sidecar").joinpath("page", "page.css")
        self.page["/page.css"] = of_sidecar.read_bytes(), "text/css"
        super().__init__(where, Handler, token)


class Handler(BoundedHandler):
    """Handler of one request."""

    server: Server
    timeout = CONNECTION_SECONDS
    headers_sent = HEADERS | {
        "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'"
    }
    token_is_wrong = "open the whole address that ganrun paint printed: it ends with a token"

    def do_GET(self) -> None:
        """Serve the page, and what it must know of the run."""
        if self.path in self.server.page:
            self.answer(200, *self.server.page[self.path])
        elif self.path == "/about":
            self.change(0, lambda body: self.answer_json(200, self._about()))
        else:
            self.answer_json(404, {"error": "see /"})

    def _about(self) -> dict[str, Any]:
        return self.server.painter.about() | {"picture_bytes": PICTURE_BYTES}

    def do_POST(self) -> None:
        """Do an edit or a walk, or take a picture."""
        takes: dict[str, tuple[int, Callable[[bytes], None]]] = {
            "/edit": (EDIT_BYTES, self._edit),
            "/sample": (EDIT_BYTES, self._sample),
            "/walk": (EDIT_BYTES, self._walk),
            "/picture": (PICTURE_BYTES, self._picture),
        }
        limit, take = takes.get(self.path, (0, self._unknown))
        self.change(limit, lambda body: self._named(take, body))

    def _named(self, take: Callable[[bytes], None], body: bytes) -> None:
        """Do what is asked for, and refuse it in one line if it cannot be done."""
        try:
            take(body)
        except UserError as error:
            raise RefusedError(400, str(error)) from error

    def _unknown(self, body: bytes) -> None:
        raise RefusedError(404, "POST goes to /edit, /sample, /walk or /picture")

    def _edit(self, body: bytes) -> None:
        self.check_is_json()
        edit = parsed(Edit, body)
        drawing = self.server.decode(png_of(edit), "drawing")
        self.send_response(200)
        self.send_header("Content-Type", "application/x-ndjson")
        for name, value in self.headers_sent.items():
            self.send_header(name, value)
        self.end_headers()
        sent = time.monotonic()

        def watch(share: float, image: Callable[[], str]) -> bool:
            nonlocal sent
            if time.monotonic() - sent > LINE_SECONDS:
                self._line({"share": round(share, 3), "image": image()})  # Raises if the page has gone.
                sent = time.monotonic()
            return True

        while not self.server.turn.acquire(timeout=LINE_SECONDS):
            self._line({"waits": True})
        try:
            result = self.server.painter.answer(edit, drawing, watch)
            self.server.log(log_line(edit, result))
        except UserError as error:  # The status is sent already.
            result = {"error": str(error)}
        finally:
            self.server.turn.release()
        self._line(result)

    def _line(self, value: dict[str, Any]) -> None:
        self.wfile.write(json.dumps(value).encode() + b"\n")

    def _sample(self, body: bytes) -> None:
        self._answer_latents(lambda painter: painter.sample(parsed(Sample, body)))

    def _walk(self, body: bytes) -> None:
        self._answer_latents(lambda painter: painter.walk(parsed(Walk, body)))

    def _answer_latents(self, ask: Callable[[LatentPainter], dict[str, Any]]) -> None:
        self.check_is_json()
        painter = self.server.painter
        if not isinstance(painter, LatentPainter):
            raise RefusedError(404, "this run translates pictures; it has no latents")
        with self.server.turn:
            answer = ask(painter)
        self.answer_json(200, answer)

    def _picture(self, body: bytes) -> None:
        if self.headers.get_content_type() != "application/octet-stream":
            raise RefusedError(415, "Content-Type: application/octet-stream")
        self.answer_json(200, {"picture": png_of_drawing(self.server.decode(body, "picture"))})
