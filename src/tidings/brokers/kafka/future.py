"""Futures that somebody finishes, or else time does."""

from __future__ import annotations

import asyncio


def finish(future: asyncio.Future[None]) -> None:
    """Wake whoever waits for it, if somebody still does. Called in its event loop."""
    if not future.done():
        future.set_result(None)


async def finished(future: asyncio.Future[None], seconds: float) -> None:
    """Return when it is finished, or after so long: a round of the event loop earlier than `asyncio.wait` would."""
    timer = future.get_loop().call_later(max(0.0, seconds), finish, future)
    try:
        await future
    finally:
        timer.cancel()
