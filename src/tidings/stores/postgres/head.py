"""The head of the log: one question to the database for all who ask at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from tidings.errors import StoreGone


class Head:
    """Shares the answers of one event loop. Every subscription of a worker asks whenever the log may have grown."""

    def __init__(self, ask: Callable[[], Awaitable[int]], floor: Callable[[], int]) -> None:
        """Args: ask: the database. floor: a position that this process has committed itself."""
        self._ask = ask
        self._floor = floor
        self._answer: asyncio.Future[int] | None = None
        self._seen: float = 0  # the log never ends before this position again

    async def get(self) -> int:
        """The last position of the log, of all that was committed here before, at least.

        Raises:
            StoreGone: It ends earlier than it did: an older copy of the database is in its place.
        """
        while (answer := self._answer) is not None:
            await asyncio.wait((answer,))
            if not answer.cancelled() and answer.exception() is None:
                return max(answer.result(), self._floor())
        self._answer = answer = asyncio.get_running_loop().create_future()
        self._seen = max(self._seen, self._floor())
        try:
            head = self._checked(await self._ask())
        except BaseException:
            self._answer = None
            answer.cancel()  # those who wait ask themselves
            raise
        self._answer = None
        answer.set_result(head)
        return max(head, self._floor())

    def _checked(self, head: int) -> int:
        if head < self._seen:
            self._seen = float("inf")  # for ever, also when others have filled the place up again
            raise StoreGone(
                f"the log ends at position {head:,}, but was longer before",
                "an older copy took the database's place: stop every process that uses it, and start again",
                head=head,
            )
        self._seen = head
        return head
