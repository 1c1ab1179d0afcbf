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
        last: The task that submitted last, by id(): one that writes again before any other does is a lone writer.
    """

    __slots__ = ("jobs", "last", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Args: loop: whose."""
        self.loop = loop
        self.jobs: list[tuple[Op, asyncio.Future[Any]]] = []
        self.last = 0


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
