"""What every refusal owes: a stable code, one line of what and one of the cure, no secret, and nothing changed."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

from tidings import App, Decider, Key, command, errors, event, state

SECRET = "hunter2"
"""Stands in every password of these tests; no message, log or table may show it."""


@event(topic="orders")
class Item:
    x: Any = None


@event(topic="orders")
class Order:
    """Takes about anything, so that what is refused is refused for its value."""

    order_id: Key[str]
    items: list[Item] = field(default_factory=list)
    extra: Any = None
    number: int = 0
    weight: float = 0.0
    when: datetime | None = None
    amount: Decimal | None = None


@state(topic="customers")
class Customer:
    customer_id: Key[str]
    name: str


@command
class Ship:
    order_id: Key[str]


@dataclass
class Told:
    """An error as a caller got it."""

    error: errors.TidingsError | None = None

    def __str__(self) -> str:
        return str(self.error)


@contextlib.contextmanager
def refusal(code: str, *words: str) -> Iterator[Told]:
    """Whatever happens inside is refused with this code, in one line each of what and cure that name these words."""
    told = Told()
    try:
        yield told
    except errors.TidingsError as error:
        told.error = error
    assert told.error is not None, "nothing was refused"
    check(told.error, code, *words)


def check(error: errors.TidingsError, code: str, *words: str) -> None:
    """Every error has its code, says what and the cure on a line each, names these words, and keeps secrets."""
    assert re.fullmatch(r"TID-\d{3}", error.code)
    assert error.code == code, f"{error.code}: {error}"
    assert error.what.isprintable(), "one line, without control characters"
    assert error.cure, f"no cure: {error}"
    assert error.cure.isprintable()
    assert len(str(error)) < 1_000
    assert SECRET not in f"{error} {error.data}"
    for word in words:
        assert word in str(error), f"{word!r} is not in: {error}"


async def refused_on_every_face(app: App, message: object, code: str, *words: str, **options: Any) -> None:
    """Publishing this is refused by `publish`, by the blocking face and in a transaction, before any write."""
    before = await app.store.head()

    def blocking() -> None:
        with refusal(code, *words), app.blocking() as b:
            b.publish(message, **options)

    with refusal(code, *words):
        await app.publish(message, **options)
    with refusal(code, *words):
        await app.publish(Order("good"), message)
    await asyncio.to_thread(blocking)
    with refusal(code, *words):
        async with app.transaction() as tx:
            await tx.execute("CREATE TABLE written (a)")
            await tx.publish(message)
    assert await app.store.head() == before, "nothing was published"
    assert await app.store.query("SELECT name FROM sqlite_schema WHERE name = 'written'") == []


async def option_refused(app: App, code: str, *words: str, **options: Any) -> None:
    """Publishing a good message with these options is refused, on both faces."""
    before = await app.store.head()

    def blocking() -> None:
        with refusal(code, *words), app.blocking() as b:
            b.publish(Order("a"), **options)

    with refusal(code, *words):
        await app.publish(Order("a"), **options)
    await asyncio.to_thread(blocking)
    assert await app.store.head() == before


async def until(condition: Callable[[], Awaitable[Any]]) -> Any:
    """Look until something is true, and return it."""
    async with asyncio.timeout(20):
        while not (found := await condition()):
            await asyncio.sleep(0.01)
    return found


@contextlib.asynccontextmanager
async def running(app: App) -> AsyncIterator[asyncio.Task[Any]]:
    """An open app whose handlers run beside the test."""
    async with app:
        task = asyncio.create_task(app.run())
        try:
            yield task
        finally:
            app.stop()
            await asyncio.wait([task])


def _decide(_count: int, ship: Ship) -> list[Order]:
    return [Order(ship.order_id)]


def _evolve(count: int, _order: Order) -> int:
    return count + 1


def counting() -> Decider[int, Ship, Order]:
    """A decider whose state is the number of its events."""
    return Decider("account", initial=0, decide=_decide, evolve=_evolve)
