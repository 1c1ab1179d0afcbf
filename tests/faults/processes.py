"""The processes of the fault tests: what runs in the children, and how a run is brought to its end and judged."""

import asyncio
import contextlib
import functools
import itertools
import logging
import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psycopg

from tests.faults.workload import FileLedger, Pause, Publisher, Shop, final, judge, prepare, read_ledger
from tidings import App
from tidings.core.operations import Redrive
from tidings.core.url import parse_url
from tidings.stores.postgres.connection import Place
from tidings.testing.evidence import Final
from tidings.testing.faults import Child, Ready, Tracing
from tidings.testing.history import History
from tidings.testing.verdict import Report

Mutant = Callable[[], object]


def _when_working(app: App, running: asyncio.Future, ready: Ready) -> None:
    """Say "ready" once the worker pumps."""
    if any(worker._tasks for worker in app._workers):
        ready()
    elif not running.done():
        asyncio.get_running_loop().call_later(0.001, _when_working, app, running, ready)


@functools.cache
def _warm() -> None:
    """Import what is imported late, once for all children."""
    nowhere = Shop("sqlite::memory:", lambda *_, **__: None, lambda _: None, 0)
    asyncio.run(prepare(nowhere))


@dataclass
class Scene:
    """One run: a folder with the store, the history, the ledger and the log of its processes.

    Args:
        folder: Empty at first.
        mutant: Breaks the product on purpose, inside every child.
        options: For the App.
        traces: Where history, ledger and log are, if not beside the store.
        store: URL of the store, if it is not a file in the folder.
    """

    folder: Path
    mutant: Mutant | None = None
    options: dict[str, object] | None = None
    traces: Path | None = None
    store: str | None = None

    def __post_init__(self) -> None:
        self.traces = self.traces or self.folder
        self.history = History(self.traces / "history.jsonl")
        self.serial = itertools.count(1)
        self.children: list[Child] = []
        self.tracings: list[Tracing] = []
        self.reports: list[Report] = []

    @property
    def url(self) -> str:
        return self.store or f"sqlite:///{self.folder}/shop.db"

    def shop(self, **more) -> Shop:
        """A shop that leaves its traces in this scene, in the calling process."""
        history = History(self.traces / "history.jsonl")
        return Shop(
            self.url,
            history.note,
            FileLedger(self.traces / "ledger.jsonl"),
            os.getpid(),
            options=self.options or {},
            **more,
        )

    def child(self, main: Callable[[Ready], object]) -> Child:
        """Fork a process of this scene."""

        def run(ready: Ready) -> object:
            words = "%(process)d %(levelname)s %(message)s"
            logging.basicConfig(
                filename=self.traces / "log.txt", format=words, force=True
            )  # and not where the tests log
            if self.mutant is not None:
                self.mutant()
            return main(ready)

        child = Child(run, self.history)
        self.children.append(child)
        return child

    def traced(self, run: Callable[[], object], take: Callable[[int], Tracing]) -> Child:
        """Fork a process that strace takes hold of before it does anything."""
        go, traced = os.pipe()

        def main(ready: Ready) -> None:
            ready()
            os.read(go, 1)
            run()

        child = self.child(main)
        child.wait_ready()
        self.tracings.append(take(child.pid))
        os.write(traced, b"!")
        os.close(go)
        os.close(traced)
        return child

    def prepare(self) -> None:
        """Make the store and the tables, in a process of its own: nothing is opened before a fork."""
        _warm()
        assert self.child(lambda _: asyncio.run(prepare(self.shop()))).wait() == 0, self.log()

    def publisher(self, rounds: int | None = None, **attributes) -> Child:
        """A process that publishes until it is killed, or for some rounds."""
        number = next(self.serial)

        async def main(ready: Ready) -> None:
            shop = self.shop()
            async with shop.app:
                publisher = Publisher(shop, f"p{number}", random.Random(number))
                for name, value in attributes.items():
                    setattr(publisher, name, value)
                ready()
                await publisher.run(rounds)

        return self.child(lambda ready: asyncio.run(main(ready)))

    def worker(self, pause: Callable[[Ready], Pause] | None = None) -> Child:
        """A process that works until it is told to stop.

        Args:
            pause: Given what says "ready" once more, makes what handlers wait for.
        """

        async def main(ready: Ready) -> None:
            shop = self.shop(pause=pause(ready) if pause is not None else None)
            async with shop.app as app:
                running = asyncio.ensure_future(app.run())
                asyncio.get_running_loop().call_soon(_when_working, app, running, ready)
                await running

        return self.child(lambda ready: asyncio.run(main(ready)))

    def finish(self) -> Child:
        """A process that works until nothing is left to do."""

        async def main() -> None:
            await self.shop().app.run(until_idle=True)

        return self.child(lambda _: asyncio.run(main()))

    def heal(self, *, redrive: bool = True) -> None:
        """All faults are off: one worker finishes the work. Dead letters that only kills explain are redriven once."""

        async def main() -> None:
            shop = self.shop()
            async with shop.app as app:
                await app.run(until_idle=True)
                found = await app.store.held(state="dead", limit=1_000_000)
                dead = [held for held in found if "Wished" not in held.reason]
                if dead and redrive:
                    for held in dead:
                        shop.note("redrive", "invoke", group=held.group, id=held.envelope.id)
                    await app.store.write(Redrive([held.id for held in dead]))
                    await app.run(until_idle=True)

        healer = self.child(lambda _: asyncio.run(main()))
        assert healer.wait(timeout=120) == 0, self.log()

    def final(self, **more) -> Final:
        """Everything that is found, read in this process after the last child has ended."""

        async def main() -> Final:
            shop = self.shop()
            async with shop.app:
                return await final(shop, read_ledger(self.traces / "ledger.jsonl"), **more)

        return asyncio.run(main())

    def report(self, **more) -> Report:
        """The verdicts on this scene."""
        self.reports.append(judge(self.traces / "history.jsonl", self.final(**more)))
        return self.reports[-1]

    def log(self) -> str:
        """The last lines that the processes logged."""
        path = self.traces / "log.txt"
        return "\n".join(path.read_text().splitlines()[-40:]) if path.exists() else ""

    def close(self) -> None:
        """End what is left."""
        for child in self.children:
            child.end()
        for tracing in self.tracings:
            tracing.end()
        self.history.close()


