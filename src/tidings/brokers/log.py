"""The log of a store as a broker: carries envelopes between apps that have stores of their own and share this one.

A team with PostgreSQL alone needs no message broker; and one file will do for processes of one machine.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from collections.abc import Sequence
from dataclasses import replace

import msgspec

from tidings.brokers.embedded import Feed, LogConsumer
from tidings.core.arrival import DEADLINE, Arrival, Confirmed, Rejected, Result, Unknown
from tidings.core.check import Check
from tidings.core.cloudevent import to_text
from tidings.core.envelope import SLOTS, STATES, Envelope, share
from tidings.core.operations import Append, Beat, Settle
from tidings.core.ports import Store
from tidings.core.resource import Resource
from tidings.core.subscription import Subscription
from tidings.core.url import parse_url
from tidings.errors import BrokerUnavailable, Fenced, IdConflict, StoreUnavailable, TidingsError

LEASE = 10.0
"""Seconds after which the share of a silent worker goes to the others."""

GROUP = "arrivals"

COUNTED = 10_000
"""Messages that are counted as waiting at most."""


class LogBroker:
    """Publishes by appending to the log of a store, and delivers by reading it."""

    def __init__(self, store: Store, app: str) -> None:
        """Args: store: not open; nobody else's. app: whose messages arrive here."""
        self.guarantees = replace(store.guarantees, exactly_once=False)
        self.url = parse_url(store.url).safe  # it stands in what is kept of each message that cannot be read
        self._store = store
        self._app = app
        self._member = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
        self._topics: frozenset[str] = frozenset()
        self._consumer = self._make_consumer()
        self._taken: dict[int, Envelope] = {}  # by position
        self._claim_at = 0.0

    def _make_consumer(self) -> LogConsumer:
        subscription = Subscription(
            GROUP, (), self._deliver, where="tidings.brokers.log", counted=False, wants=self._is_wanted
        )
        return LogConsumer(self._store, subscription, f"{self._app}.{GROUP}", self._app, self._member, LEASE)

    def _deliver(self, envelope: Envelope) -> None:
        """Never called: what is read is fetched."""

    def _is_wanted(self, envelope: Envelope) -> bool:
        return envelope.topic in self._topics

    async def open(self) -> None:
        """Open the store."""
        try:
            await self._store.open()
        except StoreUnavailable as error:
            raise BrokerUnavailable(error.what, error.cure) from error

    async def close(self) -> None:
        """Hand back what is held, and close the store."""
        try:
            if self._claim_at:
                self._claim_at = 0.0
                await self._store.write(Beat(self._app, self._member, LEASE, leaving=True))
        finally:
            await self._store.close()

    # ---- publishing --------------------------------------------------------------------------------------------------

    async def publish(self, envelopes: Sequence[Envelope]) -> Sequence[Result]:
        """Append them in one commit."""
        results: list[Result] = [self._refusal(each) or Confirmed() for each in envelopes]
        fit = [_public(each) for each, result in zip(envelopes, results, strict=True) if type(result) is Confirmed]
        try:
            async with asyncio.timeout(DEADLINE):
                await self._store.write(Append(fit))
        except IdConflict:
            return [
                result if isinstance(result, Rejected) else await self._publish(each)
                for each, result in zip(envelopes, results, strict=True)
            ]
        except (TidingsError, TimeoutError) as error:
            return [each if isinstance(each, Rejected) else Unknown(str(error)) for each in results]
        return results

    async def _publish(self, envelope: Envelope) -> Result:
        try:
            await self._store.write(Append([_public(envelope)]))
        except IdConflict as error:
            return Rejected(error.what)
        except TidingsError as error:
            return Unknown(str(error))
        return Confirmed()

    def _refusal(self, envelope: Envelope) -> Rejected | None:
        size, limit = len(envelope.data), self.guarantees.max_bytes
        return Rejected(f"it has {size:,} bytes; the limit is {limit:,}", too_large=True) if size > limit else None

    # ---- receiving ---------------------------------------------------------------------------------------------------

    async def subscribe(self, topics: Sequence[str]) -> None:
        """Join the group of this app, from the beginning of the log where it is new."""
        self._topics = frozenset(topics)
        await self._consumer.join()
        await self._claim()

    async def fetch(self, limit: int, wait: float) -> Sequence[Arrival]:
        """What nobody took yet of this worker's share of the keys."""
        loop = asyncio.get_running_loop()
        end = loop.time() + wait
        try:
            while True:
                if loop.time() >= self._claim_at:
                    await self._claim()
                head = await self._store.head()
                found = await self._consumer.fetch(limit)
                if found:
                    self._taken.update((each.position, each) for each in found)
                    return [self._arrival(each) for each in found]
                left = min(end, self._claim_at) - loop.time()
                if loop.time() >= end:
                    return ()
                await self._store.grown(head, max(0.001, left))
        except StoreUnavailable as error:
            raise BrokerUnavailable(error.what, error.cure) from error

    def _arrival(self, envelope: Envelope) -> Arrival:
        texts = to_text(envelope).items()
        sent = {"content-type" if name == "datacontenttype" else f"ce-{name}": text.encode() for name, text in texts}
        place = f"position {envelope.position} of {self.url}"
        return Arrival(envelope.topic or "", envelope.data, sent, place, envelope.key, envelope)

    async def settle(self, arrivals: Sequence[Arrival]) -> None:
        """Move the checkpoints."""
        for arrival in arrivals:
            envelope: Envelope = arrival.token
            self._taken.pop(envelope.position, None)
            feed = self._consumer.feed_of(envelope)
            if feed is not None:
                feed.watermark.finished(envelope.position)
        for feed in list(self._consumer.feeds):
            await self._flush(feed)

    async def _flush(self, feed: Feed) -> None:
        position = feed.watermark.position
        if position <= feed.flushed:
            return
        try:
            await self._store.write(Settle(self._consumer.group, dict(feed.slots), checkpoint=position))
            feed.flushed = position
        except Fenced:  # another worker has them, and gets what is not settled
            self._consumer.lose(feed)

    async def _claim(self) -> None:
        """Take an even share of the keys, and hand back what is too much."""
        consumer = self._consumer
        alive = await self._store.write(Beat(self._app, self._member, LEASE, groups=[consumer.group]))
        runners = [name for name, groups in alive.items() if consumer.group in groups]
        want = share(consumer.group, SLOTS, self._member, runners)
        surplus = consumer.slots[want:]
        if surplus:
            consumer.split(surplus, list(self._taken.values()))
        for feed in list(consumer.feeds):
            await self._flush(feed)
        await consumer.claim(want)
        quick = surplus or len(consumer.slots) < want
        self._claim_at = asyncio.get_running_loop().time() + (0.1 if quick else LEASE / 5)

    async def waiting(self) -> int:
        """Messages that are not settled, up to 10,000."""
        after = await self._store.checkpoint(self._consumer.group)
        count = 0
        while count < COUNTED:
            rows = await self._store.read(after, await self._store.head(), 1000)
            if not rows:
                break
            after = rows[-1].position
            for row in filter(self._is_wanted, rows):
                feed = self._consumer.feed_of(row)
                count += feed is None or row.position > feed.watermark.position
        return count

    def look(self) -> Sequence[Check]:
        """What the store finds about itself."""
        try:
            return self._store.look()
        except FileNotFoundError:
            return [Check("connection", "ok", "the store is not there yet; the first app to open it makes it")]

    def topology(self, topics: Sequence[str]) -> Sequence[Resource]:
        """The group that reads the log; topics are a column of it."""
        return [Resource("group", f"{self._app}.{GROUP}", {"topics": ", ".join(topics)})]

    def export(self, topics: Sequence[str]) -> str:  # noqa: ARG002 - as every broker has it
        """The command that makes the store; groups come by themselves."""
        return f"tidings migrate up --store '{self.url}'\n"


def _public(envelope: Envelope) -> Envelope:
    """As others may see it: histories belong to their own store, and only the versions of states mean something."""
    if envelope.stream is None or envelope.stream.startswith(STATES):
        return envelope
    return msgspec.structs.replace(envelope, stream=None, version=None)
