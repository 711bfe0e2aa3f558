"""Helpers that run commands as a user does: in real processes, on a real Ray."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from ganrun.ray_backend.internals import LOCAL_VARIABLES
from tests.waiting import WAIT, until

LOCAL_RAY = {"RAY_AUTH_MODE": "disabled"} | {variable.name: variable.value for variable in LOCAL_VARIABLES}
"""Ray on the loopback address, without tokens."""


class Command:
    """A running `ganrun VERB CONFIG` in its own process."""

    def __init__(
        self, verb: str, config: Path, *arguments: str, address: str | None = None, env: dict[str, str] | None = None
    ) -> None:
        environment = os.environ | LOCAL_RAY | (env or {})
        if address:
            environment["RAY_ADDRESS"] = address
        self.error = config.with_suffix(f".{time.monotonic_ns()}.log")
        command = [sys.executable, "-m", f"ganrun.{verb}", str(config), *arguments]
        with self.error.open("w") as error:
            self.process = subprocess.Popen(
                command, env=environment, stdout=subprocess.PIPE, stderr=error, text=True, start_new_session=True
            )

    def wait(self) -> tuple[int, str, str]:
        """Wait for the end; return exit code, stdout and stderr."""
        try:
            output, _ = self.process.communicate(timeout=WAIT)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            raise
        return self.process.returncode, output, self.error.read_text()

    def wait_for(self, text: str, times: int = 1) -> None:
        """Wait until the output contains a text so many times."""
        self._until(lambda: self.error.read_text().count(text) >= times)

    def wait_for_images(self, images: int) -> None:
        """Wait until the run reports that it has shown so many images."""
        self._until(lambda: self._shown() >= images)

    def _shown(self) -> int:
        found = re.findall(r"([\d,]+) of", self.error.read_text())
        return max((int(each.replace(",", "")) for each in found), default=0)

    def _until(self, is_so: Callable[[], bool]) -> None:
        """Wait for a condition; fail if the process exits first."""
        until(lambda: is_so() or self.process.poll() is not None, self.error.read_text)
        assert is_so(), self.error.read_text()


class Train(Command):
    """A running `ganrun train CONFIG`."""

    def __init__(
        self, config: Path, *arguments: str, address: str | None = None, env: dict[str, str] | None = None
    ) -> None:
        super().__init__("train", config, *arguments, address=address, env=env)


def ray_workers(head: int) -> list[psutil.Process]:
    """Return the worker processes of the Ray with this head."""
    found = []
    with contextlib.suppress(psutil.Error):  # It may be gone.
        for process in psutil.Process(head).children(recursive=True):
            with contextlib.suppress(psutil.Error):  # So may they.
                if "RayTrainWorker" in " ".join(process.cmdline()):
                    found.append(process)
    return found
