"""Waiting: for the log to grow, where callers of one event loop share a bell and a slow look; and for a commit."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, Protocol
from weakref import WeakKeyDictionary

from tidings.core.envelope import Envelope
from tidings.core.ports import Changed

LOOK_EVERY = 0.5
"""Seconds between looks at the file, in case a bell was not heard."""


class Doorbell(Protocol):
    """How other processes are heard; see `tidings.stores.sqlite.doorbell`."""

    def bind(self) -> socket.socket | None:
        """A bell of our own, None where the system has none."""

    def unbind(self, bell: socket.socket) -> None:
        """Take a bell of ours away."""


class WaitingRoom:
    """The callers of `grown` and `watch` in one event loop."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, doorbell: Doorbell | None, look: Callable[[], int] | None
    ) -> None:
        """Args: doorbell: of the store, None for none. look: PRAGMA data_version, None for no looking."""
        self._loop = loop
        self._look = look
        self._doorbell = doorbell
        self._waiters: set[asyncio.Future[None]] = set()
        self._listeners: list[Changed] = []
        self._changes = 1
        self._seen: WeakKeyDictionary[asyncio.Task[Any], int] = WeakKeyDictionary()
        self._timer: asyncio.TimerHandle | None = None
        self._version = look() if look else 0
        self._bell: socket.socket | None = doorbell.bind() if doorbell else None
        if self._bell is not None:
            try:
                loop.add_reader(self._bell.fileno(), self._rung)
            except NotImplementedError:
                self.silence()

    def wake(self, envelopes: Sequence[Envelope] = (), positions: Sequence[int] = ()) -> None:
        """Make every caller return, and call every listener. Called in the loop.

        Args: envelopes, positions: what was appended, where that is known and all.
        """
        self._changes += 1
        for listener in self._listeners:
            listener(envelopes, positions)
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._waiters.clear()

    def wake_soon(self, envelopes: Sequence[Envelope], positions: Sequence[int]) -> None:
        """Do so soon. Called on any thread; nobody waiting costs the loop nothing.

        Raises:
            RuntimeError: The loop was closed.
        """
        self._changes += 1  # before looking for callers, as a caller looks at it after making itself seen
        if self._waiters or self._listeners:
            self._loop.call_soon_threadsafe(self.wake, envelopes, positions)
        elif self._loop.is_closed():
            raise RuntimeError

    def attend(self) -> None:
        """From now on no wake escapes this task, however long it is until it waits."""
        task = asyncio.current_task(self._loop)
        if task is not None:
            self._seen.setdefault(task, self._changes)

    async def wait(self, timeout: float) -> bool:
        """Return True at the next wake, or at once if one came since this task returned last; False in `timeout` s."""
        task = asyncio.current_task(self._loop)
        seen = self._changes
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._waiters.add(waiter)
        if task is not None:
            before = self._seen.get(task, seen)
            self._seen[task] = self._changes
            if before != self._changes:
                self._waiters.discard(waiter)
                return True
        timer = self._loop.call_later(timeout, _time_is_up, waiter)
        self._look_now_and_then()
        try:
            await waiter
            return self._changes != seen
        finally:
            timer.cancel()
            self._waiters.discard(waiter)
            if task is not None:
                self._seen[task] = self._changes

    @contextlib.contextmanager
    def listening(self, listener: Changed) -> Iterator[None]:
        """Call somebody now, and at each wake meanwhile: right there; a task would hear of it a round later."""
        self._listeners.append(listener)
        try:
            listener((), ())
            self._look_now_and_then()
            yield
        finally:
            self._listeners.remove(listener)

    def _look_now_and_then(self) -> None:
        if self._look is not None and self._timer is None:
            self._timer = self._loop.call_later(LOOK_EVERY, self._look_again)

    def _rung(self) -> None:
        bell = self._bell
        if bell is None:
            return
        with contextlib.suppress(OSError):
            while bell.recv(16):
                pass
        self.wake()

    def _look_again(self) -> None:
        self._timer = None
        if self._look is None:
            return
        version = self._look()
        if version != self._version:
            self._version = version
            self.wake()
        if self._waiters or self._listeners:
            self._look_now_and_then()

    def silence(self) -> None:
        """Take the bell away."""
        if self._bell is not None and self._doorbell is not None:
            self._doorbell.unbind(self._bell)
            self._bell = None

    def close(self) -> None:
        """Wake everybody a last time. Called in the loop."""
        if self._bell is not None:
            self._loop.remove_reader(self._bell.fileno())
        self.silence()
        if self._timer is not None:
            self._timer.cancel()
        self._look = None
        self.wake()


class Rooms(dict[asyncio.AbstractEventLoop, WaitingRoom]):
    """The waiting rooms of a store, one for each event loop in which somebody ever waited."""

    def __init__(self, doorbell: Doorbell | None, look: Callable[[], int] | None) -> None:
        """Args: doorbell: None for a store without other processes. look: PRAGMA data_version."""
        super().__init__()
        self._doorbell = doorbell
        self._look = look

    def here(self) -> WaitingRoom:
        """The room of the running loop."""
        loop = asyncio.get_running_loop()
        room = self.get(loop)
        if room is None:
            room = self[loop] = WaitingRoom(loop, self._doorbell, self._look)
        return room

    def wake(
        self,
        envelopes: Sequence[Envelope] = (),
        positions: Sequence[int] = (),
        told: AbstractSet[Any] = frozenset(),
    ) -> None:
        """Wake everybody, from any thread, except in loops that were told: right here in the running one, if any.

        Args: envelopes, positions: what was appended, where that is known and all.
        """
        here = running_loop()
        for loop, room in list(self.items()):
            if loop in told:
                continue
            if loop is here:
                room.wake(envelopes, positions)
                continue
            try:
                room.wake_soon(envelopes, positions)
            except RuntimeError:  # that loop was closed
                self.pop(loop, None)
                room.silence()

    def close(self) -> None:
        """Close all rooms, from any thread."""
        for loop, room in list(self.items()):
            if loop.is_closed():
                room.silence()
                continue
            if running_loop() is loop:
                room.close()
            else:
                with contextlib.suppress(RuntimeError):
                    loop.call_soon_threadsafe(room.close)
        self.clear()


class Reply:
    """What a blocking caller waits for."""

    __slots__ = ("_arrived", "_outcome")

    def __init__(self) -> None:
        self._arrived = threading.Lock()
        self._arrived.acquire()
        self._outcome: tuple[Any, BaseException | None] = (None, None)

    def give(self, outcome: tuple[Any, BaseException | None]) -> None:
        """Wake the caller."""
        self._outcome = outcome
        self._arrived.release()

    def wait(self) -> Any:
        """The result, or raise the error."""
        self._arrived.acquire()
        result, error = self._outcome
        if error is not None:
            raise error
        return result


def _time_is_up(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


def running_loop() -> asyncio.AbstractEventLoop | None:
    """The loop of this thread; None where a blocking caller drives a coroutine by hand."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
