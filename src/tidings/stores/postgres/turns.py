"""The writer of an event loop: it commits in that loop, and what its tasks write in one round of it shares a commit.

Where one task writes alone, its commit goes out at once. A quick commit is waited for on the spot, for to go through
the event loop takes as long; while a slower one is under way, the next batch collects by itself.
"""

from __future__ import annotations

import asyncio
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator, Sequence
from typing import Any, TypeVar

from tidings.core.operations import Op
from tidings.stores.news import News
from tidings.stores.postgres.committer import Committed, Committer, Outcome
from tidings.stores.postgres.writer import BATCH, check_open, last_position
from tidings.stores.rounds import Rounds

PATIENCE = 0.001
"""Seconds that a commit is waited for on the spot; where it mostly takes longer, it is not."""

T = TypeVar("T")
_Job = tuple[Op, asyncio.Future[Any]]


class LoopWriter:
    """Shares one write connection between all tasks of one event loop."""

    def __init__(self, committer: Committer, grew: Callable[[int, News], None]) -> None:
        """Wire it; nothing is connected.

        Args:
            committer: Owner of a connection of the running loop.
            grew: Called after a commit, before its callers know, with the last position and what readers should know.
        """
        self._committer = committer
        self._grew = grew
        self._loop = asyncio.get_running_loop()
        self._waiting: list[_Job] = []
        self._task: asyncio.Task[None] | None = None  # that commits, where that lasts
        self._is_busy = False
        self._rounds = Rounds(self._loop)
        self._closed = False

    async def write(self, op: Op) -> Any:
        """Commit an operation. Its caller may be cancelled meanwhile, which changes nothing for the others."""
        check_open(len(self._waiting), closed=self._closed)
        if self._is_busy or self._waiting or not self._rounds.is_alone():
            future = self._loop.create_future()
            self._waiting.append((op, future))
            if len(self._waiting) == 1 and not self._is_busy:
                self._loop.call_soon(self._end_turn)
            return await future
        self._is_busy = True
        is_done, value = self._start(self._committer.commit_one(op))
        if not is_done:
            future = self._loop.create_future()
            self._task = self._loop.create_task(self._commit_all([(op, future)], value))
            return await future
        self._rest()
        [(result, refusal)], news = value
        if news is not None:
            self._grew(last_position((result,)), news)
        if self._rounds.is_long():
            await asyncio.sleep(0)
        if refusal is not None:
            raise refusal
        return result

    def _end_turn(self) -> None:
        self._rounds.crowded = len(self._waiting) > 1
        if self._waiting and not self._is_busy:
            self._commit(self._take())

    def _take(self) -> list[_Job]:
        jobs, self._waiting = self._waiting[:BATCH], self._waiting[BATCH:]
        return jobs

    def _commit(self, jobs: list[_Job]) -> None:
        """Commit jobs and what comes meanwhile: now, as far as nothing must be waited for; the rest in a task."""
        self._is_busy = True
        is_done, value = self._start(self._commit_all(jobs))
        if not is_done:
            self._task = self._loop.create_task(value)

    def _start(self, coroutine: Coroutine[Any, Any, Any]) -> tuple[bool, Any]:
        """Run until it waits. Returns (True, its result), or (False, a coroutine that goes on with it)."""
        try:
            return False, _go_on(coroutine, coroutine.send(None))
        except StopIteration as stop:
            return True, stop.value
        except BaseException:
            self._rest()
            raise

    async def _commit_all(self, jobs: list[_Job], begun: Awaitable[Committed] | None = None) -> None:
        """Args: begun: goes on with the commit of these jobs."""
        try:
            while jobs:
                if begun is None:
                    begun = self._committer.commit_all([op for op, _ in jobs])
                outcomes, news = await begun
                begun = None
                if news is not None:
                    self._grew(last_position([result for result, _ in outcomes]), news)
                _tell(jobs, outcomes)
                if len(jobs) > 1:  # those who know now write again, and share the next commit with those who wait
                    await asyncio.sleep(0)
                jobs = self._take()
        except BaseException as error:
            for _, future in [*jobs, *self._waiting]:
                if not future.done():
                    future.set_exception(error)
            self._waiting.clear()
            raise
        finally:
            self._task = None
            self._rest()

    def _rest(self) -> None:
        self._is_busy = False
        if self._closed:
            self._committer.close()

    async def close(self) -> None:
        """Finish what waits."""
        self.close_soon()
        if self._waiting and not self._is_busy:
            self._commit(self._take())
        if (task := self._task) is not None:
            await asyncio.wait((task,))

    def close_soon(self) -> None:
        """Take nothing any more, and close the connection when what waits is finished; from any thread."""
        self._closed = True
        if not self._is_busy and not self._waiting:
            self._committer.close()


def _tell(jobs: Sequence[_Job], outcomes: Sequence[Outcome]) -> None:
    for (_, future), (result, refusal) in zip(jobs, outcomes, strict=True):
        if not future.done():
            if refusal is None:
                future.set_result(result)
            else:
                future.set_exception(refusal)


@types.coroutine
def _go_on(coroutine: Coroutine[Any, Any, T], waits_for: Any) -> Generator[Any, Any, T]:
    """Go on with a coroutine that was started by hand and is suspended. Args: waits_for: what it yielded."""
    try:
        while True:
            try:
                value = yield waits_for
            except BaseException as error:  # noqa: BLE001 - passed on, as `yield from` would
                waits_for = coroutine.throw(error)
            else:
                waits_for = coroutine.send(value)
    except StopIteration as stop:
        result: T = stop.value
        return result
