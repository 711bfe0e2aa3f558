"""Time of a round by phase."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ganrun.training.state import TrainingState

ROUNDS = 5


def phases(state: TrainingState, play_round: Callable[[], None]) -> dict[str, float]:
    """Return the share of each phase of a round, in order. The state cannot be used afterwards.

    `backward` is the rest of a turn; `other` is the rest of a round: noise, bookkeeping, running statistics.
    """
    play_round()
    clock = _Clock(state)
    begun = time.perf_counter()
    for _ in range(ROUNDS):
        play_round()
    whole = time.perf_counter() - begun
    shares = {name: seconds / whole for name, seconds in clock.seconds.items()}
    return shares | {"other": 1 - sum(shares.values())}


class _Clock:
    """Timer of a training state's phases, by a wrapper around each."""

    def __init__(self, state: TrainingState) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._turn = ""
        self._wrap(state, "normalise", lambda: "data: normalise")
        for player_step in state.player_steps:
            self._time_turn(player_step)
            self._wrap(player_step, "apply", lambda: f"{self._turn}: optimizer")
        for name, network in state.game.networks.items():
            self._wrap(network, "forward", lambda name=name: f"{self._turn}: forward {name}")  # type: ignore[misc]
        for ema in state.ema.values():
            self._wrap(ema, "update", lambda: "ema")

    def _wrap(self, owner: Any, method: str, name: Callable[[], str]) -> None:
        inner = getattr(owner, method)

        def timed(*args: Any, **kwargs: Any) -> Any:
            with self._timing(name()):
                return inner(*args, **kwargs)

        setattr(owner, method, timed)

    def _time_turn(self, player_step: Any) -> None:
        inner = player_step.backward

        def timed(*args: Any) -> Any:
            self._turn = player_step.player.name
            before, begun = sum(self.seconds.values()), time.perf_counter()
            record = inner(*args)
            parts = sum(self.seconds.values()) - before
            self.seconds[f"{self._turn}: backward"] += time.perf_counter() - begun - parts
            return record

        player_step.backward = timed

    @contextmanager
    def _timing(self, name: str) -> Iterator[None]:
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - begun
