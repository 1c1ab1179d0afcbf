"""One app publishes, workers of another receive, as their stores would; and what has to hold of it in the end.

A file is the log of the receiving app: appending to it with `O_APPEND` is its durable write, also for several
processes. Nothing is settled before it is there, and what is there already is passed over.
"""

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from itertools import count, groupby
from pathlib import Path

from tidings.core.arrival import Confirmed, Rejected
from tidings.core.ports import Broker
from tidings.errors import BrokerUnavailable
from tidings.runtime.connect import adapters
from tidings.testing.conformance.broker.making import envelope, read

Make = Callable[[str], Broker]
"""App -> its adapter, not yet open."""

TOPIC = "orders"
PATIENCE = 60.0
"""Seconds until everything has to be there, once all is well again."""


class Shop:
    """Publishes without end, of every key one message after the other; what is not confirmed is sent again.

    Args:
        make: Makes the adapter.
        keys: How many keys there are.
    """

    def __init__(self, make: Make, keys: int = 24) -> None:
        self.confirmed: list[str] = []
        self.longest = 0.0
        """Seconds that one call took."""
        self.unknown = 0
        self._make = make
        self._next = {f"k-{n}": count() for n in range(keys)}
        self._stopped = asyncio.Event()
        self._running: asyncio.Task[None] | None = None

    async def __aenter__(self):
        self.broker = self._make("shop")
        await self.broker.open()
        self._running = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_):
        await self.stop()
        await self.broker.close()

    async def stop(self):
        self._stopped.set()
        await self._running

    async def _run(self):
        waiting = []
        while not self._stopped.is_set() or waiting:
            busy = {each.key for each in waiting}
            for key, numbers in self._next.items():
                if key not in busy and not self._stopped.is_set():
                    waiting.append(envelope(TOPIC, key, id=f"{key}:{next(numbers)}"))
            began = time.monotonic()
            results = await self.broker.publish(waiting)
            self.longest = max(self.longest, time.monotonic() - began)
            assert not any(isinstance(each, Rejected) for each in results), results
            self.confirmed += [each.id for each, result in zip(waiting, results, strict=True) if result == Confirmed()]
            waiting = [each for each, result in zip(waiting, results, strict=True) if result != Confirmed()]
            self.unknown += len(waiting)
            await asyncio.sleep(0.05 if waiting else 0.002)


async def receive(broker: Broker, log: Path, stopped: Callable[[], bool] = bool) -> None:
    """Be a worker: fetch, append, settle, until told to stop."""
    await broker.open()
    while True:
        try:
            await broker.subscribe([TOPIC])
            break
        except BrokerUnavailable:
            await asyncio.sleep(0.1)
    file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        while not stopped():
            try:
                taken = await broker.fetch(100, 0.2)
            except BrokerUnavailable:
                await asyncio.sleep(0.05)
                continue
            if taken:
                os.write(file, "".join(f"{read(each).id}\n" for each in taken).encode())
                await broker.settle(taken)
    finally:
        os.close(file)
        await broker.close()


class Killable:
    """A worker in a process of its own, begun afresh: a client's threads and locks do not survive a fork."""

    def __init__(self, url: str, log: Path) -> None:
        self._process = subprocess.Popen([sys.executable, "-m", __name__, url, str(log)], stdin=subprocess.PIPE)

    def kill(self):
        self._process.kill()
        self._process.communicate()


class Workers:
    """Workers in this process, by task."""

    def __init__(self, make: Make, log: Path) -> None:
        self._make, self._log = make, log
        self._tasks: list[tuple[asyncio.Task[None], asyncio.Event]] = []

    def __len__(self):
        return len(self._tasks)

    def add(self):
        stopped = asyncio.Event()
        work = receive(self._make("billing"), self._log, stopped.is_set)
        self._tasks.append((asyncio.create_task(work), stopped))

    async def drop(self, at=-1):
        task, stopped = self._tasks.pop(at)
        stopped.set()
        await task

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        while self._tasks:
            await self.drop()


def arrived(log: Path) -> list[str]:
    """Ids in the order in which they first arrived."""
    return list(dict.fromkeys(log.read_text("ascii").split())) if log.exists() else []


def size_of(log: Path) -> int:
    return log.stat().st_size if log.exists() else 0


async def grown(log: Path, patience: float) -> float:
    """Seconds until the log has something new."""
    size, began = size_of(log), time.monotonic()
    while size_of(log) == size:
        assert time.monotonic() - began < patience, "nothing new arrives"
        await asyncio.sleep(0.01)
    return time.monotonic() - began


def appended(log: Path) -> int:
    return len(log.read_text("ascii").split())


async def complete(shop: Shop, log: Path) -> str:
    """Wait until everything confirmed has arrived; nothing may be missing, and every key be in order."""
    end, wanted = time.monotonic() + PATIENCE, set(shop.confirmed)
    while missing := wanted - set(arrived(log)):
        assert time.monotonic() < end, f"{len(missing)} of {len(wanted)} never arrived, such as {min(missing)}"
        await asyncio.sleep(0.1)
    found = sorted(arrived(log), key=lambda id: id.partition(":")[0])
    for key, ids in groupby(found, lambda id: id.partition(":")[0]):
        numbers = [int(id.partition(":")[2]) for id in ids]
        assert numbers == sorted(numbers), f"{key} is out of order: {numbers}"
    again = appended(log) - len(found)
    return f"{len(wanted)} confirmed, all arrived, {again} again; {shop.unknown} unknown; longest {shop.longest:.1f} s"


def watch_parent() -> None:
    """End when whoever started this process does."""
    sys.stdin.read()
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=watch_parent, daemon=True).start()
    scheme = sys.argv[1].partition(":")[0]
    asyncio.run(receive(adapters("tidings.brokers")[scheme].load()(sys.argv[1], "billing"), Path(sys.argv[2])))
