"""A TCP proxy on loopback that breaks the network on purpose: it stands between a client and its server.

It runs in a process of its own, so that a test that blocks, forks or stops itself does not disturb it, and it works the
same for blocking and asynchronous callers. It ends with whoever started it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
import subprocess
import sys
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, Self
from urllib.parse import urlsplit

Way = Literal["pass", "hold", "lose", "cut"]
"""What becomes of bytes that travel in one direction.

They pass; are held until that changes, as while TCP sends again and again; are lost, and the connection with them, as
behind a firewall that has forgotten it; or are answered by a reset.
"""


@dataclass(frozen=True)
class Fault:
    """How the network behaves; the default is a good one.

    Attributes:
        accept: False refuses new connections; open ones stay.
        requests: What becomes of bytes to the server.
        replies: What becomes of bytes from the server.
        delay: Seconds that what is read waits before it is passed on, in each direction.
        slice: Bytes of the pieces that data is cut into, each a packet of its own; 0 leaves it whole.
    """

    accept: bool = True
    requests: Way = "pass"
    replies: Way = "pass"
    delay: float = 0.0
    slice: int = 0


PASS = Fault()
REFUSE = Fault(accept=False)
BLACK_HOLE = Fault(requests="lose", replies="lose")
LOST_REPLIES = Fault(replies="lose")
"""The server does what it is asked and nobody hears of it."""
LOST_REQUESTS = Fault(requests="lose")
STALL = Fault(requests="hold", replies="hold")


@dataclass(frozen=True)
class Traffic:
    """What a proxy has seen so far.

    Attributes:
        open: Connections that are open now.
        accepted: All connections.
        cut: Those that were reset on purpose.
        requests: Bytes passed on to the server.
        replies: Bytes passed on from the server.
        lost: Bytes that were lost in either direction.
    """

    open: int = 0
    accepted: int = 0
    cut: int = 0
    requests: int = 0
    replies: int = 0
    lost: int = 0


class Proxy:
    """A proxy, running from the moment it is made; use it as a context manager, or close it.

    Args:
        port: Of the server.
        host: Of the server.
    """

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        # Run by its path and isolated, it imports nothing of ours and is there in a few hundredths of a second.
        command = [sys.executable, "-I", __file__, host, str(port)]
        self._process = subprocess.Popen(  # noqa: S603 - this very file
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )
        self.port: int = self._answer()
        """Where clients connect, on 127.0.0.1."""

    def url(self, url: str) -> str:
        """The same URL by way of the proxy."""
        parts = urlsplit(url)
        login, at, _ = parts.netloc.rpartition("@")
        return parts._replace(netloc=f"{login}{at}127.0.0.1:{self.port}").geturl()

    def suffer(self, fault: Fault) -> Traffic:
        """Behave like this from now on, for open connections too.

        Connections that have lost bytes cannot be mended: they are reset as soon as a fault no longer loses any.
        """
        return Traffic(**self._ask("suffer", asdict(fault)))

    def heal(self) -> Traffic:
        """Behave well from now on."""
        return self.suffer(PASS)

    def cut(self) -> Traffic:
        """Reset all open connections, on both sides. New ones are not affected."""
        return Traffic(**self._ask("cut"))

    def suffer_at(self, request: bytes, fault: Fault) -> Traffic:
        """Behave like this from the moment on when bytes that contain these are on their way to the server.

        The fault already applies to them: with `LOST_REPLIES` the server gets them, and its answer is lost.

        Args:
            request: As `b"COMMIT"`; it must arrive in one piece.
            fault: Begins once.
        """
        return Traffic(**self._ask("suffer_at", request.hex(), asdict(fault)))

    def traffic(self) -> Traffic:
        """What was seen so far."""
        return Traffic(**self._ask("traffic"))

    def close(self) -> None:
        """End it and all its connections. Safe to call twice."""
        self._process.kill()
        self._process.communicate()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self, what: str, *arguments: object) -> Any:
        stdin = self._process.stdin
        assert stdin is not None
        stdin.write(json.dumps([what, *arguments]).encode() + b"\n")
        stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the proxy has ended with {self._process.wait()}")
        return json.loads(line)


# ---- the other process -----------------------------------------------------------------------------------------------

_Direction = Literal["requests", "replies"]
_CHUNK = 1 << 16
_NO_TIME = struct.pack("ii", 1, 0)
"""For SO_LINGER: closing does not wait for anything, it resets the connection."""


@dataclass(eq=False)
class _Line:
    """A connection of a client, and the one to the server that belongs to it."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    lossy: bool = False

    def reset(self) -> None:
        _reset(self.client)
        _reset(self.server)


