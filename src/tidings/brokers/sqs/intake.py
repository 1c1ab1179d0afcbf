"""Receives messages on threads of its own, and keeps a few at hand for whoever fetches them.

A thread waits at the broker only while somebody fetches. What is at hand and not fetched in time goes back to its
queue, so that nothing is handed out that may be with another worker already.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any
from uuid import uuid4

from botocore.exceptions import BotoCoreError, ClientError

from tidings.brokers.sqs.connection import Clients, is_missing, trouble
from tidings.brokers.sqs.declaring import Queue
from tidings.brokers.sqs.settings import Settings
from tidings.brokers.sqs.wire import Receipt, arrival_of
from tidings.core.arrival import Arrival
from tidings.errors import BrokerError

BATCH = 10
"""Messages that SQS takes or gives in one call."""

AT_HAND = 400
"""Messages kept at hand; each thread may bring a batch beyond it."""

PULLERS = 4
"""Threads of one queue; all but the first help only while the queue gives full batches."""

DEMAND = 5.0
"""Seconds after a fetch in which messages are still received."""

_PAUSE = (0.1, 2.0)
"""Shortest and longest pause, seconds, after a call that failed."""

log = logging.getLogger("tidings")


class Intake:
    """What arrives for one worker.

    Args:
        clients: Of SQS.
        settings: Of the connection.
        redeclare: Makes a queue again that is gone; called by a thread of this object.
    """

    def __init__(self, clients: Clients, settings: Settings, redeclare: Callable[[Queue], Queue]) -> None:
        self._clients = clients
        self._settings = settings
        self._redeclare = redeclare
        self._loop = asyncio.get_running_loop()
        self._arrived = asyncio.Event()
        self._state = threading.Condition()
        self._at_hand: deque[Arrival] = deque()
        self._held: dict[Receipt, None] = {}
        self._troubles: dict[str, BrokerError] = {}
        self._busy: set[str] = set()
        self._asked = float("-inf")
        self._closing = False
        self._threads: list[threading.Thread] = []

    def receive(self, queue: Queue) -> None:
        """Begin to receive what is in a queue."""
        for number in range(PULLERS):
            name = f"tidings-{queue.name}-{number}"
            thread = threading.Thread(target=self._pull, args=(queue, number), name=name, daemon=True)
            self._threads.append(thread)
            thread.start()

    async def fetch(self, limit: int, wait: float) -> list[Arrival]:
        """Up to `limit` messages; waits up to `wait` seconds for the first.

        Raises:
            BrokerError: Nothing came, and something keeps it away.
        """
        end = time.monotonic() + wait
        while True:
            self._arrived.clear()
            if taken := self._take(limit):
                return taken
            left = end - time.monotonic()
            if left <= 0:
                break
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(left, DEMAND / 2)):  # wait_for of Python 3.11 may swallow a cancellation
                    await self._arrived.wait()
        with self._state:
            for each in self._troubles.values():
                raise each
        return []

    def settled(self, receipts: Sequence[Receipt]) -> None:
        """Note that these need not be given back."""
        with self._state:
            for each in receipts:
                self._held.pop(each, None)

    def note(self, queue: str, error: BrokerError | None) -> None:
        """Keep what is wrong with a queue, by its URL, for the next fetch; None says that it is well."""
        with self._state:
            if error is None:
                self._troubles.pop(queue, None)
                return
            first = queue not in self._troubles
            self._troubles[queue] = error
        if first:
            log.warning("%s", error)

    def close(self) -> None:
        """Stop receiving, and let others have at once what is not settled, in order. Blocks."""
        with self._state:
            self._closing = True
            self._state.notify_all()
        end = time.monotonic() + self._settings.poll + 5.0
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))
        now = time.monotonic()
        with self._state:
            rest = [each for each in (*self._held, *(arrival.token for arrival in self._at_hand)) if each.until > now]
            self._held.clear()
            self._at_hand.clear()
        self._give_back(rest)

    # ---- on the loop's thread ----------------------------------------------------------------------------------------

    def _take(self, limit: int) -> list[Arrival]:
        now = time.monotonic()
        fresh = now + self._settings.visibility / 2
        taken: list[Arrival] = []
        with self._state:
            self._asked = now
            while self._at_hand and len(taken) < limit:
                arrival = self._at_hand.popleft()
                if arrival.token.until > fresh:  # the others come again by themselves
                    taken.append(arrival)
                    self._held[arrival.token] = None
            while self._held and (first := next(iter(self._held))).until <= now:
                del self._held[first]
            self._state.notify_all()
        return taken

    # ---- on threads of its own ---------------------------------------------------------------------------------------

    def _pull(self, queue: Queue, number: int) -> None:
        failed, attempt = 0, ""
        while self._await_demand(queue, number):
            attempt = attempt or str(uuid4())
            try:
                messages, until = self._received(queue, attempt)
            except Exception as error:  # noqa: BLE001 - a thread that ended would be a worker that hears nothing
                if not (is_missing(error) and self._settings.topology == "declare"):
                    self.note(queue.url, trouble(error, self._settings, f"receive from the queue {queue.name}"))
                elif number == 0:
                    queue = self._again(queue)
            else:
                failed, attempt = 0, ""
                self._keep(queue, messages, until)
                continue
            failed += 1
            with self._state:
                self._busy.discard(queue.url)
                pause = min(_PAUSE[1], _PAUSE[0] * 2 ** min(failed, 10))
                self._state.wait_for(lambda: self._closing, random.uniform(pause / 2, pause))  # noqa: S311 - jitter

    def _await_demand(self, queue: Queue, number: int) -> bool:
        """Wait until messages are wanted; False when this ends."""
        while True:
            with self._state:
                if self._closing:
                    return False
                idle = time.monotonic() - self._asked > DEMAND
                helps = number == 0 or queue.url in self._busy
                if helps and not idle and len(self._at_hand) < AT_HAND:
                    return True
                stale = list(self._at_hand) if idle and number == 0 else []
                if stale:
                    self._at_hand.clear()
                else:
                    self._state.wait(DEMAND if self._at_hand and number == 0 else None)
            self._give_back([each.token for each in stale])

    def _received(self, queue: Queue, attempt: str) -> tuple[list[Any], float]:
        asked: dict[str, Any] = {
            "QueueUrl": queue.url,
            "MaxNumberOfMessages": BATCH,
            "WaitTimeSeconds": self._settings.poll,
            "VisibilityTimeout": self._settings.visibility,
            "MessageAttributeNames": ["All"],
            "MessageSystemAttributeNames": ["MessageGroupId"],
        }
        if self._settings.fifo:  # an answer that was lost on its way is given again, and blocks no group meanwhile
            asked["ReceiveRequestAttemptId"] = attempt
        messages = self._clients.poller.receive_message(**asked).get("Messages", [])
        return messages, time.monotonic() + self._settings.visibility

    def _keep(self, queue: Queue, messages: Sequence[Any], until: float) -> None:
        arrivals = [arrival_of(each, queue.topic, queue.name, queue.url, until) for each in messages]
        self.note(queue.url, None)
        with self._state:
            (self._busy.add if len(messages) == BATCH else self._busy.discard)(queue.url)
            self._at_hand.extend(arrivals)
            if queue.url in self._busy:
                self._state.notify_all()
        if arrivals:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
                self._loop.call_soon_threadsafe(self._arrived.set)

    def _again(self, queue: Queue) -> Queue:
        log.error("SQS: the queue %s was deleted, with all that waited in it; it is declared again", queue.name)
        try:
            made = self._redeclare(queue)
        except BrokerError as error:
            self.note(queue.url, error)
            return queue
        self.note(queue.url, None)
        return made

    def _give_back(self, receipts: Sequence[Receipt]) -> None:
        """Make messages visible at once. The earlier ones come first: SQS holds back the later ones of a group."""
        ordered = sorted(receipts, key=lambda each: each.queue)  # stable
        for queue, found in groupby(ordered, key=lambda each: each.queue):
            mine = list(found)
            for start in range(0, len(mine), BATCH):
                entries = [
                    {"Id": str(at), "ReceiptHandle": each.handle, "VisibilityTimeout": 0}
                    for at, each in enumerate(mine[start : start + BATCH])
                ]
                try:
                    self._clients.sqs.change_message_visibility_batch(QueueUrl=queue, Entries=entries)
                except (ClientError, BotoCoreError) as error:
                    log.debug("SQS: messages come again only after their time: %s", error)
                    break
