"""Hosts as network namespaces on a bridge: create, remove, kill, disconnect and reconnect them."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any


class Network:
    """A bridge with hosts. It need not exist yet.

    Args:
        prefix: prefix of the names of namespaces and interfaces, up to eleven letters and digits.
        net: first three bytes of the addresses, such as 10.77.0.
        folder: folder with a sub-folder for each host.
    """

    def __init__(self, prefix: str, net: str, folder: Path) -> None:
        self.prefix, self.net, self.folder = prefix, net, folder

    def address(self, host: str) -> str:
        """Return the address of a host (head, host1, host2, ..., storage), or of the `bridge` on this machine."""
        number = {"bridge": 1, "storage": 2, "head": 10}.get(host) or 10 + int(host.removeprefix("host"))
        return f"{self.net}.{number}"

    def make(self, hosts: Iterable[str]) -> None:
        """Create the bridge, and connect all hosts to it."""
        _ip("link", "add", self.prefix, "type", "bridge")
        _ip("addr", "add", f"{self.address('bridge')}/24", "dev", self.prefix)
        _ip("link", "set", self.prefix, "up")
        for host in hosts:
            self._plug(host)

    def remove(self, hosts: Iterable[str]) -> None:
        """Kill all processes of the hosts, and remove whatever exists of hosts and bridge."""
        for host in hosts:
            self.kill(host)
            subprocess.run(["ip", "netns", "del", self._namespace(host)], capture_output=True, check=False)
            # A namespace keeps its cable until its last process has died, so remove the cable explicitly.
            subprocess.run(["ip", "link", "del", self._cable(host)], capture_output=True, check=False)
        subprocess.run(["ip", "link", "del", self.prefix], capture_output=True, check=False)

    def pids(self, host: str) -> list[int]:
        """Return the ids of all processes of a host."""
        listing = ["ip", "netns", "pids", self._namespace(host)]
        return [int(pid) for pid in subprocess.run(listing, capture_output=True, check=False).stdout.split()]

    def kill(self, host: str) -> None:
        """SIGKILL all processes of a host, and wait up to 20 s until they are gone."""
        deadline = time.monotonic() + 20
        while (pids := self.pids(host)) and time.monotonic() < deadline:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.1)

    def cut(self, host: str) -> None:
        """Disconnect a host from the network. Its processes keep running."""
        _ip("link", "set", self._cable(host), "down")

    def join(self, host: str) -> None:
        """Reconnect a host."""
        _ip("link", "set", self._cable(host), "up")

    def command(self, host: str, command: list[str]) -> list[str]:
        """Return the command line that runs `command` on a host.

        It mounts a folder of the host's own over the common Ray session folder: two raylets would claim the same
        socket. It also mounts an /etc/hosts with all hosts: there is no name server, and each look-up of a peer would
        wait 10 s for one.
        """
        inside = f'mount --bind "{self.folder}/{host}/ray" "{self.folder}/ray"'
        inside += f' && mount --bind "{self.folder}/hosts" /etc/hosts && exec "$@"'
        return ["ip", "netns", "exec", self._namespace(host), "bash", "-c", inside, "bash", *command]

    def popen(self, host: str, command: list[str], **options: Any) -> "subprocess.Popen[Any]":
        """Start a process on a host, in its own session."""
        options = {"start_new_session": True} | options
        return subprocess.Popen(self.command(host, command), **options)

    def _namespace(self, host: str) -> str:
        return f"{self.prefix}-{host}"

    def _cable(self, host: str) -> str:
        """Return the name of a host's interface, at most 15 characters, the limit of Linux."""
        return f"{self.prefix}-{host.replace('host', 'h').replace('storage', 's').replace('head', 'h0')}"

    def _plug(self, host: str) -> None:
        namespace, cable = self._namespace(host), self._cable(host)
        _ip("netns", "add", namespace)
        _ip("link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", namespace)
        _ip("link", "set", cable, "master", self.prefix, "up")
        _ip("-n", namespace, "link", "set", "lo", "up")
        _ip("-n", namespace, "addr", "add", f"{self.address(host)}/24", "dev", "eth0")
        _ip("-n", namespace, "link", "set", "eth0", "up")
        # This route leads nowhere, but Ray finds its own address by a route to the internet.
        _ip("-n", namespace, "route", "add", "default", "via", self.address("bridge"))


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