def _reset(writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):  # closed already
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_TIME)
    writer.transport.abort()


class _Switchboard:
    """The lines, and the fault that all of them suffer."""

    def __init__(self, host: str, port: int) -> None:
        self.fault = PASS
        self.seen = Traffic()
        self._target = (host, port)
        self._lines: set[_Line] = set()
        self._changed = asyncio.Event()
        self._trap: tuple[bytes, Fault] | None = None
        self._listening: asyncio.Server | None = None
        # Bound and never listening: while connections are refused, the port stays ours.
        self._reserved = _bound(0)
        self.port: int = self._reserved.getsockname()[1]

    async def suffer(self, fault: Fault) -> None:
        self.fault = fault
        self._changed.set()
        self._changed = asyncio.Event()
        if "lose" not in {fault.requests, fault.replies}:
            self.cut(lossy=True)
        if fault.accept and self._listening is None:
            self._listening = await asyncio.start_server(self._accept, sock=_bound(self.port))
        elif not fault.accept and self._listening is not None:
            self._listening.close()
            self._listening = None

    def set_trap(self, request: bytes, fault: Fault) -> None:
        self._trap = (request, fault)

    def cut(self, *, lossy: bool = False) -> None:
        for line in list(self._lines):
            if line.lossy or not lossy:
                self._cut(line)

    def _cut(self, line: _Line) -> None:
        if line in self._lines:
            self._lines.discard(line)
            self._count(cut=1)
            line.reset()

    async def _accept(self, requests: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        self._count(accepted=1)
        try:
            replies, server = await asyncio.open_connection(*self._target)
        except OSError:
            _reset(client)
            return
        line = _Line(client, server)
        self._lines.add(line)
        await asyncio.gather(
            self._carry("requests", requests, server, line), self._carry("replies", replies, client, line)
        )
        if not line.lossy:  # a line that has lost the news of its end stays open on the other side, as it would
            self._lines.discard(line)
            client.transport.abort()
            server.transport.abort()

    async def _carry(
        self, direction: _Direction, source: asyncio.StreamReader, sink: asyncio.StreamWriter, line: _Line
    ) -> None:
        """Carry what one side says, and its end, to the other one."""
        try:
            while True:
                data = await source.read(_CHUNK)
                way = await self._decide(direction, data)
                if way == "cut":
                    self._cut(line)
                elif way == "lose":
                    line.lossy = True
                    self._count(lost=len(data))
                elif data:
                    await self._send(data, sink)
                    self._count(**{direction: len(data)})
                else:
                    sink.write_eof()
                if not data:
                    return
        except OSError:  # one side is gone without a word, and so the other one is told
            if getattr(self.fault, direction) == "pass":
                line.reset()
            else:
                line.lossy = True

    async def _decide(self, direction: _Direction, data: bytes) -> Way:
        if direction == "requests" and self._trap is not None and self._trap[0] in data:
            (_, fault), self._trap = self._trap, None
            await self.suffer(fault)
        if self.fault.delay:
            await asyncio.sleep(self.fault.delay)
        while (way := self.fault.requests if direction == "requests" else self.fault.replies) == "hold":
            await self._changed.wait()
        return way

    async def _send(self, data: bytes, sink: asyncio.StreamWriter) -> None:
        size = self.fault.slice or len(data)
        for start in range(0, len(data), size):
            sink.write(data[start : start + size])
            await sink.drain()
            if start + size < len(data):
                await asyncio.sleep(0.0005)  # or the kernel would put the pieces together again

    def _count(self, **more: int) -> None:
        self.seen = replace(self.seen, **{name: getattr(self.seen, name) + each for name, each in more.items()})

    def traffic(self) -> Traffic:
        return replace(self.seen, open=len(self._lines))


def _bound(port: int) -> socket.socket:
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    bound.bind(("127.0.0.1", port))
    return bound


def _say(answer: object) -> None:
    sys.stdout.write(f"{json.dumps(answer)}\n")
    sys.stdout.flush()


async def _serve(host: str, port: int) -> None:
    """Answer each line on stdin by one on stdout, until there are no more."""
    switchboard = _Switchboard(host, port)
    await switchboard.suffer(PASS)
    orders = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    _say(switchboard.port)
    while line := await orders.readline():
        match json.loads(line):
            case ["suffer", fault]:
                await switchboard.suffer(Fault(**fault))
            case ["suffer_at", request, fault]:
                switchboard.set_trap(bytes.fromhex(request), Fault(**fault))
            case ["cut"]:
                switchboard.cut()
        _say(asdict(switchboard.traffic()))


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1], int(sys.argv[2])))
