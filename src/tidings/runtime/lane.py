"""Lanes: deliveries of different keys handled side by side, each with a transaction of its own if it needs one.

What a handler raises is its own failed attempt, whatever it is. Only what goes wrong with the commit makes the whole
subscription ask the store how things are.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator, Sequence
from contextvars import copy_context
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
    if not pump.subscription.transactional:
        await Plain(pump).run()
        return
    while not pump.stopping and (delivery := pump.lanes.take()) is not None:
        pump.begin(delivery)
        tx = pump.transaction()
        HANDLING.set(delivery.envelope)
        OPEN.set(tx)
        await conclude(pump, delivery, tx, _call(pump, delivery, tx))


async def run_here(pump: Pump) -> bool:
    """Handle what may be handled in the task of the pump, which spares a task and a round of the loop.

    Returns:
        False when a handler waited: then this was its task from that moment on, and the pump goes on in another one.
    """
    owner, lane = pump.owner, Apart(run_lane(pump))
    try:
        await go_on(lane, lane.send(None), bool)
    except StopIteration:  # nothing was waited for
        pass
    except Exception as error:
        if pump.owner is owner:
            raise
        _tell(pump, error)
    if pump.owner is not owner:
        return False
    await calm()  # a handler may have cancelled the task that it ran in
    return True


def leave(pump: Pump) -> None:
    """Leave the current task to a handler that waits in it, and let the pump that called it go on in another one.

    The handler must stay in the task it began in, for its timeouts are bound to that.
    """
    task = asyncio.current_task()
    if task is not None:
        pump.adopt(task)
    pump.owner, pump.batching = None, False
    pump.go_on()


async def detach(
    pump: Pump, delivery: Delivery, tx: OpenTransaction, rest: Sequence[Delivery], calling: Awaitable[Any]
) -> None:
    """Go on with one handler that suspended in a batch, in this very task."""
    leave(pump)
    pump.lanes.add(pump.lane_of(delivery), delivery)
    pump.lanes.take()  # the lanes are empty while batches run, so it is this one
    pump.begin(delivery)
    pump.hand_over(rest)
    try:
        await conclude(pump, delivery, tx, calling)
    except Exception as error:  # noqa: BLE001 - raised by the task that pumps now
        _tell(pump, error)


def _tell(pump: Pump, error: Exception) -> None:
    """Have the task that pumps now raise what went wrong in one that it left."""
    pump.broken = error
    pump.wake.set()


async def _call(pump: Pump, delivery: Delivery, tx: OpenTransaction) -> Any:
    message = pump.answering.readers[delivery.envelope.type](delivery.envelope)
    return None if message is UNSEEN else await pump.dispatch.call(message, tx, delivery.envelope)


class Plain:
    """A lane of a handler without a transaction.

    As long as a handler does not wait, nobody else has a turn, and nobody can see that it runs. So a delivery is noted
    as running only when its handler waits for the first time, and most end before that.
    """

    current: Delivery

    def __init__(self, pump: Pump) -> None:
        """Args: pump: whose deliveries it handles."""
        self.pump = pump
        self.by_key = pump.subscription.slots > 1  # else in one order over all keys
        self.is_noted = False  # the current one

    async def run(self) -> None:
        """Handle one delivery after the other until none may be taken, or the worker stops."""
        handling = self._handle()
        try:
            await go_on(handling, handling.send(None), self._note)
        except StopIteration:  # nothing was waited for
            pass
        except asyncio.CancelledError:
            raise  # not acknowledged; it stays listed as running and is released
        except BaseException:
            self._finish(self.current)
            raise
        finally:
            self.pump.ended_some()

    def _note(self) -> bool:
        """A handler waits."""
        if not self.is_noted:
            self.is_noted = True
            self.pump.begin(self.current)
            if self.pump.quick:
                self.pump.quick = False
                leave(self.pump)
                self.pump.staff()
            if self.pump.ended:
                self.pump.ended_some()
        return False

    async def _handle(self) -> None:
        pump = self.pump
        take, readers, call = pump.lanes.take, pump.answering.readers, pump.dispatch.call
        while not pump.stopping and (delivery := take()) is not None:
            self.current, self.is_noted = delivery, False
            envelope = delivery.envelope
            HANDLING.set(envelope)
            if OPEN.get() is not None:
                OPEN.set(None)
            append: Sequence[Envelope] = ()
            try:
                message = readers[envelope.type](envelope)
                result = None if message is UNSEEN else await call(message, None, envelope)
                if result is not None or envelope.headers is not None:  # a request is answered all the same
                    append = pump.answering.returned(result, envelope)
            except BaseException as error:  # noqa: BLE001 - a failed attempt, whatever it is
                await _failed(pump, delivery, error)
            else:
                if not (self.is_noted and id(delivery) in pump.void):  # its slot moved to a worker that handles it
                    pump.ended.well(delivery, append)
            self._finish(delivery)

    def _finish(self, delivery: Delivery) -> None:
        pump, key = self.pump, delivery.envelope.key
        if self.is_noted:
            pump.finish(delivery)
            return
        pump.lanes.finish(key if self.by_key else "")
        if key in pump.intake.passed:
            pump.intake.look = True


async def conclude(pump: Pump, delivery: Delivery, tx: OpenTransaction, calling: Awaitable[Any]) -> None:
    """Await a handler with a transaction and decide what becomes of its delivery."""
    try:
        try:
            append = pump.answering.returned(await calling, delivery.envelope)
        except BaseException as error:  # noqa: BLE001 - a failed attempt, whatever it is
            await tx.rollback()
            await _failed(pump, delivery, error)
        else:
            await _acknowledge(pump, delivery, tx, append)
    except asyncio.CancelledError:
        raise
    except BaseException:
        pump.finish(delivery)
        raise
    pump.finish(delivery)


async def _failed(pump: Pump, delivery: Delivery, error: BaseException) -> None:
    """Decide what becomes of a delivery whose handler raised."""
    if pump.cutting and isinstance(error, asyncio.CancelledError):
        raise error  # not acknowledged; it stays listed as running and is released
    await calm()
    if id(delivery) not in pump.void:
        fail(pump, delivery, error)


def make_room(pump: Pump) -> None:
    """Hold what waits behind slow handlers, so that deliveries of other keys fit into memory."""
    since = asyncio.get_running_loop().time() - SLOW
    slow = {pump.running[at].envelope.key for at, began in pump.began.items() if began < since} - {None}
    if slow and pump.subscription.slots > 1:  # a group of one slot keeps one order over all keys
        behind = pump.lanes.drop(lambda waiting: waiting.envelope.key in slow and not waiting.held)
        pump.intake.release(behind, WAITS)


class Apart:
    """A coroutine that is run by hand in a context of its own, as if it had a task."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        """Args: coroutine: not begun yet."""
        self._coroutine = coroutine
        self._run = copy_context().run

    def send(self, value: Any) -> Any:
        """Go on with a value; returns what it waits for next."""
        return self._run(self._coroutine.send, value)

    def throw(self, error: BaseException) -> Any:
        """Go on with an error."""
        return self._run(self._coroutine.throw, error)

    def close(self) -> None:
        """End it."""
        self._coroutine.close()


@types.coroutine
def go_on(
    coroutine: Coroutine[Any, Any, Any] | Apart, waits_for: Any, stops: Callable[[], bool]
) -> Generator[Any, Any, tuple[bool, Any]]:
    """Go on with a coroutine that was started by hand and waits, inside the current task.

    Args:
        coroutine: What to go on with.
        waits_for: What it yielded last.
        stops: Called whenever it is about to wait; True leaves it at that.

    Returns:
        (True, its result) when it ended, (False, what it waits for) when it did not.
    """
    while not stops():
        try:
            value = yield waits_for
        except GeneratorExit:
            coroutine.close()
            raise
        except BaseException as error:  # noqa: BLE001 - passed on, as `yield from` would
            step: Callable[[Any], Any] = coroutine.throw
            argument: Any = error
        else:
            step = coroutine.send
            argument = value
        try:
            waits_for = step(argument)
        except StopIteration as stop:
            return True, stop.value
    return False, waits_for


async def calm() -> None:
    """Take back a cancellation that a handler asked for itself, so that it does not strike the next one."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        while task.cancelling():
            task.uncancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0)


async def _acknowledge(pump: Pump, delivery: Delivery, tx: OpenTransaction, append: Sequence[Envelope]) -> None:
    """Note that a handler ended well; with a transaction that executed something, commit it here, out of turn."""
    if id(delivery) in pump.void:  # the slot moved to another worker, which handles it
        await tx.rollback()
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
