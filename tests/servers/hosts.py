"""Hosts of one's own: network namespaces of Linux on one bridge, whose cables can be pulled.

A namespace lasts as long as this process, or one that it started inside, so nothing is left behind. What runs in a
block of `host.entered()` is on that host, and so are the processes that it starts. Files and sockets in folders are
shared by all hosts.
"""

import contextlib
import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

NETWORK = "203.0.113.0/24"
"""Set aside for examples: nobody else has it."""
_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Host:
    """A host.

    Attributes:
        name: Of its cable, at the bridge's end.
        address: Where the others reach it.
        namespace: An open file that stands for its network.
    """

    name: str
    address: str
    namespace: int

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """The calling thread is on this host."""
        before = _here()
        _enter(self.namespace)
        try:
            yield
        finally:
            _enter(before)
            os.close(before)

    def run(self, *command: str) -> None:
        """Run a command of iproute2 on this host."""
        with self.entered():
            done = subprocess.run(["ip", *command], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise OSError(f"ip {' '.join(command)}: {done.stderr.strip()}")


class Hosts:
    """Some hosts and the one in their middle. Close it.

    Args:
        names: Of the hosts around it.

    Raises:
        OSError: They cannot be made here; says why.
    """

    def __init__(self, names: Sequence[str]) -> None:
        if shutil.which("ip") is None:
            raise FileNotFoundError("iproute2 is not installed")
        self.hub = Host("hub", "203.0.113.1", _new())
        self.others = [Host(name, f"203.0.113.{number}", _new()) for number, name in enumerate(names, 2)]
        self.hub.run("link", "add", "bridge", "type", "bridge")
        self._set_up(self.hub, "bridge")
        for host in self.others:
            end = f"/proc/{os.getpid()}/fd/{host.namespace}"
            self.hub.run("link", "add", host.name, "type", "veth", "peer", "name", "cable", "netns", end)
            self.hub.run("link", "set", host.name, "master", "bridge")
            self._set_up(host, "cable")
            self.plug(host)

    def _set_up(self, host: Host, device: str) -> None:
        host.run("address", "add", f"{host.address}/24", "dev", device)
        host.run("link", "set", device, "up")
        host.run("link", "set", "lo", "up")

    def pull(self, host: Host) -> None:
        """Pull a host's cable at the bridge: what is sent is lost without a word."""
        self.hub.run("link", "set", host.name, "down")

    def plug(self, host: Host) -> None:
        """Put it in again."""
        self.hub.run("link", "set", host.name, "up")

    def close(self) -> None:
        """Let go of them."""
        for host in (self.hub, *self.others):
            os.close(host.namespace)


def _here() -> int:
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def _new() -> int:
    """An open file that stands for a new network, which has no device but a loopback."""
    before = _here()
    try:
        _check(_libc.unshare(_CLONE_NEWNET))
        made = _here()
        _enter(before)
    finally:
        os.close(before)
    return made


def _enter(namespace: int) -> None:
    _check(_libc.setns(namespace, _CLONE_NEWNET))


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"no network of one's own can be made: {os.strerror(number)}")
