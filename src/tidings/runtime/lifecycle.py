"""Running apps in one process: start their workers, wait for a signal or for idleness, drain."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import threading
from collections.abc import AsyncIterator, Awaitable, Iterator, Sequence
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

from tidings.core.ports import Groups
from tidings.runtime.connect import adapters, make_broker, make_claims
from tidings.runtime.worker import Worker

if TYPE_CHECKING:
    from tidings.runtime.app import App

log = logging.getLogger("tidings")

_runs: dict[int, tuple[Sequence[Worker], list[signal.Signals]]] = {}
"""What runs in the main thread, with the signals each has seen: one signal stops all of them."""

_before: dict[signal.Signals, Any] = {}  # handlers from before the first of them


async def run(*apps: App, until_idle: bool | Awaitable[object] = False) -> signal.Signals | None:
    """Run several apps in this process until SIGTERM, SIGINT or the stop of one of them; then drain them all.

    Args:
        apps: They may share a store or not.
        until_idle: True returns once all of them have nothing left to do: everything published is handled and no retry
            is waiting. An awaitable, such as a feed, is run beside them and must end before idleness counts.

    Returns:
        The signal that asked for the end, or None.

    Raises:
        Exception: What the awaitable raised; or see `App.run`.
    """
    async with AsyncExitStack() as stack:
        for app in apps:
            await stack.enter_async_context(app)
        workers = [app.worker() for app in apps]
        with _signals(workers) as seen:
            try:
                for worker in workers:
                    await worker.start()
                await _wait(workers, until_idle=until_idle)
            finally:
                await _drain(apps, workers)
        return seen[0] if seen else None


def worker_of(app: App, only: str | None = None) -> Worker:
    """A worker of an open app, not yet started; for one group alone when `only` names it.

    Raises:
        NeedsNotMet: A handler needs what the broker does not give.
    """
    groups: Groups = adapters("tidings.brokers")["embedded"].load()(app.store, app.name)
    broker = None if app.broker is None or only is not None else make_broker(app.broker, app.name)
    subscriptions = [each for each in app.subscriptions() if only in (None, each.group)]
    for each in subscriptions:
        each.needs.check(groups.guarantees, each.where)
        if broker is not None and any(kind.topic is not None for kind in each.types):
            each.needs.check(broker.guarantees, each.where)
    claims = None if broker is None else make_claims(app.broker or "", broker)
    around = (app.name, app.store, groups, subscriptions, app.outgoing, app.clock)
    return Worker(*around, lease=app.lease, broker=broker, claims=claims)


@contextlib.asynccontextmanager
async def working(app: App) -> AsyncIterator[None]:
    """Be open and at work for the length of a block. Signals are left to the server around it."""
    async with app:
        worker = app.worker()
        ending = asyncio.create_task(worker.wait())
        ending.add_done_callback(_tell)
        try:
            await worker.start()
            yield
        finally:
            ending.cancel()
            await _drain([app], [worker])


def _tell(ending: asyncio.Task[None]) -> None:
    if not ending.cancelled() and (error := ending.exception()) is not None:
        log.error("the worker has ended, and the server goes on without it: %s", error)


async def _drain(apps: Sequence[App], workers: Sequence[Worker]) -> None:
    for worker in workers:
        worker.stop()
    draining = (worker.drain(app.drain) for worker, app in zip(workers, apps, strict=True))
    for worker, cut in zip(workers, await asyncio.gather(*draining, return_exceptions=True), strict=True):
        if isinstance(cut, BaseException):
            log.error("%s: the drain failed: %s", worker.app, cut)
        elif cut:
            log.warning("%s: %d deliveries were cut short; they come again", worker.app, cut)


async def _wait(workers: Sequence[Worker], *, until_idle: bool | Awaitable[object]) -> None:
    """Return when a worker stops, or when everything is idle; raise what a worker or the awaitable raised."""
    ends = [asyncio.create_task(worker.wait()) for worker in workers]
    if until_idle:
        ends.append(asyncio.create_task(_idle(workers, None if isinstance(until_idle, bool) else until_idle)))
    try:
        done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in ends:
            task.cancel()
        await asyncio.gather(*ends, return_exceptions=True)
    for task in done:
        task.result()


async def _idle(workers: Sequence[Worker], feed: Awaitable[object] | None) -> None:
    if feed is not None:
        await feed
    shortest = 0.25 if any(worker.link for worker in workers) else 0.002  # a broker may take its time between the two
    pause = shortest
    quiet = 0
    while quiet < 2:  # noqa: PLR2004 - twice in a row: what one worker ends can be another one's beginning
        idle = all([await worker.idle() for worker in workers])
        quiet = quiet + 1 if idle else 0
        await asyncio.sleep(pause)
        pause = shortest if idle else min(max(0.01, shortest), pause * 1.5)  # while handlers are busy, a look is cheap


@contextlib.contextmanager
def _signals(workers: Sequence[Worker]) -> Iterator[list[signal.Signals]]:
    """SIGTERM and SIGINT drain, and are noted; the second one interrupts."""
    seen: list[signal.Signals] = []
    if threading.current_thread() is not threading.main_thread():
        yield seen
        return
    loop = asyncio.get_running_loop()
    if not _runs:
        for number in (signal.SIGTERM, signal.SIGINT):
            _before[number] = signal.getsignal(number) or signal.SIG_DFL
            loop.add_signal_handler(number, _drain_all, loop, number)
    _runs[id(seen)] = (workers, seen)
    try:
        yield seen
    finally:
        del _runs[id(seen)]
        if not _runs:
            for number, handler in _before.items():
                loop.remove_signal_handler(number)
                signal.signal(number, handler)


def _drain_all(loop: asyncio.AbstractEventLoop, number: signal.Signals) -> None:
    log.info("%s: draining", number.name)
    loop.remove_signal_handler(number)
    signal.signal(number, signal.default_int_handler)
    for workers, seen in _runs.values():
        seen.append(number)
        for worker in workers:
            worker.stop()
