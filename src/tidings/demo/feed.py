"""The feed: publishes what the outside world reported.

It may be killed at any moment and started again, and the file may hold a line twice: the id of a line becomes the id
of its message, and a store keeps one message of an id. A line that cannot be used is put aside, not dropped.
"""

from __future__ import annotations

import asyncio
import time
from datetime import datetime
from pathlib import Path

from tidings import App, errors
from tidings.demo.datafile import AnyLine, Unreadable, lines, parse

BATCH = 500
"""Lines under way at once: what is published together is committed together."""


class Feed:
    """Publishes a file.

    Attributes:
        fed: Lines done so far.
        time: The time of the newest line, as the file has it.
        bad: The lines that were put aside, and why, in words.
    """

    def __init__(self, app: App, path: Path, *, speed: float | None = None) -> None:
        """Args: app: publishes. path: the file. speed: times real time; None means as fast as it goes."""
        if speed is not None and not speed > 0:  # NaN is not, either
            raise errors.BadArgument(f"the speed is {speed}", "give a number above 0: how many times real time")
        self.fed = 0
        self.time: datetime | None = None
        self.bad: list[str] = []
        self._app = app
        self._path = path
        self._speed = speed
        self._start = (0.0, 0.0)

    async def run(self) -> None:
        """Publish every line, in order."""
        batch: list[tuple[bytes, AnyLine]] = []
        for raw in lines(self._path):
            try:
                line = parse(raw)
            except Unreadable as error:
                await self._put_aside(raw, str(error))
                continue
            wait = self._seconds_until(line.time)
            if wait > 0 or len(batch) == BATCH:
                await self._publish(batch)
                batch.clear()
                await asyncio.sleep(wait)
            batch.append((raw, line))
        await self._publish(batch)

    async def _publish(self, batch: list[tuple[bytes, AnyLine]]) -> None:
        results = await asyncio.gather(
            *(self._app.publish(line.data, id=line.id) for _, line in batch), return_exceptions=True
        )
        for (raw, line), result in zip(batch, results, strict=True):
            match result:
                case errors.IdConflict() | errors.BadPayload() | errors.BadArgument():
                    await self._put_aside(raw, result.what)
                case BaseException():
                    raise result
                case _:
                    self.fed += 1
                    self.time = line.time

    async def _put_aside(self, raw: bytes, why: str) -> None:
        """Keep the line among the dead letters, byte for byte."""
        await self._app.receive(raw)
        self.fed += 1
        self.bad.append(why)

    def _seconds_until(self, moment: datetime) -> float:
        """How long to wait for a moment of the file; the first one asked for is now."""
        if self._speed is None:
            return 0.0
        if self.time is None:
            self.time = moment
            self._start = (time.monotonic(), moment.timestamp())
        began, first = self._start
        return max(0.0, began + (moment.timestamp() - first) / self._speed - time.monotonic())
