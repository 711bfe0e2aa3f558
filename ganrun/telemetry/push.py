"""Pushes a run's state to a sidecar every few seconds, from a thread of the driver: the run never waits for it."""

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
from ganrun.telemetry.run_report import to_json
from ganrun.telemetry.state import PushedState, RunState, SearchState

WAIT_SECONDS, REQUEST_SECONDS, ANSWER_BYTES = 2.0, 5.0, 2**16
"""For each packet; for a whole exchange, however slowly it trickles; of an answer."""
CLOSE_SECONDS = 3.0
"""So long the end of a run waits for its last push."""
START_SECONDS, START_AGAIN_SECONDS = 15.0, 30.0
"""What a sidecar may take to start; how often one is started that has died."""
KEPT = ("PATH", "HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "TMPDIR", TOKEN_VARIABLE)
"""Of the environment, what a sidecar is given: no credentials of the storage."""
FAULTS = (OSError, http.client.HTTPException, ValueError, LookupError, TypeError)
"""An exchange may end in any of them, whatever answers."""


class Pusher:
    """Pushes until it is closed, or until the sidecar is told to end.

    Args:
        state: of the run or search.
        address: of the sidecar.
        beside: whether the sidecar is ours to start if none answers.
        seconds: between two pushes.
        write_line: shows the user a line.
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
        """Pushes once more, if that is soon done."""
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
            # It is away or slow: the next push has all that this one had. Or it is something else.
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
        """Says once why; a sidecar that ends, or that is none, is not asked again."""
        self._over = status in (http.client.GONE, http.client.NOT_FOUND, http.client.NOT_IMPLEMENTED)
        if not self._told and status != http.client.GONE:
            self._told = True
            text = answer.decode("utf-8", "replace")
            with contextlib.suppress(ValueError, KeyError, TypeError):
                text = str(json.loads(text)["error"])
            self.write_line(f"the sidecar at {self.address.url} does not take the run's state: {status} {text[:300]}")


class SearchPusher:
    """Pushes a search and its trials, each from a thread of its own; only the first starts a sidecar and speaks.

    Args:
        state: state of the search.
        trials: the state of each, by name.
        address, beside, write_line: as of a `Pusher`.
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
        """Take an event of a trial."""
        with contextlib.suppress(Exception):  # Not even our own fault in what is shown may end what is trained.
            if isinstance(event, messages.TrialFailed):
                self.trials[trial].end("failed", event.text)
            else:
                self.trials[trial].handle(event)

    def close(self, ending: str) -> None:
        """Push once more; trials that did not end by themselves have the search's ending."""
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
    """One exchange, over within REQUEST_SECONDS: status and the beginning of the answer.

    Raises:
        OSError, http.client.HTTPException: there was none.
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
    """What is answered there to who asks how it is."""
    try:
        return request(address, "GET", "/healthz")[0]
    except FAULTS:
        return None


def health(address: Address) -> dict[str, Any] | None:
    """What a sidecar says of itself; None if none answers there."""
    try:
        status, answer = request(address, "GET", "/healthz")
        found = json.loads(answer) if status == http.client.OK else None
    except FAULTS:
        return None
    return found if isinstance(found, dict) and found.get("service") == SERVICE else None


def start(address: Address) -> None:
    """Starts a sidecar that outlives us, and waits until one answers: ours, or that of somebody who was faster."""
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
