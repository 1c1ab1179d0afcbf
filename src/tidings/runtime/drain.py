"""Draining a pump: what runs may end, what waits is released, and what is cut short is not acknowledged."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from tidings.core.operations import Delivery

if TYPE_CHECKING:
    from tidings.runtime.pump import Pump

log = logging.getLogger("tidings")

LAST = 5.0
"""Seconds after the deadline for what is cut short to end, and as many to commit what ended."""


async def drain(pump: Pump, deadline: float) -> int:
    """Let running handlers end until `deadline` (loop time), release the rest; returns how many were cut short.

    What ends is committed at once, not when all have ended: the process may be killed before.
    """
    loop = asyncio.get_running_loop()
    pump.stopping = True
    pump.alarm.stop()
    pump.intake.release(pump.lanes.drop(lambda _item: True))
    cut: list[Delivery] = []
    try:
        async with asyncio.timeout_at(max(deadline, loop.time()) + 2 * LAST):
            await pump.flush()
            while pump.tasks and (left := deadline - loop.time()) > 0:
                await asyncio.wait(pump.tasks, timeout=left, return_when=asyncio.FIRST_COMPLETED)
                await pump.flush()
            cut = await _cut(pump)
            pump.intake.release(cut)
            await pump.flush()
    except TimeoutError:
        log.error("%s: what ended last could not be committed; it comes again", pump.group)  # noqa: TRY400 - expected
    finally:
        pump.cutting = True
        for task in pump.tasks:
            task.cancel()
        pump.dispatch.close()
    return len(cut)


async def _cut(pump: Pump) -> list[Delivery]:
    """Cancel what runs; returns what did not end, which may not commit any more."""
    pump.cutting = True
    for task in pump.tasks:
        task.cancel()
    if pump.tasks:
        _, stubborn = await asyncio.wait(pump.tasks, timeout=LAST)
        if stubborn:
            log.warning(
                "%s: %d handlers go on although they were cancelled, in %s; raise a CancelledError again",
                pump.group,
                len(stubborn),
                pump.subscription.where,
            )
    left = {at: item for at, item in pump.running.items() if at not in pump.void and at not in pump.committing}
    pump.void.update(left)
    return list(left.values())
