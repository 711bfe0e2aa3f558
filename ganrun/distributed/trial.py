"""A trial of a search as its driver knows it."""

import json
from typing import Any

from ganrun import preflight
from ganrun.distributed import launch
from ganrun.distributed.change import Exploit as Order
from ganrun.distributed.line import Message
from ganrun.distributed.scores import Scores
from ganrun.run_folder import RunFolder
from ganrun.search.population import Exploit
from ganrun.sections import Config
from ganrun.storage import open_storage
from ganrun.telemetry.search import STATES

PENDING, RUNNING, PAUSED, FINISHED, FAILED = STATES


class Trial:
    """A trial: what its workers said last, and what they are to be told."""

    def __init__(self, name: str, search: Config) -> None:
        self.name, self.search, self.state, self.images = name, search, PENDING, 0
        self.mailbox: Any = None
        self.fit: Any = None
        self.scores: Scores | None = None
        self.order: Exploit | None = None
        """One that it does not have behind it for certain."""
        self.taken = self.leaving = False
        """Whether it has begun with that; whether it was asked to save and leave."""
        self.orders: list[Message] = []
        self.scored: tuple[int, float | None] | None = None
        """Images and score of what is not yet reported."""
        self.saved: list[tuple[int, str]] = []
        """Checkpoints since the last report."""
        self.why = ""
        """What it failed of."""

    @property
    def place(self) -> str:
        """URI of its run."""
        return f"{self.search.run.storage}/{self.search.run.name}/trials/{self.name}"

    def go_on(self, exploit: Exploit | None) -> None:
        """Takes what its folder tells of it; `exploit` is the newest one by it, if there is one."""
        self.images, behind = _progress(self.place)
        if exploit and exploit.number > behind:
            self.order = exploit
        if self.images >= self.search.train.total_images and self.order is None:
            self.state = FINISHED

    def start(self, config: Config) -> None:
        """Has its workers started."""
        preflight.write_config(config, RunFolder(open_storage(self.place)))
        self.mailbox, self.fit = launch.begin(config, self.command())
        self.scores, self.state, self.leaving, self.taken = Scores(config), RUNNING, False, False
        self.orders, self.scored, self.saved = [], None, []

    def command(self) -> Order | None:
        """The exploit that its workers must have behind them, as they are told of it."""
        if self.order is None:
            return None
        donor = f"{self.place.rpartition('/')[0]}/{self.order.donor}"
        return Order(self.order.number, donor, self.order.checkpoint, self.order.after)

    def tell_order(self) -> None:
        """Tells it of the exploit; one that it has behind it already it passes over."""
        if command := self.command():
            self.orders.append({"kind": "exploit", "exploit": command._asdict()})

    def take(self, exploit: Exploit) -> None:
        """Has it take over a donor: at once if it is running, else when it starts."""
        self.order, self.taken, self.scored, self.saved = exploit, False, None, []
        if self.state == RUNNING:
            self.tell_order()
        else:
            self.state = PENDING


def _progress(place: str) -> tuple[int, int]:
    """Images of a trial's newest checkpoint, and the number of the last exploit that it has behind it."""
    storage = open_storage(place)
    latest = RunFolder(storage).pointer("latest")
    if latest is None:
        return 0, 0
    found = storage.read_version(f"checkpoints/{latest.checkpoint}/state.json")
    try:
        return latest.images, int(json.loads(found[0])["exploit"]) if found else 0
    except (ValueError, KeyError, TypeError):
        return latest.images, 0  # Damaged: the workers take the one before, and may be told again.
