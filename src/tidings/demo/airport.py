"""Puts the apps together and runs them in one process, until there is nothing left to do.

They could as well run in six processes on the same file: nothing but the store connects them. Or nothing but a broker:
then each has a store of its own.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from tidings import App, run
from tidings.core.part import Part
from tidings.demo import aircraft, alerts, board, flights
from tidings.demo.feed import Feed
from tidings.demo.names import publish_names
from tidings.demo.progress import Show, Status


def store_of(url: str, name: str) -> str:
    """The URL of an app's own store, beside those of the others: another file, or another schema."""
    before, mark, options = url.partition("?")
    if url.startswith("sqlite:"):
        stem, dot, suffix = before.rpartition(".")
        return f"{stem}-{name}.{suffix}" if dot else f"{before}-{name}"
    return f"{before}?{options}{mark and '&'}schema={name}"


class Stopped(Exception):
    """The apps were asked to stop before everything was done, by the signal that is the argument."""


class Airport:
    """All apps on one store; `async with` opens and closes them."""

    def __init__(
        self, url: str, data: Path, lines: int, *, speed: float | None = None, broker: str | None = None
    ) -> None:
        """Args: url: of the store. data: the file, of so many lines. speed: times real time, or None. broker: its URL.

        With a broker each app has a store of its own, made from the URL and its name.
        """

        def made(name: str, *parts: Part) -> App:
            return App(url if broker is None else store_of(url, name), *parts, broker=broker, name=name)

        self.names = made("names")
        self.tower = made("tower")
        self.flights = made("flights", flights.flights)
        self.board = made("board", board.departures, board.punctuality, board.carriers, board.airports)
        self.alerts = made("alerts", alerts.alerts)
        self.aircraft = made("aircraft", aircraft.aircraft)
        self.apps = (self.names, self.tower, self.flights, self.board, self.alerts, self.aircraft)
        self.feed = Feed(self.tower, data, speed=speed)
        self.lines = lines
        self.groups = {f"{app.name}.{each.group}" for app in self.apps for each in app.subscriptions()}
        self._open = AsyncExitStack()

    async def __aenter__(self) -> Self:
        for app in self.apps:
            await self._open.enter_async_context(app)
        for app, schema in ((self.alerts, alerts.SCHEMA), (self.aircraft, aircraft.SCHEMA)):
            async with app.transaction() as tx:  # tables of handlers; those of projections come by themselves
                await tx.execute(schema)
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

    async def run_only(self, names: Collection[str]) -> None:
        """Run some of the apps until they are asked to stop; the others run elsewhere, at the same broker."""
        feeding = asyncio.create_task(self._feed(names))
        try:
            await run(*(app for app in self.apps if app.name in names))
        finally:
            feeding.cancel()

    async def _feed(self, names: Collection[str] = ("names", "tower")) -> None:
        """What comes from outside: the names, and the flights."""
        if "names" in names:
            await publish_names(self.names)
        if "tower" in names:
            await self.feed.run()

    async def _keep_showing(self, show: Show) -> None:
        while True:
            began = time.monotonic()
            show(await self._look())
            # Looking costs something while much is waiting: spend no more than a tenth of the time on it.
            await asyncio.sleep(max(0.05, 9 * (time.monotonic() - began)))

    async def _look(self) -> Status:
        """How far everything is."""
        stores = {id(app.store): app.store for app in self.apps}.values()
        backlogs = [group for store in stores for group in await store.backlog()]
        groups = {group.group: group for group in backlogs if group.group in self.groups}
        lag = {name: group.lag for name, group in groups.items()}
        decided = max(0, self.feed.fed - lag.get("flights.flight", 0))
        [(mails,)] = await self.alerts.store.query("SELECT count(*) FROM mail")
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
