"""Commands as a user runs them: real processes, real Ray."""

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
    """`ganrun VERB` on a config, in a process of its own."""

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
        """Exit code, stdout, stderr."""
        try:
            output, _ = self.process.communicate(timeout=WAIT)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            raise
        return self.process.returncode, output, self.error.read_text()

    def wait_for(self, text: str, times: int = 1) -> None:
        """Until it has said something so often."""
        self._until(lambda: self.error.read_text().count(text) >= times)

    def wait_for_images(self, images: int) -> None:
        """Until the run says that it has shown so many."""
        self._until(lambda: self._shown() >= images)

    def _shown(self) -> int:
        found = re.findall(r"([\d,]+) of", self.error.read_text())
        return max((int(each.replace(",", "")) for each in found), default=0)

    def _until(self, is_so: Callable[[], bool]) -> None:
        """Waits, while the process lives."""
        until(lambda: is_so() or self.process.poll() is not None, self.error.read_text)
        assert is_so(), self.error.read_text()


class Train(Command):
    """`ganrun train`."""

    def __init__(
        self, config: Path, *arguments: str, address: str | None = None, env: dict[str, str] | None = None
    ) -> None:
        super().__init__("train", config, *arguments, address=address, env=env)


def ray_workers(head: int) -> list[psutil.Process]:
    """Processes in which the Ray of that head runs workers."""
    found = []
    with contextlib.suppress(psutil.Error):  # It may be gone.
        for process in psutil.Process(head).children(recursive=True):
            with contextlib.suppress(psutil.Error):  # So may they.
                if "RayTrainWorker" in " ".join(process.cmdline()):
                    found.append(process)
    return found
