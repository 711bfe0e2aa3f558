"""Background writer of metrics, events and sample pictures."""

import json
import logging
import threading
from collections import defaultdict
from typing import Any

from ganrun.run_folder.run_folder import RunFolder

SOON_SECONDS, REWRITE_SECONDS = 0.2, 30.0
"""Longest wait of a line in a folder; interval of rewrites in object storage, where files cannot be appended to."""
PICTURES = 8
"""Most pictures that wait for an unreachable storage; older ones are dropped."""
RETRY_SECONDS = 30.0
logger = logging.getLogger(__name__)


class LineWriter:
    """Thread that writes lines of metrics and events, and pictures. A failed write does not stop a run."""

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
        """Queue a line of a .jsonl file."""
        with self._changed:
            self._lines[name] += (json.dumps(fields) + "\n").encode()
            self._urgent = self._urgent or soon
            self._changed.notify()

    def picture(self, name: str, data: bytes) -> None:
        """Queue a picture."""
        with self._changed:
            self._keep_pictures(self._pictures | {name: data})

    def flush(self) -> None:
        """Write everything queued, up to the first failure: one retry budget at a time."""
        with self._writing:
            with self._changed:
                self._urgent, names = False, [*self._lines, *self._pictures]
            for name in names:
                if not self._write(name):
                    return

    def close(self) -> None:
        """Write what is queued and end the thread."""
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
            with self._changed:  # Before what is newer.
                if lines:
                    self._lines[name] = lines + self._lines[name]
                elif picture:
                    self._keep_pictures({name: picture} | self._pictures)
            return False
        self._failing = False
        return True

    def _keep_pictures(self, pictures: dict[str, bytes]) -> None:
        """Keep the last PICTURES of some pictures, the oldest first."""
        self._pictures = dict(list(pictures.items())[-PICTURES:])
