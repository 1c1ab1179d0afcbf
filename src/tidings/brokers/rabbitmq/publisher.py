"""Publishing: a window of messages under way, each of which the server confirms, returns or leaves in doubt."""

from __future__ import annotations

import asyncio
import logging
import re
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

from tidings.brokers.rabbitmq.connection import Channel, Connection
from tidings.brokers.rabbitmq.link import Link, Pause
from tidings.brokers.rabbitmq.settings import Settings
from tidings.brokers.rabbitmq.topology import Topology
from tidings.brokers.rabbitmq.trouble import Ended, Ending, refusal_of
from tidings.brokers.rabbitmq.wire import address_of, headers_of, properties_of
from tidings.core.arrival import DEADLINE, Confirmed, Rejected, Result, Unknown
from tidings.core.codec import MAX_BYTES
from tidings.core.envelope import Envelope
from tidings.core.message import addressee
from tidings.errors import BrokerError

WINDOW = 512
"""Messages under way at most."""

MAX_HEADER = 100_000
"""Bytes of headers at most: they must fit into one frame of 128 KiB."""

REST = 5.0
"""Seconds for which nothing is sent to an exchange that the server refused, so that the others get on."""

_TOO_LARGE = re.compile(r"larger than (?:configured )?max size '?(\d+)")

_log = logging.getLogger("tidings.rabbitmq")


class _Batch:
    """What one call publishes, and what became of it."""

    def __init__(self, size: int, answer: Callable[[list[Result]], object]) -> None:
        self.results: list[Result | None] = [None] * size
        self.left = size
        self.alarm: asyncio.TimerHandle | None = None
        self._answer = answer

    def note(self, at: int, result: Result) -> None:
        if self.results[at] is None:
            self.results[at] = result
            self.left -= 1
            if not self.left:
                self._end()

    def give_up(self, reason: str) -> None:
        """Answer with the results, of which those that are not known never will be."""
        unknown = Unknown(reason)
        self.results = [result or unknown for result in self.results]
        if self.left:
            self.left = 0
            self._end()

    def _end(self) -> None:
        if self.alarm is not None:
            self.alarm.cancel()
        self._answer([result for result in self.results if result is not None])


@dataclass(slots=True)
class _Attempt:
    """One attempt to send a message."""

    batch: _Batch
    at: int
    topic: str
    exchange: str
    key: str
    headers: dict[str, str]
    content_type: str | None
    body: bytes
    returned: bool = False


