"""Puts the apps together and runs them in one process, until there is nothing left to do.

They could as well run in six processes on the same file: nothing but the store connects them.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from tidings import App, run
from tidings.demo import aircraft, alerts, board, flights
from tidings.demo.feed import Feed
from tidings.demo.names import publish_names
from tidings.demo.progress import Show, Status


class Stopped(Exception):
    """The apps were asked to stop before everything was done, by the signal that is the argument."""


class Airport:
    """All apps on one store; `async with` opens and closes them."""

    def __init__(self, url: str, data: Path, lines: int, *, speed: float | None = None) -> None:
        """Args: url: of the store. data: the file, of so many lines. speed: times real time, or None."""
        self.names = App(url, name="names")
        self.tower = App(url, name="tower")
        self.flights = App(url, flights.flights, name="flights")
        self.board = App(url, board.departures, board.punctuality, board.carriers, board.airports, name="board")
        self.alerts = App(url, alerts.alerts, name="alerts")
        self.aircraft = App(url, aircraft.aircraft, name="aircraft")
        self.apps = (self.names, self.tower, self.flights, self.board, self.alerts, self.aircraft)
        self.feed = Feed(self.tower, data, speed=speed)
        self.lines = lines
        self.groups = {f"{app.name}.{each.group}" for app in self.apps for each in app.subscriptions()}
        self._open = AsyncExitStack()

    async def __aenter__(self) -> Self:
        for app in self.apps:
            await self._open.enter_async_context(app)
        async with self.board.transaction() as tx:  # tables of handlers; those of projections come by themselves
            await tx.execute(alerts.SCHEMA)
            await tx.execute(aircraft.SCHEMA)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._open.aclose()

    async def run(self, show: Show) -> Status:
        """Run all apps, and show how far they are, until the file is read and nothing is left to do.

        Raises:
            Stopped: They were asked to stop before, by a signal.
            TidingsError: The file or the store cannot be used.
        """
        showing = asyncio.create_task(self._keep_showing(show))
        try:
            stopped = await run(*self.apps, until_idle=self._feed())
        finally:
            showing.cancel()
        if stopped is not None:
            raise Stopped(stopped)
        status = await self._look()
        show(status)
        return status

    async def _feed(self) -> None:
        await publish_names(self.names)
        await self.feed.run()

    async def _keep_showing(self, show: Show) -> None:
        while True:
            began = time.monotonic()
            show(await self._look())
            # Looking costs something while much is waiting: spend no more than a tenth of the time on it.
            await asyncio.sleep(max(0.05, 9 * (time.monotonic() - began)))

    async def _look(self) -> Status:
        """How far everything is."""
        store = self.board.store
        groups = {group.group: group for group in await store.backlog() if group.group in self.groups}
        lag = {name: group.lag for name, group in groups.items()}
        decided = max(0, self.feed.fed - lag.get("flights.flight", 0))
        [(mails,)] = await store.query("SELECT count(*) FROM mail")
        return Status(
            lines=self.lines,
            fed=self.feed.fed,
            decided=decided,
            shown=max(0, decided - lag.get("board.departures", 0)),
            mails=mails,
            retrying=sum(group.retrying for group in groups.values()),
            dead=sum(group.dead for group in groups.values()),
            time=self.feed.time,
        )
