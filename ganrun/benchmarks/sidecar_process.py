"""Sidecar process for a measurement."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

from ganrun.telemetry.protocol import OFF, VARIABLE, Address
from ganrun.telemetry.push import health


class SidecarProcess:
    """Context manager of a sidecar on a free port."""

    def __enter__(self) -> "SidecarProcess":
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.address = Address(port=free.getsockname()[1])
        command = [sys.executable, "-m", "ganrun.sidecar", "--listen", f"{self.address.host}:{self.address.port}"]
        self._process = subprocess.Popen(command, stderr=subprocess.DEVNULL, env=os.environ | {VARIABLE: OFF})
        while health(self.address) is None:
            time.sleep(0.1)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()

    @property
    def cpu_seconds(self) -> float:
        """CPU seconds of the process so far."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