class Publisher:
    """Publishes over a connection of its own: a server that is short of memory stops listening to it.

    Attributes:
        deadline: Seconds after which what is not confirmed is in doubt.
        unrouted: How many messages of each topic the server has returned, since nobody asked for them.
    """

    def __init__(self, settings: Settings, topology: Topology, wanted: Callable[[str], bool]) -> None:
        """Args: wanted: whether this very app has subscribed to a topic, so that its messages must not come back."""
        self.deadline = DEADLINE - 2.0
        self.unrouted: Counter[str] = Counter()
        self.link = Link(settings, "publish", self._serve)
        self._settings = settings
        self._topology = topology
        self._wanted = wanted
        self._channel: Channel | None = None
        self._epochs = count(1)
        self._epoch = 0
        self._tag = 0
        self._waiting: deque[_Attempt] = deque()
        self._under_way: dict[int, _Attempt] = {}
        self._declared: set[str] = set()
        self._resting: dict[str, tuple[float, str]] = {}  # exchange -> until when, and why
        self._limit = MAX_BYTES
        self._declaring: set[asyncio.Task[None]] = set()
        self._closed = False

    def publish(self, answer: Callable[[list[Result]], object], envelopes: Sequence[Envelope]) -> None:
        """See `Broker.publish`. Args: answer: is called with the results."""
        if not envelopes:
            answer([])
            return
        batch = _Batch(len(envelopes), answer)
        attempts = [attempt for at, envelope in enumerate(envelopes) if (attempt := self._attempt(batch, at, envelope))]
        if not attempts:
            return
        if self._closed:
            batch.give_up(_CLOSED)
            return
        batch.alarm = asyncio.get_running_loop().call_later(self.deadline, self._give_up, batch)
        if self._declared.issuperset(attempt.topic for attempt in attempts):
            self._waiting += attempts
            self._send()
        else:
            task = asyncio.create_task(self._declare_and_send(batch, attempts))
            self._declaring.add(task)
            task.add_done_callback(self._declaring.discard)

    async def _declare_and_send(self, batch: _Batch, attempts: Sequence[_Attempt]) -> None:
        try:
            for topic in {attempt.topic for attempt in attempts} - self._declared:
                await self._declare(topic, [attempt for attempt in attempts if attempt.topic == topic])
        except asyncio.CancelledError:
            batch.give_up(_CLOSED)
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, nobody may wait for ever
            batch.give_up(f"{type(error).__name__}: {error}")
            return
        if self._closed:
            batch.give_up(_CLOSED)
        else:
            self._waiting += attempts
            self._send()

    def _give_up(self, batch: _Batch) -> None:
        """Its time is up."""
        batch.give_up(self._doubt())
        self._forget(batch)

    def stop(self) -> None:
        """Leave everything that is not confirmed in doubt."""
        self._closed = True
        self._lose(_CLOSED)
        for attempt in self._waiting:
            attempt.batch.note(attempt.at, Unknown(_CLOSED))
        self._waiting.clear()

    @property
    def blocked(self) -> str | None:
        """Why the server takes nothing at the moment."""
        return self.link.connection.blocked if self.link.connection is not None else None

    def _attempt(self, batch: _Batch, at: int, envelope: Envelope) -> _Attempt | None:
        """What is to be sent; None where it never can be, which the batch then knows."""
        headers, content_type = headers_of(envelope)
        size = len(envelope.data)
        if size > self._limit:
            batch.note(at, self._too_large(size))
            return None
        if sum(map(len, headers.values())) > MAX_HEADER // 4:
            size = sum(len(name) + len(value.encode()) for name, value in headers.items())
            if size > MAX_HEADER:
                batch.note(at, Rejected(f"its headers have {size:,} bytes, the limit is {MAX_HEADER:,}"))
                return None
        topic = envelope.topic or ""
        exchange = self._topology.exchange(topic).name
        key = address_of(envelope)
        return _Attempt(batch, at, topic, exchange, key, headers, content_type, envelope.data)

    # ---- the connection ----------------------------------------------------------------------------------------------

    async def _serve(self, connection: Connection) -> None:
        """Keep a channel open for as long as the connection lives."""
        connection.on_blocked(self._note_blocked)
        pause = Pause()
        while not connection.ended.done():
            try:
                channel = await connection.channel()
                channel.raw.add_on_return_callback(self._note_returned)
                await channel.confirm(self._note_answer)
            except Ended:
                await pause.wait()
                continue
            pause.begin()
            self._epoch, self._tag, self._channel = next(self._epochs), 0, channel
            self._declared.clear()  # they may be gone: each is looked for again before it is used
            self._send()
            ending = await channel.end()
            self._note_ending(ending)
            if not connection.ended.done():
                await pause.wait()

    async def _declare(self, topic: str, attempts: Sequence[_Attempt]) -> None:
        """See to the exchange of a topic before anything is sent there: a missing one would end the channel."""
        exchange = self._topology.exchange(topic)
        until, why = self._resting.get(exchange.name, (0.0, ""))
        if until > asyncio.get_running_loop().time():
            for attempt in attempts:
                attempt.batch.note(attempt.at, Unknown(why))
            return
        while not self._closed:
            if (connection := self.link.connection) is None:
                await self.link.changed()
                continue
            try:
                await self._topology.ensure(connection, self._topology.publishing(topic))
            except BrokerError as error:
                if not error.transient:
                    self._rest(exchange.name, str(error))
                    for attempt in attempts:
                        attempt.batch.note(attempt.at, Unknown(str(error)))
                    return
                await asyncio.sleep(0.1)
            else:
                self._declared.add(topic)
                return

    def _send(self) -> None:
        """Send what waits, as far as the window goes."""
        if (
            not self._waiting
            or self._channel is None
            or not (raw := self._channel.raw).is_open
            or self.blocked is not None
        ):
            return
        with self._channel.together():
            while self._waiting and len(self._under_way) < WINDOW:
                attempt = self._waiting.popleft()
                if attempt.batch.results[attempt.at] is not None:
                    continue  # its caller waits no more
                tag = self._tag + 1
                properties = properties_of(attempt.headers, attempt.content_type, f"{self._epoch}.{tag}")
                raw.basic_publish(attempt.exchange, attempt.key, attempt.body, properties, mandatory=True)
                self._tag, self._under_way[tag] = tag, attempt

    # ---- what the server says ----------------------------------------------------------------------------------------

    def _note_returned(self, _channel: object, _method: object, properties: Any, _body: bytes) -> None:
        """It reached no queue. The server confirms it all the same, right after this."""
        epoch, _, tag = str(properties.message_id).partition(".")
        attempt = self._under_way.get(int(tag)) if epoch == str(self._epoch) and tag.isdecimal() else None
        if attempt is not None:
            attempt.returned = True

    def _note_answer(self, found: Any) -> None:
        """One message, or all up to it, confirmed or refused."""
        method = found.method
        tags = [method.delivery_tag]
        if method.multiple:
            tags = []
            for tag in self._under_way:  # in the order of sending
                if tag > method.delivery_tag:
                    break
                tags.append(tag)
        confirmed = method.NAME == "Basic.Ack"
        for tag in tags:
            if (attempt := self._under_way.pop(tag, None)) is not None:
                attempt.batch.note(attempt.at, self._result(attempt) if confirmed else _NACKED)
        self._send()

    def _result(self, attempt: _Attempt) -> Result:
        if not attempt.returned:
            return _CONFIRMED
        if self._wanted(attempt.topic) or addressee(attempt.topic) is not None:
            self._declared.discard(attempt.topic)
            return Unknown(f"no queue takes what is published to {attempt.exchange}, though somebody is to receive it")
        self.unrouted[attempt.topic] += 1
        if self.unrouted[attempt.topic] == 1:
            _log.info(
                "RabbitMQ at %s: nobody has subscribed to the topic %s yet; what is published there is gone",
                self._settings.place,
                attempt.topic,
            )
        return _CONFIRMED

    def _note_blocked(self, reason: str | None) -> None:
        if reason is not None:
            _log.warning("RabbitMQ at %s takes no messages: %s; they wait in the log", self._settings.place, reason)
        else:
            _log.info("RabbitMQ at %s takes messages again", self._settings.place)
            self._send()

    def _note_ending(self, ending: Ending) -> None:
        """The channel ended, and with it went whatever was under way; whose fault it was, the server may have said."""
        if (found := _TOO_LARGE.search(ending.text)) is not None:
            self._limit = min(self._limit, int(found[1]))
            for attempt in self._under_way.values():
                if len(attempt.body) > self._limit:
                    attempt.batch.note(attempt.at, self._too_large(len(attempt.body)))
        elif ending.code:
            why = str(refusal_of(self._settings, Ended(ending)))
            for exchange in {attempt.exchange for attempt in self._under_way.values()}:
                if f"'{exchange}'" in ending.text:
                    self._rest(exchange, why)
        self._lose(ending.text)

    def _too_large(self, size: int) -> Rejected:
        whose = "" if self._limit >= MAX_BYTES else " (max_message_size of the server)"
        return Rejected(f"it has {size:,} bytes, the limit is {self._limit:,}{whose}", too_large=True)

    def _rest(self, exchange: str, why: str) -> None:
        if exchange not in self._resting or self._resting[exchange][1] != why:
            _log.warning("%s", why)
        self._resting[exchange] = (asyncio.get_running_loop().time() + REST, why)

    def _lose(self, why: str) -> None:
        self._channel = None
        self._declared.clear()
        for attempt in self._under_way.values():
            attempt.batch.note(attempt.at, Unknown(f"not confirmed: {why}"))
        self._under_way.clear()

    def _forget(self, batch: _Batch) -> None:
        """Nobody waits for it any more. If the server owes us answers, they are not waited for either."""
        self._waiting = deque(attempt for attempt in self._waiting if attempt.batch is not batch)
        owed = any(attempt.batch is batch for attempt in self._under_way.values())
        if owed and self.blocked is None and self._channel is not None:
            self._channel.close()

    def _doubt(self) -> str:
        if self.link.trouble is not None:
            return str(self.link.trouble)
        if self.blocked is not None:
            return f"RabbitMQ at {self._settings.place} takes no messages: {self.blocked}"
        return f"not confirmed within {self.deadline:.0f} s"


_CLOSED = "the connection was closed"
_CONFIRMED = Confirmed()
_NACKED = Unknown("the server did not take it: one of its queues cannot")
