"""An event loop on a thread of its own: it keeps connections alive however busy the app's own loop is."""

from __future__ import annotations

import asyncio
import contextlib
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

    async def ask(self, call: Callable[..., object], *arguments: object) -> Any:
        """Call something over there with a function to answer with, and wait over here for what that is given.

        A coroutine takes four more rounds of the two loops, in each of which another thread may go first.
        """
        here = asyncio.get_running_loop()
        answered: asyncio.Future[Any] = here.create_future()

        def answer(result: object, error: BaseException | None = None) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
                here.call_soon_threadsafe(_end, answered, result, error)

        def begin() -> None:
            try:
                call(answer, *arguments)
            except BaseException as error:  # noqa: BLE001 - raised where it is waited for
                answer(None, error)

        self.loop.call_soon_threadsafe(begin)
        return await answered

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


def _end(future: asyncio.Future[Any], result: object, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)


async def _cancel_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
