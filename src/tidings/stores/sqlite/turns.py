"""Turns: what the tasks of an event loop write in one round of it shares one commit."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

from tidings.core.operations import Op
from tidings.stores.rounds import Rounds


class Turn(Rounds):
    """What one event loop submitted in its current round.

    Attributes:
        jobs: Operations with the futures of their callers.
    """

    __slots__ = ("jobs",)

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Args: loop: whose."""
        super().__init__(loop)
        self.jobs: list[tuple[Op, asyncio.Future[Any]]] = []


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
