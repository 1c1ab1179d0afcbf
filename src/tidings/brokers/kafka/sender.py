"""The producer, and the one thread that polls it for what became of each message."""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys
import threading
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer

from tidings.brokers.kafka.future import finish, finished
from tidings.brokers.kafka.settings import Settings
from tidings.brokers.kafka.trouble import Noted, error_of, kafka_error
from tidings.brokers.kafka.wire import headers_of
from tidings.core.arrival import Confirmed, Rejected, Result, Unknown
from tidings.core.envelope import Envelope

TIMEOUT = 18.0
"""Seconds after which the client gives a message up."""

FLUSH = 3.0
"""Seconds that closing waits for what is under way."""

_POLL = 0.1
_FULL = 0.01
_CONFIRMED = Confirmed()
_MISSING = {
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError.UNKNOWN_TOPIC_ID,
    KafkaError._UNKNOWN_TOPIC,
    KafkaError._MSG_TIMED_OUT,  # nobody leads it: perhaps because it was deleted
}
_REJECTED = {
    KafkaError.MSG_SIZE_TOO_LARGE,
    KafkaError.RECORD_LIST_TOO_LARGE,
    KafkaError.INVALID_RECORD,
    KafkaError.INVALID_MSG_SIZE,
}


class Batch:
    """Messages that were handed to the client together, and what it reports of them."""

    def __init__(self, envelopes: Sequence[tuple[str, Envelope]]) -> None:
        """Args: envelopes: each with the name of its topic in Kafka."""
        self.envelopes = envelopes
        self.results: list[Result | None] = [None] * len(envelopes)
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.missing: set[str] = set()
        self._reports: list[None] = []
        self._expected = sys.maxsize

    def report(self, at: int, error: Any, _: Any) -> None:
        """Note what became of a message; called on the thread that polls."""
        self.results[at] = _CONFIRMED if error is None else self._result(at, error)
        self._count()

    def fail(self, at: int, error: BaseException) -> None:
        """Note that the client did not take a message."""
        cause = kafka_error(error)
        self.results[at] = Unknown(str(error)) if cause is None else self._result(at, cause)
        self._count()

    def expect(self) -> None:
        """Note that all of them were handed over."""
        self._expected = len(self.envelopes)
        if len(self._reports) >= self._expected:
            finish(self.done)

    def _count(self) -> None:
        self._reports.append(None)  # both threads may report; appending is atomic
        if len(self._reports) >= self._expected:
            with contextlib.suppress(RuntimeError):  # that loop has ended
                self.done.get_loop().call_soon_threadsafe(finish, self.done)

    def _result(self, at: int, error: KafkaError) -> Result:
        topic, envelope = self.envelopes[at]
        if error.code() in _MISSING:
            self.missing.add(topic)
        if error.code() in _REJECTED:
            what = f"{topic} does not take it: it has {len(envelope.data):,} bytes: {error.str()}"
            return Rejected(what, too_large=error.code() != KafkaError.INVALID_RECORD)
        return Unknown(error_of(error, f"publishing to {topic}").what)


class Sender:
    """Sends to any topic, from its start until `close`.

    Args:
        settings: Of the URL.

    Attributes:
        missing: Names of topics that may not be there any more.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._noted = Noted(self._hear)
        self.missing: set[str] = set()
        self._fatal = False
        self._closing = threading.Event()
        self._producer = self._make()
        self._thread = threading.Thread(target=self._run, name=f"kafka {settings.group} out", daemon=True)
        self._thread.start()

    async def send(self, envelopes: Sequence[tuple[str, Envelope]], deadline: float) -> list[Result]:
        """Send envelopes, each with the name of its topic in Kafka; what became of each, in that order.

        Args:
            envelopes: To send.
            deadline: Of the monotonic clock.
        """
        batch = Batch(envelopes)
        for at, (topic, envelope) in enumerate(envelopes):
            try:
                while not self._hand(batch, at, topic, envelope):
                    await self._room(deadline)
            except Exception as error:  # noqa: BLE001 - what befalls a message is a result
                batch.fail(at, error)
        batch.expect()
        await finished(batch.done, deadline - time.monotonic())
        self.missing |= batch.missing
        return [each or Unknown(f"nobody confirmed it in time: {self._why()}") for each in batch.results]

    async def _room(self, deadline: float) -> None:
        if time.monotonic() > deadline:
            raise TimeoutError(f"the queue to Kafka is full, and nothing leaves it: {self._why()}")
        await asyncio.sleep(_FULL)

    def _hand(self, batch: Batch, at: int, topic: str, envelope: Envelope) -> bool:
        try:
            self._producer.produce(
                topic,
                envelope.data or None,
                envelope.key,
                on_delivery=partial(batch.report, at),
                headers=headers_of(envelope),
            )
        except BufferError:
            return False
        return True

    def close(self, timeout: float) -> None:
        """Wait for what is under way, and end; blocks."""
        self._closing.set()
        self._thread.join(timeout)

    def _why(self) -> str:
        reason = self._noted.reason()
        return reason.str() if reason is not None else "it does not answer"

    def _make(self) -> Producer:
        self._fatal = False
        return Producer(self._settings.producer(self._noted, timeout=TIMEOUT))

    def _hear(self, error: KafkaError) -> None:
        if error.fatal() or error.code() in {KafkaError._FATAL, KafkaError._FENCED}:
            self._fatal = True

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                self._producer.poll(_POLL)
            except KafkaException:  # a fatal error is raised here, and reported for every message as well
                self._fatal = True
            if self._fatal:  # it takes nothing any more; a new one does
                self._end(self._producer, 0.0)
                self._closing.wait(random.uniform(0.05, 0.2))  # noqa: S311 - jitter
                self._producer = self._make()
        self._end(self._producer, FLUSH)

    @staticmethod
    def _end(producer: Producer, patience: float) -> None:
        """Report what is left as unknown."""
        for step in (partial(producer.flush, patience), producer.purge, partial(producer.flush, 1.0)):
            with contextlib.suppress(KafkaException):
                step()
