"""Identity of a process on its machine, by which another command can prove that the holder of a lease is dead.

Linux only. Other systems have no identity, and a lease there is free only when it expires.
"""

import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROC = Path("/proc")
STATE, START_TIME = 0, 19
"""Indices of fields of /proc/PID/stat after the command's name (proc(5): fields 3 and 22)."""


@dataclass(frozen=True)
class ProcessIdentity:
    """Unique identity of a process.

    Attributes:
        machine: host name, boot id and PID namespace, since containers do not see each other's processes.
        pid: process id in that namespace.
        start_time: clock ticks from boot to the start of the process, since process ids are reused.
    """

    machine: str
    pid: int
    start_time: int

    @classmethod
    def of_this_process(cls) -> "ProcessIdentity | None":
        """Return the identity of this process; None if the system has no /proc."""
        machine, start_time = _machine(), _start_time(os.getpid())
        return cls(machine, os.getpid(), start_time) if machine and start_time is not None else None

    @classmethod
    def parse(cls, fields: Any) -> "ProcessIdentity | None":
        """Parse an identity from JSON; None if it is anything else."""
        try:
            return cls(str(fields["machine"]), int(fields["pid"]), int(fields["start_time"]))
        except (KeyError, TypeError, ValueError):
            return None

    def is_dead(self) -> bool:
        """Return True if this machine proves that the process has ended; False for processes of other machines."""
        return self.machine == _machine() and _start_time(self.pid) != self.start_time


def _machine() -> str | None:
    try:
        boot = (PROC / "sys/kernel/random/boot_id").read_text().strip()
        return f"{socket.gethostname()} {boot} {os.readlink(PROC / 'self/ns/pid')}"
    except OSError:
        return None


def _start_time(pid: int) -> int | None:
    """Return the start time of a live process, in clock ticks since boot; None if there is no such process."""
    try:
        # The command's name is in parentheses and may contain spaces and parentheses.
        fields = (PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[STATE] in "ZX" else int(fields[START_TIME])
