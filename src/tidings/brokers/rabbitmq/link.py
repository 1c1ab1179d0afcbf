"""A connection that is made again whenever it ends."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable

from tidings.brokers.rabbitmq.connection import Connection
from tidings.brokers.rabbitmq.settings import Settings
from tidings.errors import BrokerError, BrokerUnavailable

FIRST, LONGEST = 0.1, 3.0
"""Seconds before it is tried again: at first, and at most. Half of it is left to chance, lest all come at once."""

STEADY = 5.0
"""Seconds after which a connection counts as good, and the next pause is short again."""

_log = logging.getLogger("tidings.rabbitmq")


class Pause:
    """How long to wait before the next try: longer each time, until something held for a while."""

    def __init__(self) -> None:
        self._next = FIRST
        self._began = 0.0

    def begin(self) -> None:
        """Something works from now on."""
        self._began = asyncio.get_running_loop().time()

    async def wait(self) -> None:
        """Wait before the next try."""
        if self._began and asyncio.get_running_loop().time() - self._began > STEADY:
            self._next = FIRST
        self._began = 0.0
        await asyncio.sleep(self._next * random.uniform(0.5, 1.0))  # noqa: S311 - no secret
        self._next = min(2 * self._next, LONGEST)


class Link:
    """Keeps a connection for a purpose. Its owner's `serve` runs as long as each connection lives.

    Attributes:
        trouble: Why there is no connection at the moment, or None.
        connection: The one there is, or None.
    """

    def __init__(self, settings: Settings, purpose: str, serve: Callable[[Connection], Awaitable[None]]) -> None:
        self.trouble: BrokerError | None = None
        self.connection: Connection | None = None
        self._settings = settings
        self._purpose = purpose
        self._serve = serve
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._tries = 0

    async def start(self) -> None:
        """Begin, and wait for the first connection; later it is called to no effect.

        Raises:
            BrokerError: There is none at the moment.
        """
        if self._task is None:
            self._task = asyncio.create_task(self._run())
            while not self._tries:
                await self.changed()
        if self.trouble is not None:
            raise self.trouble

    async def changed(self) -> None:
        """Wait until a connection was made, lost or not to be had."""
        await self._changed.wait()

    async def stop(self) -> None:
        """End it: what was sent is seen by the server before."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        if self.connection is not None:
            await self.connection.close()
            self.connection = None
        self._ring()

    async def _run(self) -> None:
        pause = Pause()
        while True:
            try:
                connection = await Connection.open(self._settings, self._purpose)
            except BrokerError as error:
                self._note(error)
            else:
                pause.begin()
                self.connection = connection
                self._note(None)
                try:
                    await self._serve(connection)
                except Exception as error:  # noqa: BLE001 - a mistake of ours must not end what is to go on for ever
                    _log.exception(
                        "RabbitMQ at %s: the connection to %s is made anew", self._settings.place, self._purpose
                    )
                    connection.abort(repr(error))
                ending = await connection.end()
                self.connection = None
                what = f"RabbitMQ at {self._settings.place}: the connection is lost: {ending.text}"
                self._note(BrokerUnavailable(what, "it is made again by itself"))
            await pause.wait()

    def _note(self, trouble: BrokerError | None) -> None:
        if trouble is None and self.trouble is not None:
            _log.info("RabbitMQ at %s: connected again, to %s", self._settings.place, self._purpose)
        elif trouble is not None and self._tries and (self.trouble is None or self.trouble.what != trouble.what):
            _log.warning("%s", trouble)
        self.trouble = trouble
        self._tries += 1
        self._ring()

    def _ring(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
