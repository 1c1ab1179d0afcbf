"""The head of the log: one question to the database for all who ask at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable


class Head:
    """Shares the answers of one event loop. Every subscription of a worker asks whenever the log may have grown."""

    def __init__(self, ask: Callable[[], Awaitable[int]], floor: Callable[[], int]) -> None:
        """Args: ask: the database. floor: a position that this process has committed itself."""
        self._ask = ask
        self._floor = floor
        self._answer: asyncio.Future[int] | None = None

    async def get(self) -> int:
        """The last position of the log, of all that was committed here before, at least."""
        while (answer := self._answer) is not None:
            await asyncio.wait((answer,))
            if not answer.cancelled() and answer.exception() is None:
                return max(answer.result(), self._floor())
        self._answer = answer = asyncio.get_running_loop().create_future()
        try:
            head = await self._ask()
        except BaseException:
            self._answer = None
            answer.cancel()  # those who wait ask themselves
            raise
        self._answer = None
        answer.set_result(head)
        return max(head, self._floor())
