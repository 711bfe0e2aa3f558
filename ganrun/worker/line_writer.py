"""Writes lines of metrics and events, and pictures, while the rounds go on."""

import json
import logging
import threading
from collections import defaultdict
from typing import Any

from ganrun.run_folder.run_folder import RunFolder

SOON_SECONDS, REWRITE_SECONDS = 0.2, 30.0
"""How long a line may wait; where files cannot grow, each time they are written anew."""
PICTURES = 8
"""So many wait for a storage that is away; of more, the newest."""
RETRY_SECONDS = 30.0
logger = logging.getLogger(__name__)


class LineWriter:
    """Lines of metrics and events, and pictures. They are for people: that one cannot be written stops no run."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self._lines: defaultdict[str, bytes] = defaultdict(bytes)
        self._pictures: dict[str, bytes] = {}
        self._changed = threading.Condition()
        self._urgent = self._closing = self._failing = False
        self._writing = threading.Lock()
        self._wait = REWRITE_SECONDS if folder.storage.traffic else SOON_SECONDS
        self._thread = threading.Thread(target=self._run, name="lines", daemon=True)
        self._thread.start()

    def add(self, name: str, fields: dict[str, Any], soon: bool = False) -> None:
        """Adds a line to a .jsonl file."""
        with self._changed:
            self._lines[name] += (json.dumps(fields) + "\n").encode()
            self._urgent = self._urgent or soon
            self._changed.notify()

    def picture(self, name: str, data: bytes) -> None:
        """Puts a picture."""
        with self._changed:
            self._pictures[name] = data
            if len(self._pictures) > PICTURES:
                del self._pictures[next(iter(self._pictures))]

    def flush(self) -> None:
        """Writes what waits, up to the first that cannot be written: one storage's patience is enough at a time."""
        with self._writing:
            with self._changed:
                self._urgent, names = False, [*self._lines, *self._pictures]
            for name in names:
                if not self._write(name):
                    return

    def close(self) -> None:
        """Writes the last."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()
        self.flush()

    def _run(self) -> None:
        while True:
            with self._changed:
                wait = RETRY_SECONDS if self._failing else self._wait
                self._changed.wait_for(lambda: self._closing or (self._urgent and not self._failing), timeout=wait)
                if self._closing:
                    return
            self.flush()

    def _write(self, name: str) -> bool:
        with self._changed:
            lines, picture = self._lines.pop(name, None), self._pictures.pop(name, None)
        try:
            if lines:
                self.folder.storage.append(name, lines)
            elif picture:
                self.folder.storage.write(name, picture)
        except OSError as error:
            if not self._failing:
                logger.warning("%s could not be written: %s", name, error.strerror or error)
            self._failing = True
            if lines:
                with self._changed:  # Before those that came meanwhile.
                    self._lines[name] = lines + self._lines[name]
            return False
        self._failing = False
        return True
