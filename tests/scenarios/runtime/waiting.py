"""Waiting for what a test has caused, and holding up what it must come before."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from tidings import App
from tidings.runtime.pump import Pump
from tidings.runtime.worker import Worker


async def until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    """Return once the condition holds."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.001)


@asynccontextmanager
async def nobody_commits(app: App) -> AsyncIterator[None]:
    """Hold the turn to write: what is to be committed meanwhile waits, in order, and is committed afterwards.

    For SQLite, which has such a turn.
    """
    held = await app.store.begin()
    try:
        yield
    finally:
        await held.rollback()


@asynccontextmanager
async def working(app: App, drain: float = 5.0) -> AsyncIterator[Pump]:
    """A worker of an open app; gives the pump of its first subscription."""
    worker: Worker = app.worker()
    await worker.start()
    try:
        yield worker.pumps[0]
    finally:
        await worker.drain(drain)
