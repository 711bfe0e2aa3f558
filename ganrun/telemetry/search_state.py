"""What a search pushes to a sidecar: a state for each trial, and one for the search, that counts them."""

import contextlib
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from ganrun.config.schema import RunConfig, TelemetryConfig
from ganrun.telemetry.protocol import Address
from ganrun.telemetry.push import Pusher
from ganrun.telemetry.run_state import PushedState, RunState

STATES = ("pending", "running", "paused", "finished", "failed")


class SearchState(PushedState):
    """The search itself, as a state without a trial.

    Args:
        run, telemetry: sections of the search's config.
    """

    def __init__(self, run: RunConfig, telemetry: TelemetryConfig) -> None:
        super().__init__(run.name, "", run.uri, telemetry.push_seconds)
        self._states: Counter[str] = Counter()

    def observe(self, states: Mapping[str, str]) -> None:
        """Takes the state of each trial."""
        with self._lock:
            self._states = Counter(states.values())

    def end(self, ending: str) -> None:
        """The search is over: finished, stopped or failed."""
        self.ending = ending

    def report(self) -> dict[str, Any]:
        """The body of a push; see protocol.py."""
        with self._lock:
            series: list[list[Any]] = [["trials", {"state": state}, self._states[state]] for state in STATES]
            if self.ending:
                series.append(["ended", {"ending": self.ending}, 1])
            return self._head() | {"parts": {}, "series": series}

    def part(self, name: str) -> bytes:
        """It has none."""
        raise KeyError(name)


class SearchPush:
    """Pushes a search and its trials, each from a thread of its own; only the first starts a sidecar and speaks.

    Args:
        state: of the search.
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

    def handle(self, trial: str, event: dict[str, Any]) -> None:
        """Takes what the workers of a trial say."""
        with contextlib.suppress(Exception):  # Not even our own fault in what is shown may end what is trained.
            if trial and event["kind"] == "trial_failed":
                self.trials[trial].end("failed", event["text"])
            elif trial:
                self.trials[trial].handle(event)

    def close(self, ending: str) -> None:
        """Pushes once more; trials that did not end by themselves have the search's ending."""
        self.state.end(ending)
        for state in self.trials.values():
            if state.ending is None:
                state.end(ending)
        closing = [threading.Thread(target=pusher.close) for pusher in self._pushers]
        for thread in closing:
            thread.start()
        for thread in closing:
            thread.join()
