"""The writer: one thread that commits for everybody, all that waits at once.

While one commit is under way, the next batch collects by itself; nobody waits on purpose. A caller that may block
commits on its own thread when nobody else is writing.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any

from tidings.core.operations import Appended, Op
from tidings.errors import NotOpen, Overloaded
from tidings.stores.postgres.committer import Committer, Outcome

MOST_WAITING = 100_000
"""Operations that may wait; one more is refused."""
BATCH = 1000
"""Operations in one commit at most."""

_Future = asyncio.Future[Any] | Future[Any]
_Job = tuple[Op, _Future]


class Writer:
    """Shares one write connection between all threads and event loops of this process."""

    def __init__(self, committer: Committer, grew: Callable[[int], None]) -> None:
        """Start the thread.

        Args:
            committer: Owner of the connection.
            grew: Called with the last position after a commit that readers should look at, before its callers know.
        """
        self._committer = committer
        self._grew = grew
        self._queue: SimpleQueue[_Job | None] = SimpleQueue()
        self._owner = threading.Lock()  # held while the connection is in use
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="tidings-writer", daemon=True)
        self._thread.start()

    def submit(self, op: Op, future: _Future) -> None:
        """Have an operation committed; the future gets its result."""
        self._check()
        self._queue.put((op, future))

    def write_now(self, op: Op) -> Any:
        """Commit an operation, on this thread if nobody else is writing."""
        self._check()
        if not self._queue.empty() or not self._owner.acquire(blocking=False):
            future: Future[Any] = Future()
            self._queue.put((op, future))
            return future.result()
        try:
            [(result, error)], grew = self._committer.commit_all((op,))
        finally:
            self._owner.release()
        if grew:
            self._grew(last_position((result,)))
        if error is not None:
            raise error
        return result

    def close(self) -> None:
        """Finish what waits, and end the thread."""
        self._closed = True
        self._queue.put(None)
        self._thread.join()
        self._committer.close()

    def _check(self) -> None:
        if self._closed:
            raise NotOpen("the store is closed", "open it first: `async with app:`")
        if self._queue.qsize() > MOST_WAITING:
            raise Overloaded(f"{MOST_WAITING:,} writes wait already", "publish more slowly; this write was not kept")

    # ---- the thread --------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while (job := self._queue.get()) is not None:
            jobs = [job]
            stopping = False
            while len(jobs) < BATCH and not self._queue.empty():
                following = self._queue.get()
                if following is None:
                    stopping = True
                    break
                jobs.append(following)
            self._commit(jobs)
            if stopping:
                break
        while not self._queue.empty():  # came while the thread ended
            if (job := self._queue.get()) is not None:
                _give([(job[1], (None, NotOpen("the store was closed", "write before closing")))])

    def _commit(self, jobs: Sequence[_Job]) -> None:
        with self._owner:
            outcomes, grew = self._committer.commit_all([op for op, _ in jobs])
        if grew:
            self._grew(last_position([result for result, _ in outcomes]))
        _give([(future, outcome) for (_, future), outcome in zip(jobs, outcomes, strict=True)])


def last_position(results: Iterable[Any]) -> int:
    """The last position that operations gave to what they appended; 0 where they appended nothing."""
    return max((result.position for result in results if isinstance(result, Appended)), default=0)


def _give(results: Sequence[tuple[_Future, Outcome]]) -> None:
    """Hand results to their callers, with one wake-up for each event loop."""
    loops: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Any], Outcome]]] = {}
    for future, outcome in results:
        if isinstance(future, Future):
            _resolve([(future, outcome)])
        else:
            loops.setdefault(future.get_loop(), []).append((future, outcome))
    for loop, waiting in loops.items():
        try:
            loop.call_soon_threadsafe(_resolve, waiting)
        except RuntimeError:  # the loop was closed; nobody waits there
            continue


def _resolve(results: Sequence[tuple[_Future, Outcome]]) -> None:
    for future, (result, error) in results:
        if not future.done():
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)
