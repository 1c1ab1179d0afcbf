"""Brokers and envelopes for the tests of a broker."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import msgspec
import pytest

from tidings.core.arrival import Arrival, Confirmed
from tidings.core.envelope import Envelope, slot_of
from tidings.core.ports import Broker
from tidings.testing.conformance.store.making import envelope as made

Connect = Callable[..., Awaitable[Broker]]
"""(app, *topics) -> a broker that is open and subscribed to these topics."""

PATIENCE = 15.0
"""Seconds that anything may take at most."""


def envelope(topic: str = "orders", key: str | None = "k-1", **changes: Any) -> Envelope:
    """An envelope as the log of the app "shop" has it."""
    return made(key, topic=topic, slot=slot_of(key or ""), **changes)


def read(arrival: Arrival) -> Envelope:
    """The envelope in an arrival, as the runtime reads it."""
    found = arrival.read()
    return msgspec.structs.replace(found, slot=slot_of(found.key or ""))


async def publish(broker: Broker, envelopes: Sequence[Envelope]) -> None:
    """Publish envelopes as the runtime does: of each key one at a time; all of them must be confirmed."""
    rounds: list[list[Envelope]] = []
    seen: dict[str, int] = {}
    for each in envelopes:
        at = seen.get(each.key, 0) if each.key is not None else 0
        if each.key is not None:
            seen[each.key] = at + 1
        while len(rounds) <= at:
            rounds.append([])
        rounds[at].append(each)
    for batch in rounds:
        assert await broker.publish(batch) == [Confirmed()] * len(batch)


async def drained(broker: Broker, count: int, *, settle: bool = True, quiet: float = 0.0) -> list[Arrival]:
    """Arrivals until there are `count`, and then for as long as `quiet` seconds."""
    found: list[Arrival] = []

    async def take(wait: float) -> None:
        taken = await broker.fetch(1000, wait)
        if settle and taken:
            await broker.settle(taken)
        found.extend(taken)

    end = time.monotonic() + PATIENCE
    while len(found) < count and time.monotonic() < end:
        await take(0.5)
    end = time.monotonic() + quiet
    while time.monotonic() < end:
        await take(0.1)
    return found


class Making:
    """What the tests need."""

    def make(self, url: str, app: str) -> Broker:
        """An adapter for an app, not yet open."""
        raise NotImplementedError

    @pytest.fixture
    async def connect(self, url: str) -> AsyncIterator[Connect]:
        """Makes brokers, and closes them in the end."""
        opened: list[Broker] = []

        async def connect(app: str, *topics: str) -> Broker:
            broker = self.make(url, app)
            await broker.open()
            opened.append(broker)
            if topics:
                await broker.subscribe(topics)
            return broker

        yield connect
        await asyncio.gather(*(broker.close() for broker in opened))
