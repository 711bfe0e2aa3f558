"""Periodic push of a run's state to a sidecar, from a thread of the driver. The run never waits for it."""

import contextlib
import http.client
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import ganrun
from ganrun.telemetry import messages
from ganrun.telemetry.protocol import OFF, PARTS, PUSH, SERVICE, TOKEN_VARIABLE, VARIABLE, Address, token
from ganrun.telemetry.pushed_state import PushedState
from ganrun.telemetry.run_report import to_json
from ganrun.telemetry.state import RunState, SearchState

WAIT_SECONDS, REQUEST_SECONDS, ANSWER_BYTES = 2.0, 5.0, 2**16
"""Socket timeout in seconds; limit of a whole exchange in seconds; size limit of an answer."""
CLOSE_SECONDS = 3.0
"""Timeout of the last push at the end of a run, in seconds."""
START_SECONDS, START_AGAIN_SECONDS = 15.0, 30.0
"""Timeout of a sidecar's start; least interval between two starts; in seconds."""
KEPT = ("PATH", "HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "TMPDIR", TOKEN_VARIABLE)
"""Environment variables that a sidecar inherits; credentials of the storage are not among them."""
FAULTS = (OSError, http.client.HTTPException, ValueError, LookupError, TypeError)
"""Exceptions of a failed exchange, also with a server that is no sidecar."""


class Pusher:
    """Thread that pushes until it is closed, or until the sidecar ends or refuses for good.

    Args:
        state: state of the run or search.
        address: address of the sidecar.
        beside: True to start a sidecar on this machine if none answers.
        seconds: interval of pushes.
        write_line: writes a line to the terminal.
    """

    def __init__(
        self, state: PushedState, address: Address, beside: bool, seconds: float, write_line: Callable[[str], None]
    ) -> None:
        self.state, self.address, self.beside, self.seconds, self.write_line = (
            state,
            address,
            beside,
            seconds,
            write_line,
        )
        self._closing, self._over, self._told = threading.Event(), False, False
        self._started = -START_AGAIN_SECONDS
        self._thread = threading.Thread(target=self._run, name="push", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Push once more, for at most CLOSE_SECONDS, and end the thread."""
        self._closing.set()
        self._thread.join(CLOSE_SECONDS)

    def _run(self) -> None:
        while not self._over:
            self._push()
            if self._closing.wait(self.seconds):
                break
        if not self._over:
            self._push()

    def _push(self) -> None:
        try:
            self._exchange()
        except ConnectionRefusedError:
            if self.beside and not self._closing.is_set() and time.monotonic() - self._started > START_AGAIN_SECONDS:
                self._started = time.monotonic()
                start(self.address)
                with contextlib.suppress(*FAULTS):
                    self._exchange()
        except FAULTS:
            # It is down or slow: the next push has all the content of this one. Or the server is no sidecar.
            if not self._told and (status := _status(self.address)) and health(self.address) is None:
                self._refused(status, b"it is no sidecar; end it, or set GANRUN_SIDECAR")

    def _exchange(self) -> None:
        report = self.state.report()
        status, answer = request(self.address, "POST", PUSH, to_json(report), "application/json")
        if status != http.client.OK:
            self._refused(status, answer)
            return
        wanted = [name for name in json.loads(answer)["want"] if name in report.parts]
        if not self._told:
            self._told = True
            stays = " (it stays when the run is over; `ganrun sidecar --stop` ends it)" if self.beside else ""
            self.write_line(f"watch    {self.address.url}{stays}")
        for name in wanted:
            fields = {"run": report.run, "trial": report.trial, "part": name}
            query = urlencode(fields | {"digest": report.parts[name]})
            request(self.address, "PUT", f"{PUSH}/part?{query}", self.state.part(name), PARTS[name])

    def _refused(self, status: int, answer: bytes) -> None:
        """Write the reason, once. Stop pushing if the sidecar ends or the server is no sidecar."""
        self._over = status in (http.client.GONE, http.client.NOT_FOUND, http.client.NOT_IMPLEMENTED)
        if not self._told and status != http.client.GONE:
            self._told = True
            text = answer.decode("utf-8", "replace")
            with contextlib.suppress(ValueError, KeyError, TypeError):
                text = str(json.loads(text)["error"])
            self.write_line(f"the sidecar at {self.address.url} does not take the run's state: {status} {text[:300]}")


class SearchPusher:
    """Pushers of a search and of each trial. Only that of the search starts a sidecar and writes to the terminal.

    Args:
        state: state of the search.
        trials: state of each trial, by name.
        address, beside, write_line: see `Pusher`.
    """

    def __init__(
        self,
        state: SearchState,
        trials: Mapping[str, RunState],
        address: Address,
        beside: bool,
        write_line: Callable[[str], None],
    ) -> None:
        self.state, self.trials = state, trials
        seconds = state.push_seconds
        self._pushers = [Pusher(state, address, beside, seconds, write_line)]
        self._pushers += [Pusher(each, address, False, seconds, lambda text: None) for each in trials.values()]

    def handle(self, trial: str, event: messages.Event | messages.TrialFailed) -> None:
        """Update the state of a trial by its event."""
        with contextlib.suppress(Exception):  # A bug in what is shown must not end the training.
            if isinstance(event, messages.TrialFailed):
                self.trials[trial].end("failed", event.text)
            else:
                self.trials[trial].handle(event)

    def close(self, ending: str) -> None:
        """Push once more. Trials without an ending of their own get that of the search."""
        self.state.end(ending)
        for state in self.trials.values():
            if state.ending is None:
                state.end(ending)
        closing = [threading.Thread(target=pusher.close) for pusher in self._pushers]
        for thread in closing:
            thread.start()
        for thread in closing:
            thread.join()


def request(
    address: Address, method: str, path: str, body: bytes | None = None, kind: str | None = None
) -> tuple[int, bytes]:
    """Send a request. Return the status and the first ANSWER_BYTES of the answer, within REQUEST_SECONDS.

    Raises:
        OSError, http.client.HTTPException: the sidecar did not answer.
    """
    connection = http.client.HTTPConnection(address.host, address.port, timeout=WAIT_SECONDS)
    headers = {"Content-Type": kind} if kind else {}
    if token():
        headers["Authorization"] = f"Bearer {token()}"
    connection.connect()
    plug = connection.sock
    deadline = threading.Timer(REQUEST_SECONDS, lambda: _cut(plug))
    deadline.daemon = True
    deadline.start()
    try:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read(ANSWER_BYTES)
    finally:
        deadline.cancel()
        connection.close()


def _cut(plug: socket.socket) -> None:
    with contextlib.suppress(OSError):
        plug.shutdown(socket.SHUT_RDWR)


def _status(address: Address) -> int | None:
    """Return the HTTP status of /healthz at an address; None if nothing answers."""
    try:
        return request(address, "GET", "/healthz")[0]
    except FAULTS:
        return None


def health(address: Address) -> dict[str, Any] | None:
    """Return the answer of a sidecar to /healthz; None if no sidecar answers."""
    try:
        status, answer = request(address, "GET", "/healthz")
        found = json.loads(answer) if status == http.client.OK else None
    except FAULTS:
        return None
    return found if isinstance(found, dict) and found.get("service") == SERVICE else None


def start(address: Address) -> None:
    """Start a sidecar that outlives this process. Wait until it, or one of a faster process, answers."""
    environment = {name: os.environ[name] for name in KEPT if name in os.environ}
    environment |= {"PYTHONPATH": str(Path(ganrun.__file__).parent.parent), VARIABLE: OFF}
    subprocess.Popen(
        [sys.executable, "-m", "ganrun.sidecar", "--listen", f"{address.host}:{address.port}"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment,
        cwd="/",
        start_new_session=True,
    )
    deadline = time.monotonic() + START_SECONDS
    while health(address) is None and time.monotonic() < deadline:
        time.sleep(0.1)
