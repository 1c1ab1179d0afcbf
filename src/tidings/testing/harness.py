"""The harness: run an app in a test, and wait until it has done all there is to do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tidings.runtime.app import App


async def settled(app: App) -> None:
    """Work until nothing is left to do: everything published is handled, and so is what that led to.

    Dead letters remain, and timers that are not due: move the app's `VirtualClock` first. No fixed sleep is needed.

    Args:
        app: Open or not; `async with app:` around it keeps a store in memory.

    Raises:
        TidingsError: What `App.run` raises.
    """
    await app.run(until_idle=True)


@asynccontextmanager
async def running(app: App) -> AsyncIterator[App]:
    """Let an app work beside the block; it drains when the block ends.

    Args:
        app: The app; it is opened.

    Yields:
        The app. An error that ends it is raised when the block ends.
    """
    async with app:
        task = asyncio.create_task(app.run())
        try:
            yield app
        finally:
            while not task.done():
                app.stop()
                await asyncio.wait([task], timeout=0.01)
            await task
