"""Lanes: deliveries of different keys handled side by side, each with a transaction of its own if it needs one.

What a handler raises is its own failed attempt, whatever it is. Only what goes wrong with the commit makes the whole
subscription ask the store how things are.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Sequence
from typing import TYPE_CHECKING, Any

from tidings.core.envelope import Envelope
from tidings.core.operations import Delivery, Settle
from tidings.errors import Fenced, OutcomeUnknown
from tidings.runtime.dispatch import UNSEEN
from tidings.runtime.failing import fail
from tidings.runtime.intake import WAITS
from tidings.runtime.outgoing import HANDLING
from tidings.runtime.settlement import Ended
from tidings.runtime.transaction import OPEN, OpenTransaction

if TYPE_CHECKING:
    from tidings.runtime.pump import Pump

log = logging.getLogger("tidings")


SLOW = 1.0
"""Seconds after which a handler is slow; what waits behind it then gives way when memory is full."""


async def run_lane(pump: Pump) -> None:
    """Handle one delivery after the other until none may be taken, or the worker stops."""
    while not pump.stopping and (delivery := pump.lanes.take()) is not None:
        pump.begin(delivery)
        tx = pump.transaction() if pump.subscription.transactional else None
        HANDLING.set(delivery.envelope)
        OPEN.set(tx)
        await conclude(pump, delivery, tx, _call(pump, delivery, tx))


async def _call(pump: Pump, delivery: Delivery, tx: OpenTransaction | None) -> Any:
    message = pump.answering.readers[delivery.envelope.type](delivery.envelope)
    return None if message is UNSEEN else await pump.dispatch.call(message, tx, delivery.envelope)


async def conclude(pump: Pump, delivery: Delivery, tx: OpenTransaction | None, calling: Awaitable[Any]) -> None:
    """Await a handler and decide what becomes of its delivery."""
    try:
        try:
            append = pump.answering.returned(await calling, delivery.envelope)
        except BaseException as error:
            if tx is not None:
                await tx.rollback()
            if pump.cutting and isinstance(error, asyncio.CancelledError):
                raise  # not acknowledged; it stays listed as running and is released
            await calm()
            if id(delivery) not in pump.void:
                fail(pump, delivery, error)
        else:
            await _acknowledge(pump, delivery, tx, append)
    except asyncio.CancelledError:
        raise
    except BaseException:
        pump.finish(delivery)
        raise
    pump.finish(delivery)


def make_room(pump: Pump) -> None:
    """Hold what waits behind slow handlers, so that deliveries of other keys fit into memory."""
    since = asyncio.get_running_loop().time() - SLOW
    slow = {pump.running[at].envelope.key for at, began in pump.began.items() if began < since} - {None}
    if slow and pump.subscription.slots > 1:  # a group of one slot keeps one order over all keys
        behind = pump.lanes.drop(lambda waiting: waiting.envelope.key in slow and not waiting.held)
        pump.intake.release(behind, WAITS)


async def calm() -> None:
    """Take back a cancellation that a handler asked for itself, so that it does not strike the next one."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        while task.cancelling():
            task.uncancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0)


async def _acknowledge(pump: Pump, delivery: Delivery, tx: OpenTransaction | None, append: Sequence[Envelope]) -> None:
    """Note that a handler ended well; with a transaction that executed something, commit it here, out of turn."""
    if id(delivery) in pump.void:  # the slot moved to another worker, which handles it
        if tx is not None:
            await tx.rollback()
    elif tx is None:
        pump.ended.well(delivery, append)
    elif tx.raw is None:
        pump.ended.well(delivery, [*tx.outbox, *append], tx.later)
    else:
        tx.outbox.extend(append)
        try:
            await _commit(pump, delivery, tx)
        except (Fenced, OutcomeUnknown) as error:
            await tx.rollback()
            log.warning("%s: %s", pump.group, error.what)
            pump.reset()  # nobody knows what of it is in the store: the store itself decides
        except BaseException as error:  # noqa: BLE001 - certainly not committed: a constraint checked at the end, say
            await tx.rollback()
            fail(pump, delivery, error)


async def _commit(pump: Pump, delivery: Delivery, tx: OpenTransaction) -> None:
    feed = pump.consumer.feed_of(delivery.envelope)
    if feed is None or tx.raw is None:
        msg = f"{pump.group}: the slot of this delivery moved to another worker"
        raise Fenced(msg, "nothing to do: the other worker handles it")
    marks = () if delivery.held else (delivery.envelope.position,)
    done = (delivery.held,) if delivery.held else ()
    settle = Settle(pump.group, dict(feed.slots), done=done, marks=marks, append=tx.outbox, later=tx.later)
    await tx.raw.apply(settle)
    pump.committing.add(id(delivery))
    try:
        await tx.finish()
    finally:
        pump.committing.discard(id(delivery))
    pump.ended.others.append(Ended(delivery, committed=True))
