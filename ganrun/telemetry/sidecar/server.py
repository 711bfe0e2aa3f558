"""HTTP server of the sidecar."""

import ipaddress
import json
import os
import threading
import time
from importlib.resources import files
from urllib.parse import parse_qs, urlsplit

from prometheus_client import CONTENT_TYPE_LATEST

import ganrun
from ganrun.config.score_names import OF_GAMES, PAIRED
from ganrun.telemetry.baselines import AT
from ganrun.telemetry.http_server import BoundedHandler, BoundedServer, RefusedError
from ganrun.telemetry.protocol import PART_BYTES, PARTS, PUSH, SERVICE, STATE_BYTES, Address
from ganrun.telemetry.run_report import PROTOCOL_VERSION
from ganrun.telemetry.series import SERIES
from ganrun.telemetry.sidecar.exposition import Exposition
from ganrun.telemetry.sidecar.health import summary
from ganrun.telemetry.sidecar.runs import Runs

GOODBYE_SECONDS = 15.0
"""Longest wait of an ending sidecar for the next push of each run, which it answers with 410 so that no driver
restarts it."""
PAGE = {
    "/": ("page.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
    "/chart.js": ("chart.js", "text/javascript"),
}


class Server(BoundedServer):
    """HTTP server of the sidecar.

    Args:
        where: address to listen at.
        runs: runs to show.
        token: bearer token that requests with effects must carry; empty if none is needed.
    """

    def __init__(self, where: Address, runs: Runs, token: str) -> None:
        self.runs, self.exposition = runs, Exposition(runs)
        self.ending = threading.Event()
        self.page = {path: (_page_file(name), kind) for path, (name, kind) in PAGE.items()}
        self.page["/constants.js"] = _constants(), "text/javascript"
        super().__init__(where, Handler, token)

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


class Handler(BoundedHandler):
    """Handler of one request."""

    server: Server
    token_is_wrong = "GANRUN_SIDECAR_TOKEN is not the sidecar's: set the same for both"

    def do_GET(self) -> None:
        """Serve the page and its data, /metrics and /healthz."""
        url = urlsplit(self.path)
        if url.path in self.server.page:
            self.answer(200, *self.server.page[url.path])
        elif url.path == "/metrics":
            self.answer(200, self.server.exposition.text(), CONTENT_TYPE_LATEST)
        elif url.path == "/healthz":
            about = {"service": SERVICE, "ganrun": ganrun.__version__, "push": [PUSH], "pid": os.getpid()}
            self.answer_json(200, about | {"ending": self.server.ending.is_set()})
        elif url.path == "/runs":
            now = self.server.runs.clock()
            runs = [summary(run, now) for run in self.server.runs.known()]
            self.answer_json(200, {"version": PROTOCOL_VERSION, "runs": runs})
        elif url.path == "/part":
            name, trial, part = _fields(url.query, "run", "trial", "part")
            found = self.server.runs.part(name, trial, part)
            if found is None:
                self.answer_json(404, {"error": "no such part"})
            else:
                self.answer(200, found[1], PARTS[part])
        else:
            self.answer_json(404, {"error": "see /, /runs, /metrics and /healthz"})

    def do_HEAD(self) -> None:
        """Answer as GET does, without the body."""
        self.do_GET()

    def do_POST(self) -> None:
        """Accept a report on a run."""
        self.change(STATE_BYTES, self._take_state)

    def do_PUT(self) -> None:
        """Accept a part of a run's state."""
        self.change(PART_BYTES, self._take_part)

    def do_DELETE(self) -> None:
        """End the sidecar."""
        self.change(0, self._end)

    def _take_state(self, body: bytes) -> None:
        self.check_is_json()
        if self.path != PUSH:
            raise RefusedError(
                404, f"this sidecar takes {PUSH} and not {self.path[:50]}: let both be of the same ganrun"
            )
        ending = self.server.ending.is_set()
        wanted = self.server.runs.push(body, last=ending)
        if ending:
            raise RefusedError(410, "the sidecar ends")
        self.answer_json(200, {"want": wanted})

    def _take_part(self, body: bytes) -> None:
        url = urlsplit(self.path)
        if url.path != f"{PUSH}/part":
            raise RefusedError(404, f"parts go to {PUSH}/part")
        run, trial, part, digest = _fields(url.query, "run", "trial", "part", "digest")
        self.server.runs.put_part(run, trial, part, digest, body)
        self.answer(204, b"", "text/plain")

    def _end(self, _: bytes) -> None:
        if not self.server.token and not ipaddress.ip_address(self.client_address[0]).is_loopback:
            raise RefusedError(403, "allowed from this machine only, unless GANRUN_SIDECAR_TOKEN is set")
        self.answer_json(200, {"pid": os.getpid()})
        self.server.end()


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