def crew(scene: Scene, **publishing: object) -> list[Child]:
    """Two publishers who wait out trouble, and two workers."""
    roles = ((scene.publisher, {"patient": True, **publishing}), (scene.worker, {}))
    found = [start(**more) for start, more in roles * 2]
    for child in found:
        assert child.wait_ready(), scene.log()
    return found


def dismiss(scene: Scene, children: list[Child]) -> None:
    """Everybody still works, and stops when told to."""
    publishers, workers = children[::2], children[1::2]
    for child in publishers:
        child.end()
    for child in workers:
        assert child.terminate() == 0, scene.log()
    scene.heal()


def resumed(scene: Scene, within: float = 10.0) -> float:
    """Seconds until something new is published and something takes effect, now that a fault is over."""
    began = time.monotonic()
    place = Place(parse_url(scene.url))
    reached: tuple[int, ...] | None = None
    while True:
        with contextlib.suppress(psycopg.Error), contextlib.closing(place.connect()) as connection:
            while time.monotonic() < began + within:
                now = connection.execute(
                    "SELECT (SELECT coalesce(max(position), 0) FROM tidings_log), "
                    "(SELECT coalesce(max(n), 0) FROM effect)"
                ).fetchone()
                reached = reached or now
                if all(new > old for new, old in zip(now, reached, strict=True)):
                    return time.monotonic() - began
                time.sleep(0.01)
        assert time.monotonic() < began + within, f"nothing happens {within} s after the fault:\n{scene.log()}"
        time.sleep(0.05)
