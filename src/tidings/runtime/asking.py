"""Asking: a request leaves like any command, and its answer is found in the log of the app that asked.

The log is looked at by those who wait, so that no worker need run in the process that asks, and every process of an app
may. One look serves all who wait here. The pauses between looks grow with the time waited, so that an answer is found
an eighth of that later at most.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from tidings.core.attributes import ANSWER
from tidings.core.codec import Codec
from tidings.core.envelope import Envelope
from tidings.core.message import MessageType
from tidings.core.ports import Store
from tidings.core.request import Answer, read_answer
from tidings.errors import BadArgument, NoAnswer, Refused, Unreadable

SHORTEST = 0.002
"""Seconds between the first looks."""

SHARE = 0.125
"""Of the time waited so far, that is waited again before the next look."""

PAGE = 500
"""Answers read at a time."""


class Answers:
    """Finds the answers to the requests of one process: tasks of a loop, or threads, wait side by side."""

    def __init__(self, store: Store, sleep: Callable[[float], Awaitable[None]]) -> None:
        """Args: store: of the app that asks. sleep: waits some seconds; the caller's way of waiting."""
        self._store = store
        self._sleep = sleep
        self._lock = threading.Lock()  # held for an assignment or two, never while anything is waited for
        self._found: dict[str, Envelope | None] = {}  # by the id of the request; None while it is waited for
        self._after = 0  # answers up to here were looked at
        self._looked = 0.0
        self._is_looking = False

    async def wait_for(self, request: Envelope, position: int, timeout: float) -> Envelope:
        """The first answer to a request.

        Args:
            request: What was asked.
            position: Its place in the log; answers come after it.
            timeout: Seconds.

        Raises:
            NoAnswer: None came in time.
        """
        with self._lock:
            self._after = min(self._after, position) if self._found else position
            self._found[request.id] = None
        try:
            return await self._wait_for(request, timeout)
        finally:
            with self._lock:
                del self._found[request.id]

    async def _wait_for(self, request: Envelope, timeout: float) -> Envelope:
        began = time.monotonic()
        while True:
            waited = time.monotonic() - began
            pause = max(SHORTEST, waited * SHARE)
            is_over = waited >= timeout
            while not await self._look(0.0 if is_over else pause) and is_over:
                await self._sleep(SHORTEST)  # somebody else's look ends in a moment
            if (found := self._found[request.id]) is not None:
                return found
            if is_over:
                msg = f"{request.type} {request.id} was not answered within {timeout:.3g} s"
                cure = (
                    "it may have been done, but it is not begun any more; does a worker run of this app, and of the "
                    "one that handles it? `tidings status` shows what waits"
                )
                raise NoAnswer(msg, cure, id=request.id, timeout=timeout)
            await self._sleep(min(timeout - waited, pause))

    async def _look(self, pause: float) -> bool:
        """Look for what came since the last look, unless that is not `pause` seconds ago; False while another looks."""
        with self._lock:
            if self._is_looking:
                return False
            if time.monotonic() - self._looked < pause:
                return True
            self._is_looking = True
        try:
            head = await self._store.head()
            with self._lock:
                after, self._after = self._after, max(self._after, head)
            try:
                await self._read(after, head)
            except BaseException:
                with self._lock:
                    self._after = min(self._after, after)
                raise
        finally:
            with self._lock:
                self._is_looking, self._looked = False, time.monotonic()
        return True

    async def _read(self, after: int, head: int) -> None:
        while after < head and (rows := await self._store.read(after, head, PAGE, types=[ANSWER])):
            after = rows[-1].position
            with self._lock:
                for row in rows:
                    if row.causation in self._found:
                        self._found[row.causation] = self._found[row.causation] or row


def message_of(envelope: Envelope, request: Envelope, kinds: Sequence[MessageType], *, optional: bool) -> Any:
    """The message that answers a request: the first one returned that is of the types asked for.

    Args:
        envelope: The answer.
        request: What was asked.
        kinds: The types asked for.
        optional: True where None may be the answer: nothing of these types was returned.

    Raises:
        Refused: The request became a dead letter.
        BadArgument: The handler returned something else.
        Unreadable: The answer is not of the declared type, or of a newer schema than this code knows.
    """
    answer: Answer = read_answer(envelope)
    if answer.refused is not None:
        msg = f"{envelope.source} refused {request.type} {request.id}: {answer.refused}"
        cure = "it is a dead letter there: `tidings dead list`"
        raise Refused(msg, cure, id=request.id, app=envelope.source, reason=answer.refused)
    for each in answer.messages:
        for kind in kinds:
            if each.type in {kind.name, *kind.was}:
                if each.dataversion > kind.schema:
                    msg = f"{each.type} has schema version {each.dataversion}; this code knows {kind.schema}"
                    raise Unreadable(msg, "deploy the newer code")
                return Codec(kind).decode(bytes(each.data))
    if optional:
        return None
    names = " or ".join(kind.name for kind in kinds)
    found = ", ".join(each.type for each in answer.messages) or "nothing"
    msg = f"{request.type} was done, and its handler in {envelope.source} returned {found}, not {names}"
    raise BadArgument(msg, "return one from the handler, or ask for what it returns; None asks for nothing")
