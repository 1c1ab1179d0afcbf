"""The writer: one thread that commits for everybody, all that waits at once.

While one commit is flushed to the disk, the next batch collects by itself; nobody waits on purpose. A caller that may
block commits on its own thread when nobody else is writing, and so does an event loop while commits are quick, which
saves two thread switches. A transaction borrows the write connection: its statements run on the thread of its caller,
and only its commit comes back here.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple

from tidings.core.operations import Op
from tidings.errors import NotOpen, Overloaded
from tidings.stores.news import UNKNOWN, News
from tidings.stores.sqlite.apply import Outcome
from tidings.stores.sqlite.committer import Committer
from tidings.stores.sqlite.transaction import SqliteTransaction
from tidings.stores.sqlite.turns import Turn, Turns
from tidings.stores.waiting import Reply, Rooms, WaitingRoom

MOST_WAITING = 100_000
"""Operations that may wait; one more is refused."""
BATCH = 1000
"""Operations in one commit at most."""
BATCH_HERE = 100
"""The same where an event loop commits itself, which does nothing else meanwhile."""


class _Begin(NamedTuple):
    """Asks for a transaction; `blocking` says what kind of caller."""

    blocking: bool


class _End(NamedTuple):
    """Ends the transaction with this number."""

    number: int
    commit: bool


_STOP = object()
_LOOK = None
"""Has the thread look for what there is to do."""
_Future = asyncio.Future[Any] | Reply | None
_Job = tuple[Any, _Future]


class Writer:
    """Shares the write connection of one store between all threads and event loops of this process."""

    def __init__(self, committer: Committer, rooms: Rooms, ring: Callable[[], None]) -> None:
        """Start the thread.

        Args:
            committer: Owner of the connection.
            rooms: Where callers of this process wait for the log to grow.
            ring: Wakes other processes.
        """
        self._committer = committer
        self._rooms = rooms
        self._ring = ring
        self._queue: SimpleQueue[_Job] = SimpleQueue()
        self._owner = threading.Lock()  # held while the connection is in use
        self._stash: deque[_Job] = deque()
        self._waiting = False
        self._ending = threading.Lock()
        self._turns = Turns()
        self._number = 0  # of the last transaction
        self.lent = 0
        self._closed = self._has_ended = False
        self._thread = threading.Thread(target=self._run, name="tidings-writer", daemon=True)
        self._thread.start()

    # ---- for callers -------------------------------------------------------------------------------------------------

    async def write(self, op: Op) -> Any:
        """Commit an operation of the running loop, here and now if nobody else writes.

        Two thread switches take as long as a quick commit, and waiting for the end of the loop's turn costs a round of
        it; but several operations of one turn share one commit.
        """
        turn = self._turns.here()
        self._check(len(turn.jobs))
        # Asked before the commit wakes others: what they write then is of another round.
        if not turn.jobs and turn.is_alone() and (done := self._commit_here((op,))) is not None:
            if turn.is_long():
                await asyncio.sleep(0)
            [(result, error)] = done
            if error is not None:
                raise error
            return result
        future: asyncio.Future[Any] = turn.loop.create_future()
        turn.jobs.append((op, future))
        if len(turn.jobs) == 1:
            turn.loop.call_soon(self._end_turn, turn)
        return await future

    def _end_turn(self, turn: Turn) -> None:
        jobs = turn.jobs
        turn.jobs, turn.crowded = [], len(jobs) > 1
        if len(jobs) <= BATCH_HERE:
            done = self._commit_here([op for op, _ in jobs])
            if done is not None:
                _resolve([(future, outcome) for (_, future), outcome in zip(jobs, done, strict=True)])
                return
        self._stash.extend(jobs)
        self._put(_LOOK, None)

    def _commit_here(self, ops: Sequence[Op]) -> Sequence[Outcome] | None:
        """Commit operations on the thread of their event loop; None when somebody else is writing, or it may last."""
        if self._closed or self._waiting or not self._queue.empty() or not self._owner.acquire(blocking=False):
            return None
        try:
            done = self._committer.commit_at_once(ops)
            news = self._news(ops, done[0]) if done is not None and done[1] else None
        finally:
            self._release()
        if done is None:
            return None
        if news is not None:
            self._tell(news)
        self._look_at_wal()
        return done[0]

    def write_now(self, op: Op) -> Any:
        """Commit an operation, on this thread if nobody else is writing; who is in the queue then comes next."""
        if self._closed or self._waiting or not self._owner.acquire(blocking=False):
            self._check()
            reply = Reply()
            self._put(op, reply)
            return reply.wait()
        committer = self._committer
        try:
            result, grew = committer.commit_alone(op) or committer.commit_closely(op)  # `commit_one` without its call
            news = self._news((op,), ((result, None),)) if grew and self._rooms else UNKNOWN
        finally:
            self._release()
        if grew:  # what follows is `_tell` and `_look_at_wal`, likewise: 2 % of a lone commit
            if self._rooms:
                self._rooms.wake(*news)
            self._ring()
        wal = committer.wal
        if wal.written > wal.most:
            self._queue.put((_LOOK, None))
        return result

    def _news(self, ops: Sequence[Op], outcomes: Sequence[Outcome]) -> News:
        """What a commit has appended, as far as somebody here wants to know."""
        return self._committer.changes.news(ops, outcomes) if self._rooms else UNKNOWN

    def _tell(self, news: News, told: AbstractSet[Any] = frozenset()) -> None:
        """After a commit: wake who waits, except in loops that were told."""
        if self._rooms:
            self._rooms.wake(*news, told)
        self._ring()

    def _look_at_wal(self) -> None:
        """After a commit on the thread of a caller: have the writer's thread make a checkpoint where one is due."""
        if self._committer.wal.is_due:
            self._queue.put((_LOOK, None))

    def begin_at_once(self) -> SqliteTransaction | None:
        """Begin a transaction for an async caller without waiting for anything; None when somebody else is writing."""
        self._check()
        if self._waiting or not self._queue.empty() or not self._owner.acquire(blocking=False):
            return None
        try:
            if self._committer.begin_at_once():
                return self._lend(blocking=False)
        except BaseException:
            self._release()
            raise
        self._release()
        return None

    def begin(self, future: asyncio.Future[Any]) -> None:
        """Have a transaction begun when it is its turn; the future gets it."""
        self._check()
        self._put(_Begin(blocking=False), future)

    def begin_now(self) -> SqliteTransaction:
        """Begin a transaction, waiting for its turn on this thread."""
        self._check()
        if self._waiting or not self._queue.empty() or not self._owner.acquire(blocking=False):
            reply = Reply()
            self._put(_Begin(blocking=True), reply)
            transaction: SqliteTransaction = reply.wait()
            return transaction
        try:
            return self._open(blocking=True)
        except BaseException:
            self._release()
            raise

    def end(self, number: int, future: asyncio.Future[Any] | None, *, commit: bool) -> None:
        """Have a transaction ended on the writer's thread."""
        self._put(_End(number, commit=commit), future)

    def end_now(self, number: int, *, commit: bool) -> None:
        """End a transaction on this thread."""
        if self._take_back(number):
            try:
                grew = self._committer.finish(commit=commit)
            finally:
                self._release()
            if grew:
                self._tell(UNKNOWN)
            self._look_at_wal()

    def close(self) -> None:
        """Finish what waits, and end the thread."""
        self._closed = True
        self._queue.put((_STOP, None))
        self._thread.join()

    def _put(self, request: Any, future: _Future) -> None:
        self._queue.put((request, future))
        if self._has_ended:  # the thread may not have seen it
            self._refuse_rest()

    def _refuse_rest(self) -> None:
        """Answer what came while the thread ended."""
        refused: Outcome = (None, NotOpen("the store was closed", "write before closing"))
        with contextlib.suppress(IndexError):
            while True:
                self._give([(self._stash.popleft()[1], refused)])
        with contextlib.suppress(Empty):
            while True:
                self._give([(self._queue.get_nowait()[1], refused)])

    def _check(self, more: int = 0) -> None:
        if self._closed:
            raise NotOpen("the store is closed", "open it first: `async with app:`")
        if self._queue.qsize() + len(self._stash) + more > MOST_WAITING:
            raise Overloaded(f"{MOST_WAITING:,} writes wait already", "publish more slowly; this write was not kept")

    # ---- the connection changes hands --------------------------------------------------------------------------------

    def _open(self, *, blocking: bool) -> SqliteTransaction:
        """Begin a transaction; the owner's lock is held, and stays held until it ends."""
        self._committer.begin()
        return self._lend(blocking=blocking)

    def _lend(self, *, blocking: bool) -> SqliteTransaction:
        self._number += 1
        self.lent = self._number
        return SqliteTransaction(self, self._committer, self._number, blocking=blocking)

    def _take_back(self, number: int) -> bool:
        """True for the one caller that ends this transaction."""
        with self._ending:
            if not number or self.lent != number:
                return False
            self.lent = 0
            return True

    def _release(self) -> None:
        self._owner.release()
        if self._waiting:
            self._queue.put((_LOOK, None))  # the thread found the connection in use; it can go on now

    # ---- the thread --------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        queue = self._queue
        stash = self._stash
        stopping = False
        while not stopping:
            job = queue.get()
            while True:
                request = job[0]
                if type(request) is _End:
                    self._end(request, job[1])
                elif request is _STOP:
                    stopping = True
                elif request is not _LOOK:
                    stash.append(job)
                if queue.empty() or len(stash) >= MOST_WAITING:
                    break
                job = queue.get()
            if stash or self._committer.wal.is_due:
                self._waiting = True
                if self._owner.acquire(blocking=False):
                    self._waiting = False
                    self._serve()
        self._end(_End(self.lent, commit=False), None)  # an open transaction does not outlive the store
        self._owner.acquire()
        self._serve(last=True)
        self._has_ended = True
        self._refuse_rest()

    def _serve(self, *, last: bool = False) -> None:
        """Commit what waits; ends early when a transaction takes the connection."""
        stash = self._stash
        while stash:
            request, future = stash[0]
            if type(request) is _Begin:
                stash.popleft()
                if last:
                    self._give([(future, (None, NotOpen("the store was closed", "begin before closing")))])
                else:
                    self._waiting = bool(stash)  # before others can end it
                    if self._hand_over(request, future):
                        return
                continue
            batch: list[_Job] = []
            while stash and len(batch) < BATCH and type(stash[0][0]) is not _Begin:
                batch.append(stash.popleft())
            ops = [job[0] for job in batch]
            outcomes, grew = self._committer.commit_timed(ops)
            news = self._news(ops, outcomes) if grew else None
            results = [(job[1], outcome) for job, outcome in zip(batch, outcomes, strict=True)]
            if not stash and not self._committer.wal.is_due:
                self._owner.release()  # before telling: a lone caller then commits its next one by itself
                self._give(results, news)
                return
            self._give(results, news)
        if self._committer.wal.is_due:
            self._committer.checkpoint()
        self._owner.release()

    def _hand_over(self, request: _Begin, future: _Future) -> bool:
        try:
            transaction = self._open(blocking=request.blocking)
        except Exception as error:  # noqa: BLE001 - the caller's to handle; this thread goes on
            self._give([(future, (None, error))])
            return False
        if not self._give([(future, (transaction, None))]) and not isinstance(future, Reply):
            transaction.abandon()
        return True

    def _end(self, request: _End, future: _Future) -> None:
        if not self._take_back(request.number):
            self._give([(future, (None, NotOpen("the store was closed before this commit", "commit before closing")))])
            return
        news: News | None = None
        outcome: Outcome = (None, None)
        try:
            if self._committer.finish(commit=request.commit):
                news = UNKNOWN
        except Exception as error:  # noqa: BLE001 - the caller's to handle; this thread goes on
            outcome = (None, error)
        self._owner.release()
        self._give([(future, outcome)], news)

    def _give(self, results: Sequence[tuple[_Future, Outcome]], news: News | None = None) -> bool:
        """Hand results to their callers, with one wake-up for each event loop; then tell who waits for the log.

        Args: news: what was appended to it; None where it did not change.

        Returns:
            False when no event loop could be told.
        """
        loops: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Any], Outcome]]] = {}
        for future, outcome in results:
            if type(future) is Reply:
                future.give(outcome)
            elif future is not None:
                loop = future.get_loop()  # type: ignore[union-attr]
                waiting = loops.get(loop)
                if waiting is None:
                    waiting = loops[loop] = []
                waiting.append((future, outcome))  # type: ignore[arg-type]
        told: set[Any] = set()
        for loop, waiting in loops.items():
            try:
                room = None if news is None else self._rooms.get(loop)
                loop.call_soon_threadsafe(_resolve, waiting, room, news or UNKNOWN)
            except RuntimeError:  # the loop was closed; nobody waits there
                continue
            told.add(loop)
        if news is not None:
            self._tell(news, told)
        return bool(told)


def _resolve(
    results: Sequence[tuple[asyncio.Future[Any], Outcome]], room: WaitingRoom | None = None, news: News = UNKNOWN
) -> None:
    for future, (result, error) in results:
        if not future.done():
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)
        elif isinstance(result, SqliteTransaction):
            result.abandon()  # the caller was cancelled
    if room is not None:
        room.wake(*news)
