"""Apps at work side by side, and waiting for what they cause."""

import asyncio
import inspect
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tidings import App


@asynccontextmanager
async def at_work(*apps: App) -> AsyncIterator[None]:
    """All of them run for the length of a block, as processes of their own would; what is for them is kept by then."""
    running = [asyncio.create_task(app.run()) for app in apps]
    try:
        async with asyncio.timeout(30):
            for app, task in zip(apps, running, strict=True):
                while not app._workers and not task.done():
                    await asyncio.sleep(0.01)
                for worker in app._workers:
                    await worker.link.inbound.subscribed.wait()
        yield
    finally:
        for app in apps:
            app.stop()
        await asyncio.gather(*running)


async def until(condition, seconds: float = 15.0) -> None:
    """Wait for something to become true; it may be a coroutine function."""
    async with asyncio.timeout(seconds):
        while not (await found if inspect.isawaitable(found := condition()) else found):
            await asyncio.sleep(0.02)
