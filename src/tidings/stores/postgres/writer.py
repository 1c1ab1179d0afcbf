"""The writer of threads that block: whoever comes commits what waits, its own and that of others."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import Any

from tidings.core.operations import Appended, Op
from tidings.errors import NotOpen, Overloaded
from tidings.stores.news import News
from tidings.stores.postgres.committer import Committer
from tidings.stores.postgres.wire import finish

MOST_WAITING = 100_000
"""Operations that may wait; one more is refused."""
BATCH = 1000
"""Operations in one commit at most."""


class Writer:
    """Shares one write connection between all threads of this process."""

    def __init__(self, committer: Committer, grew: Callable[[int, News], None]) -> None:
        """Wire it; nothing is connected.

        Args:
            committer: Owner of a connection that blocks.
            grew: Called after a commit, before its callers know, with the last position and what readers should know.
        """
        self._committer = committer
        self._grew = grew
        self._waiting: deque[tuple[Op, Future[Any]]] = deque()
        self._owner = threading.Lock()  # held while the connection is in use
        self._closed = False

    def write(self, op: Op) -> Any:
        """Commit an operation, and what waits with it; while somebody else commits, that one may do it."""
        check_open(len(self._waiting), closed=self._closed)
        if not self._waiting and self._owner.acquire(blocking=False):
            return self._write_alone(op)
        future: Future[Any] = Future()
        self._waiting.append((op, future))
        while not future.done():
            with self._owner:
                if not future.done():
                    self._commit()
        return future.result()

    def _write_alone(self, op: Op) -> Any:
        """Commit an operation; the connection is ours."""
        try:
            [(result, refusal)], news = finish(self._committer.commit_one(op))
            if news is not None:
                self._grew(last_position((result,)), news)
        finally:
            self._owner.release()
        if refusal is not None:
            raise refusal
        return result

    def _commit(self) -> None:
        jobs = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
        try:
            outcomes, news = finish(self._committer.commit_all([op for op, _ in jobs]))
            if news is not None:
                self._grew(last_position(result for result, _ in outcomes), news)
        except BaseException as error:
            for _, future in jobs:
                future.set_exception(error)
            raise
        for (_, future), (result, refusal) in zip(jobs, outcomes, strict=True):
            if refusal is None:
                future.set_result(result)
            else:
                future.set_exception(refusal)

    def close(self) -> None:
        """Let who commits finish."""
        self._closed = True
        with self._owner:
            while self._waiting:
                self._commit()
            self._committer.close()


def check_open(waiting: int, *, closed: bool) -> None:
    """Refuse an operation.

    Raises:
        NotOpen: The store is closed.
        Overloaded: Too many wait.
    """
    if closed:
        raise NotOpen("the store is closed", "open it first: `async with app:`")
    if waiting > MOST_WAITING:
        raise Overloaded(f"{MOST_WAITING:,} writes wait already", "publish more slowly; this write was not kept")


def last_position(results: Iterable[Any]) -> int:
    """The last position that operations gave to what they appended; 0 where they appended nothing."""
    last = 0
    for result in results:
        if type(result) is Appended and result.positions and result.positions[-1] > last:
            last = result.positions[-1]
    return last
