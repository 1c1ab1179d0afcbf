"""Turns: what the tasks of an event loop write in one round of it shares one commit."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

from tidings.core.operations import Op


class Turn:
    """What one event loop submitted in its current round.

    Attributes:
        loop: Which one.
        jobs: Operations with the futures of their callers.
        taken: True when one of them was committed alone in this round: another one would be the second.
        crowded: True when there were several of late, so that the first one waits for the others.
    """

    __slots__ = ("crowded", "jobs", "loop", "taken")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Args: loop: whose."""
        self.loop = loop
        self.jobs: list[tuple[Op, asyncio.Future[Any]]] = []
        self.taken = self.crowded = False

    def is_free(self) -> bool:
        """True for the first one of a round that is likely to be the only one."""
        return not (self.jobs or self.taken or self.crowded)

    def take(self) -> None:
        """Somebody commits alone in this round."""
        self.taken = True
        self.loop.call_soon(self._end)

    def _end(self) -> None:
        self.taken = False


class Turns(threading.local):
    """The turn of each thread's event loop."""

    _turn: Turn | None = None

    def here(self) -> Turn:
        """The turn of the running loop."""
        loop = asyncio.get_running_loop()
        turn = self._turn
        if turn is None or turn.loop is not loop:
            turn = self._turn = Turn(loop)
        return turn
