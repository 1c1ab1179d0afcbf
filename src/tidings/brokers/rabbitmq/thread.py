"""An event loop on a thread of its own: it keeps connections alive however busy the app's own loop is."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

_T = TypeVar("_T")


class LoopThread:
    """A thread that runs an event loop, from the moment it is made until it is closed."""

    def __init__(self, name: str) -> None:
        self.loop = asyncio.SelectorEventLoop()
        self._thread = threading.Thread(target=self.loop.run_forever, name=name, daemon=True)
        self._thread.start()

    async def run(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Run a coroutine over there and wait for its result over here."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self.loop))

    def send(self, call: Callable[..., object], *arguments: object) -> None:
        """Call something over there, soon, without waiting for it."""
        self.loop.call_soon_threadsafe(call, *arguments)

    async def close(self) -> None:
        """Cancel what still runs and end the thread. Safe to call twice."""
        if self.loop.is_closed():
            return
        await self.run(_cancel_others())
        self.loop.call_soon_threadsafe(self.loop.stop)
        await asyncio.to_thread(self._thread.join)
        self.loop.close()


async def _cancel_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
