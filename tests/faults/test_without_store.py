"""Apps without a store are killed at any moment, and at both ends: what was acknowledged arrives, in order per key."""

import asyncio
import contextlib
import os
import random
import sqlite3
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from tests.faults.crossing import kill_at_random
from tests.faults.numbered import Numbered, compare
from tests.faults.sizes import KILLS
from tidings import App, Key, Transaction, event
from tidings.runtime.direct import Direct
from tidings.runtime.inbound import Inbound
from tidings.runtime.outbound import Outbound
from tidings.testing.faults import Child, Ready

SETTLED = 30.0
"""Seconds after which everything must have arrived, once nobody is killed any more."""


@event(topic="sent")
class Sent:
    key: Key[str]
    number: int


@event
class Weighed:
    """Goes from one handler of the app in the middle to the next, and is in its memory alone."""

    key: Key[str]
    number: int


@event(topic="passed")
class Passed:
    key: Key[str]
    number: int


class Passing:
    """Publishers and, in the middle, workers without a store; at the end an app with one, that is not killed.

    Args:
        broker: URL of the broker, in which nobody else uses the topics.
        folder: For what was acknowledged, and for the store.
        mutant: Breaks the product on purpose, in every process that may be killed.
    """

    def __init__(self, broker: str, folder: Path, mutant: Callable[[], object] | None = None) -> None:
        self.broker, self.folder, self.mutant = broker, folder, mutant
        self.children: list[Child] = []
        self._serial = count(1)

    def child(self, main: Callable[[Ready], object]) -> Child:
        child = Child(main)
        self.children.append(child)
        return child

    def publisher(self) -> Child:
        """Publishes until it is killed, and notes what was acknowledged."""
        name = f"p{next(self._serial)}"

        async def main(ready: Ready) -> None:
            self._break()
            file = os.open(self.folder / "acknowledged", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            async with App("sqlite::memory:", broker=self.broker, name="shop") as app:
                for at in count():
                    sent = [Sent(f"{name}-{key}", at) for key in range(3)]
                    await asyncio.gather(*map(app.publish, sent))
                    os.write(file, "".join(f"{each.key} {each.number}\n" for each in sent).encode())
                    if at == 0:
                        ready()
                    await asyncio.sleep(0.005)

        return self.child(lambda ready: asyncio.run(main(ready)))

    def worker(self, *, until_idle: bool = False) -> Child:
        """Passes on what arrives, in two steps."""

        async def main(ready: Ready) -> None:
            self._break()
            app = App("sqlite::memory:", broker=self.broker, name="middle")

            @app.on(Sent)
            async def weigh(sent: Sent) -> Weighed:
                return Weighed(sent.key, sent.number)

            @app.on(Weighed)
            async def send_on(weighed: Weighed) -> Passed:
                await asyncio.sleep(0.001)
                return Passed(weighed.key, weighed.number)

            asyncio.get_running_loop().call_later(0.1, ready)
            await app.run(until_idle=until_idle)

        return self.child(lambda ready: asyncio.run(main(ready)))

    def _break(self) -> None:
        if self.mutant is not None:
            self.mutant()

    def archive(self, *, until_idle: bool) -> Child:
        """Notes what was passed on, each message once."""

        async def main(ready: Ready) -> None:
            app = App(f"sqlite:{self.folder}/archive.db", broker=self.broker, name="archive")

            @app.on(Passed)
            async def note(passed: Passed, tx: Transaction) -> None:
                await tx.execute("INSERT INTO passed (key, number) VALUES (?, ?)", passed.key, passed.number)

            async with app, app.transaction() as tx:
                await tx.execute(
                    "CREATE TABLE IF NOT EXISTS passed (at INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT, number INTEGER)"
                )
            ready()
            await app.run(until_idle=until_idle)

        return self.child(lambda ready: asyncio.run(main(ready)))

    def live(self, kills: int) -> None:
        """Kill one of them every few milliseconds, and put another one in its place."""
        assert self.archive(until_idle=True).wait() == 0  # what is for them is kept from now on
        assert self.worker(until_idle=True).wait() == 0
        assert self.archive(until_idle=False).wait_ready()
        starts = [self.publisher, self.publisher, self.worker, self.worker]
        for child in kill_at_random(starts, kills, random.Random(1), self.children)[:2]:
            child.end()

    def lost(self, within: float = SETTLED) -> set[Numbered]:
        """What was acknowledged and is not there, once it had the time."""
        end = time.monotonic() + within
        while (lost := self.acknowledged() - set(self.passed())) and time.monotonic() < end:
            time.sleep(0.1)
        return lost

    def acknowledged(self) -> set[Numbered]:
        lines = (self.folder / "acknowledged").read_text().splitlines()
        return {(key, int(number)) for key, number in (line.split() for line in lines)}

    def passed(self) -> list[Numbered]:
        with contextlib.closing(sqlite3.connect(self.folder / "archive.db", timeout=30.0)) as connection:
            return connection.execute("SELECT key, number FROM passed ORDER BY at").fetchall()

    def close(self) -> None:
        for child in self.children:
            child.end()


@pytest.fixture
def passing(broker: str, tmp_path: Path) -> Iterator[Passing]:
    passing = Passing(broker, tmp_path)
    yield passing
    passing.close()


@pytest.mark.timeout(max(240, KILLS // 4))
@pytest.mark.parametrize("broker", ["sqlite", "kafka", "rabbitmq"], indirect=True)
@pytest.mark.proves("G1", "G5", "G9")
def test_kills_of_publishers_and_workers_without_a_store_lose_nothing_and_keep_the_order(passing: Passing) -> None:
    passing.live(KILLS // 30)
    acknowledged = passing.acknowledged()
    assert passing.lost() == set()
    passed = passing.passed()
    print(f"{len(acknowledged)} acknowledged, {len(passed) - len(set(passed))} of {len(passed)} passed on again")
    assert len(acknowledged) > KILLS // 30
    first = list(dict.fromkeys(passed))  # what a killed worker had passed on comes again
    assert compare(acknowledged, first, lambda _: True).inverted == set()


# ---- the proof can fail: planted bugs --------------------------------------------------------------------------------


def acknowledge_first() -> None:
    """What is published counts as published before the broker has it."""
    publish, under_way = Direct.publish, set()

    async def publish_later(self: Direct, envelopes: list) -> list:
        async def later() -> None:
            await asyncio.sleep(0.1)
            await publish(self, envelopes)

        under_way.add(asyncio.create_task(later()))
        return []

    Direct.publish = publish_later


def settle_early() -> None:
    """What came is settled once it is handled, whatever became of what handlers made of it."""

    async def is_handled(self: Inbound, kept) -> bool:
        return await self._finished(kept.until)

    hand_over = Outbound._hand_over

    async def late(self: Outbound, envelopes: list) -> list:
        if self._app == "middle":
            await asyncio.sleep(0.1)
        return await hand_over(self, envelopes)

    Inbound._is_handled, Outbound._hand_over = is_handled, late


@pytest.mark.parametrize("mutant", [acknowledge_first, settle_early])
def test_what_an_app_without_a_store_acknowledges_too_early_is_found_to_be_lost(passing: Passing, mutant) -> None:
    passing.mutant = mutant
    passing.live(15)
    assert passing.lost(within=5.0)
