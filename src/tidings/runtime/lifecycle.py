"""Running apps in one process: start their workers, wait for a signal or for idleness, drain."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tidings.runtime.app import App
    from tidings.runtime.worker import Worker

log = logging.getLogger("tidings")


async def run(*apps: App, until_idle: bool = False) -> None:
    """Run several apps in this process until SIGTERM, SIGINT or the stop of one of them; then drain them all.

    Args:
        apps: They may share a store or not.
        until_idle: Return once all of them have nothing left to do.
    """
    await run_apps(apps, until_idle=until_idle)


async def run_apps(apps: Sequence[App], *, until_idle: bool) -> None:
    """See `run`."""
    async with AsyncExitStack() as stack:
        for app in apps:
            await stack.enter_async_context(app)
        workers = [app.worker() for app in apps]
        with _signals(workers):
            try:
                for worker in workers:
                    await worker.start()
                await _wait(workers, until_idle=until_idle)
            finally:
                for worker in workers:
                    worker.stop()
                cut = await asyncio.gather(
                    *(worker.drain(app.drain) for worker, app in zip(workers, apps, strict=True)),
                    return_exceptions=True,
                )
                for worker, result in zip(workers, cut, strict=True):
                    if isinstance(result, BaseException):
                        log.error("%s: the drain failed: %s", worker.app, result)
                    elif result:
                        log.warning("%s: %d deliveries were cut short; they come again", worker.app, result)


async def _wait(workers: Sequence[Worker], *, until_idle: bool) -> None:
    stopped = [asyncio.create_task(worker.wait()) for worker in workers]
    if until_idle:
        stopped.append(asyncio.create_task(_idle(workers)))
    try:
        done, _ = await asyncio.wait(stopped, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in stopped:
            task.cancel()
        await asyncio.gather(*stopped, return_exceptions=True)
    for task in done:
        task.result()


async def _idle(workers: Sequence[Worker]) -> None:
    pause = 0.002
    quiet = 0
    while quiet < 2:  # noqa: PLR2004 - twice in a row: what one worker ends can be another one's beginning
        idle = all([await worker.idle() for worker in workers])
        quiet = quiet + 1 if idle else 0
        await asyncio.sleep(pause)
        pause = 0.002 if idle else min(0.05, pause * 1.5)


@contextlib.contextmanager
def _signals(workers: Sequence[Worker]) -> Iterator[None]:
    """SIGTERM and SIGINT drain; the second one interrupts."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def drain(number: signal.Signals) -> None:
        log.info("%s: draining", number.name)
        loop.remove_signal_handler(number)
        signal.signal(number, signal.default_int_handler)
        for worker in workers:
            worker.stop()

    for number in before:
        loop.add_signal_handler(number, drain, number)
    try:
        yield
    finally:
        for number, handler in before.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)
