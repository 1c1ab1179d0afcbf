"""The relay: moves what transactions of the user's own left in the outbox to the log.

Every worker has one, and nobody leads: the store lets one of them move at a time, and who comes second finds nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging

from tidings.core.operations import Appended, Ship
from tidings.core.ports import Store
from tidings.errors import TidingsError

log = logging.getLogger("tidings")

SHORTEST, LONGEST = 0.002, 0.25
"""Seconds between looks at the outbox: doubled each time that it is empty."""


class Relay:
    """Looks into the outbox of one store, and moves what it finds."""

    def __init__(self, store: Store) -> None:
        """Args: store: open while the relay runs."""
        self._store = store
        self._expecting = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    async def run(self) -> None:
        """Move what is committed, as it is committed, until cancelled; trouble that passes is waited out."""
        self._loop = asyncio.get_running_loop()
        while True:
            try:
                await self._follow()
            except TidingsError as error:
                if not error.transient:
                    raise
                log.error("the outbox waits: %s", error)  # noqa: TRY400 - expected while the store is full or away
                await asyncio.sleep(LONGEST)

    async def _follow(self) -> None:
        pause = SHORTEST
        while True:
            if await self._store.oldest_outgoing() is not None and await self._ship():
                pause = SHORTEST
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._expecting.wait()
                    pause = 0.0
            self._expecting.clear()
            pause = min(LONGEST, max(SHORTEST, pause * 2))

    def expect(self) -> None:
        """Look more often for a while: something was written here that will be committed soon. From any thread."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed, so that nobody waits
                self._loop.call_soon_threadsafe(self._expecting.set)

    async def empty(self) -> int:
        """Move everything that is committed now; returns how many rows left."""
        count = 0
        while moved := await self._ship():
            count += moved
        return count

    async def _ship(self) -> int:
        shipped: Appended = await self._store.write(Ship())
        return len(shipped.positions)
