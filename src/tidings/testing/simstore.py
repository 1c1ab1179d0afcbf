"""A store as simulated processes see it: calls take time, fail, or leave their outcome open, as the seed decides.

It wraps a real store that runs on the event loop's own thread. Between any two calls the simulation may stop the worker
for good; what the store has then is what the kernel would have kept.
"""

from __future__ import annotations

import asyncio
import inspect
import random
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tidings.core.operations import Op
from tidings.core.ports import Rows, Store, StoreTransaction
from tidings.errors import Fenced, OutcomeUnknown, StoreUnavailable, WrongVersion
from tidings.testing.sim import WORKER, Worker, sometimes


@dataclass
class Weather:
    """What may happen to a call, drawn anew for each seed.

    Args:
        random: Decides each case.
        slow: Four times the longest time a call takes, seconds.
        failing: Probability that a write fails, with nothing done.
        unknown: Probability that a write is done and its answer is lost.
        noted: Called with what happened, for the history.
    """

    random: random.Random
    slow: float = 0.0
    failing: float = 0.0
    unknown: float = 0.0
    noted: Callable[[str], None] = lambda _: None

    async def pause(self) -> None:
        """Let others run, and sometimes time pass."""
        draw = self.random.random()
        await asyncio.sleep(draw * self.slow if draw < 0.25 else 0)  # noqa: PLR2004 - a quarter of all calls

    def before(self) -> None:
        """Perhaps fail."""
        if self.random.random() < self.failing:
            sometimes("a write failed")
            self.noted("write failed")
            raise StoreUnavailable("the simulated store could not be reached", "nothing was done")

    def after(self) -> None:
        """Perhaps lose the answer."""
        if self.random.random() < self.unknown:
            sometimes("an outcome was unknown")
            self.noted("answer lost")
            raise OutcomeUnknown("the simulated store did not answer", "it was done")

    def clear(self) -> None:
        """From now on everything works."""
        self.failing = self.unknown = 0.0


class Turn:
    """Whose turn it is to write to one file; the turn of a process that dies passes on."""

    def __init__(self) -> None:
        self.owner: Worker | None = None
        self._taken = False
        self._waiting: deque[tuple[Worker | None, asyncio.Future[None]]] = deque()

    async def take(self) -> None:
        """Wait for the turn."""
        worker = WORKER.get()
        while self._taken:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append((worker, future))
            await future
        self._taken, self.owner = True, worker

    def give(self) -> None:
        """Let the next one that lives have it."""
        self._taken, self.owner = False, None
        while self._waiting:
            worker, future = self._waiting.popleft()
            if not (future.done() or (worker is not None and worker.crashed)):
                future.set_result(None)
                return


class SimStore:
    """One process's access to a simulated store; implements `tidings.core.ports.Store`.

    Args:
        store: The real one, without threads. It is closed as the kernel would when the worker crashes.
        turn: Shared by all processes on the file.
        weather: What may happen.
        worker: The process, or None for the one that judges in the end.
        vanish: Closes the real store's files at once, undoing what was not committed.
    """

    def __init__(
        self, store: Store, turn: Turn, weather: Weather, worker: Worker | None, vanish: Callable[[], None]
    ) -> None:
        self._store = store
        self._turn = turn
        self._weather = weather
        self._worker = worker
        self._vanish = vanish
        self.url = store.url
        self.guarantees = store.guarantees
        if worker is not None:
            worker.at_crash.append(self._crashed)

    def _crashed(self) -> None:
        inside = self._turn.owner is self._worker
        self._vanish()
        if inside:
            sometimes("a worker crashed inside a transaction")
            self._turn.give()

    def __getattr__(self, name: str) -> Any:
        """Everything that reads, and opening and closing: as the real store does it, after a moment."""
        found = getattr(self._store, name)
        if not inspect.iscoroutinefunction(found):
            return found

        async def call(*arguments: Any, **options: Any) -> Any:
            if name not in {"grown", "watch"}:
                await self._weather.pause()
            return await found(*arguments, **options)

        return call

    async def write(self, op: Op) -> Any:
        """Apply an operation."""
        await self._weather.pause()
        self._weather.before()
        await self._turn.take()
        try:
            result = await noticed(self._store.write(op))
        finally:
            self._turn.give()
        await self._weather.pause()
        self._weather.after()
        return result

    async def begin(self) -> SimTransaction:
        """Start a transaction."""
        await self._weather.pause()
        self._weather.before()
        await self._turn.take()
        try:
            return SimTransaction(await self._store.begin(), self._turn, self._weather)
        except BaseException:
            self._turn.give()
            raise


class SimTransaction:
    """A transaction of a simulated process; implements `tidings.core.ports.StoreTransaction`."""

    def __init__(self, raw: StoreTransaction, turn: Turn, weather: Weather) -> None:
        self._raw = raw
        self._turn = turn
        self._weather = weather
        self._open = True
        self.waiting = False

    async def execute(self, sql: str, params: Sequence[Any] = ()) -> Rows:
        """Run one statement."""
        return await self._raw.execute(sql, params)

    async def executemany(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        """Run one statement for many rows."""
        await self._raw.executemany(sql, rows)

    async def load(self, stream: str, after: int = 0) -> Sequence[tuple[str, bytes, int]]:
        """A stream's events."""
        return await self._raw.load(stream, after)

    async def apply(self, op: Op) -> Any:
        """Apply an operation."""
        return await noticed(self._raw.apply(op))

    async def connection(self) -> Any:
        """The driver's connection."""
        return await self._raw.connection()

    async def savepoint(self) -> None:
        """Mark a place."""
        await self._raw.savepoint()

    async def keep(self) -> None:
        """Keep what was done since."""
        await self._raw.keep()

    async def undo(self) -> None:
        """Undo what was done since."""
        await self._raw.undo()

    def defer(self) -> None:
        """Let changes go out later."""
        self._raw.defer()

    async def flush(self) -> None:
        """Have them done."""
        await self._raw.flush()

    async def commit(self) -> None:
        """Make it durable; others go first, or the process ends, before and after."""
        await self._weather.pause()
        try:
            self._weather.before()
            await self._raw.commit()
        except BaseException:
            await self._raw.rollback()
            raise
        finally:
            self._give()
        await self._weather.pause()
        self._weather.after()

    async def rollback(self) -> None:
        """Undo it all."""
        if self._open:
            await self._raw.rollback()
            self._give()

    def interrupt(self) -> None:
        """Nothing takes long here."""

    def _give(self) -> None:
        if self._open:
            self._open = False
            self._turn.give()


async def noticed(applying: Awaitable[Any]) -> Any:
    """The result, with a note of the refusals that a simulation hopes to see."""
    try:
        return await applying
    except Fenced:
        sometimes("a stale result was refused")
        raise
    except WrongVersion:
        sometimes("an append met a conflict")
        raise
