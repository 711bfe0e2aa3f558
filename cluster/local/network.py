"""Hosts that are network namespaces on a bridge: what one is made of, and what can befall it."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any


class Network:
    """A bridge and the hosts on it, whether they are there or not.

    Args:
        prefix: of all names of namespaces and interfaces; at most eleven letters and digits.
        net: the first three numbers of its addresses.
        folder: has a folder for each host.
    """

    def __init__(self, prefix: str, net: str, folder: Path) -> None:
        self.prefix, self.net, self.folder = prefix, net, folder

    def address(self, host: str) -> str:
        """The address of a host (head, host1, host2, ...), of `storage`, and of the `bridge` on this machine."""
        number = {"bridge": 1, "storage": 2, "head": 10}.get(host) or 10 + int(host.removeprefix("host"))
        return f"{self.net}.{number}"

    def make(self, hosts: Iterable[str]) -> None:
        """The bridge, and all hosts plugged in."""
        _ip("link", "add", self.prefix, "type", "bridge")
        _ip("addr", "add", f"{self.address('bridge')}/24", "dev", self.prefix)
        _ip("link", "set", self.prefix, "up")
        for host in hosts:
            self._plug(host)

    def remove(self, hosts: Iterable[str]) -> None:
        """Ends what runs there and takes away what `make` made, as far as it is there."""
        for host in hosts:
            self.kill(host)
            subprocess.run(["ip", "netns", "del", self._namespace(host)], capture_output=True, check=False)
            # A namespace, and its cable, would live as long as the last process of it takes to die.
            subprocess.run(["ip", "link", "del", self._cable(host)], capture_output=True, check=False)
        subprocess.run(["ip", "link", "del", self.prefix], capture_output=True, check=False)

    def pids(self, host: str) -> list[int]:
        """Of all processes of a host."""
        listing = ["ip", "netns", "pids", self._namespace(host)]
        return [int(pid) for pid in subprocess.run(listing, capture_output=True, check=False).stdout.split()]

    def kill(self, host: str) -> None:
        """SIGKILL to all that runs on a host."""
        deadline = time.monotonic() + 20
        while (pids := self.pids(host)) and time.monotonic() < deadline:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.1)

    def cut(self, host: str) -> None:
        """Takes a host off the network; what runs there goes on."""
        _ip("link", "set", self._cable(host), "down")

    def join(self, host: str) -> None:
        """Puts it back."""
        _ip("link", "set", self._cable(host), "up")

    def command(self, host: str, command: list[str]) -> list[str]:
        """What runs a command on a host.

        Each host sees a folder of its own where all have their Ray sessions: two raylets would claim one socket. And
        all names in its /etc/hosts: who asks for a peer's would wait 10 s for a name server, which is not there.
        """
        inside = f'mount --bind "{self.folder}/{host}/ray" "{self.folder}/ray"'
        inside += f' && mount --bind "{self.folder}/hosts" /etc/hosts && exec "$@"'
        return ["ip", "netns", "exec", self._namespace(host), "bash", "-c", inside, "bash", *command]

    def popen(self, host: str, command: list[str], **options: Any) -> "subprocess.Popen[Any]":
        """A process on a host, in a session of its own."""
        options = {"start_new_session": True} | options
        return subprocess.Popen(self.command(host, command), **options)

    def _namespace(self, host: str) -> str:
        return f"{self.prefix}-{host}"

    def _cable(self, host: str) -> str:
        """An interface's name may have 15 characters."""
        return f"{self.prefix}-{host.replace('host', 'h').replace('storage', 's').replace('head', 'h0')}"

    def _plug(self, host: str) -> None:
        namespace, cable = self._namespace(host), self._cable(host)
        _ip("netns", "add", namespace)
        _ip("link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", namespace)
        _ip("link", "set", cable, "master", self.prefix, "up")
        _ip("-n", namespace, "link", "set", "lo", "up")
        _ip("-n", namespace, "addr", "add", f"{self.address(host)}/24", "dev", "eth0")
        _ip("-n", namespace, "link", "set", "eth0", "up")
        # It leads nowhere; Ray asks the way to the world to learn its own address.
        _ip("-n", namespace, "route", "add", "default", "via", self.address("bridge"))


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
