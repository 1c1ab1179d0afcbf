"""Batches of transactional handlers: one transaction, a savepoint each, one commit with the acknowledgements.

Statements run where the transaction is; only the turn to write and the commit leave the loop. A handler that awaits
something else before its first statement must not hold that turn: what was done before it is committed, and from then
on the subscription's handlers run one transaction each, concurrently.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Coroutine, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

import msgspec

from tidings.core.operations import Append, Delivery
from tidings.core.ports import StoreTransaction
from tidings.errors import Fenced, OutcomeUnknown, StoreError
from tidings.runtime.clock import loop_time
from tidings.runtime.dispatch import UNSEEN
from tidings.runtime.failing import fail
from tidings.runtime.lane import calm, detach, go_on
from tidings.runtime.outgoing import HANDLING
from tidings.runtime.transaction import OPEN, OpenTransaction

if TYPE_CHECKING:
    from tidings.runtime.pump import Pump

log = logging.getLogger("tidings")

T = TypeVar("T")

LONGEST = 0.05
"""Seconds after which a batch commits what it has, so that other writers get their turn."""


async def run_batch(pump: Pump, taken: Sequence[Delivery]) -> list[Delivery]:
    """Handle deliveries in one transaction and commit them; returns what is to be handled next.

    That is the next batch, whose start is marked in the same commit, or what is left where a handler suspended or the
    worker stops.
    """
    pump.careful = max(0, pump.careful - 1)
    batch = Careful(pump, taken)
    pump.batching = True
    try:
        return await batch.run()
    except (Fenced, OutcomeUnknown, StoreError) as error:
        await batch.tx.rollback()
        log.warning("%s: %s", pump.group, error)
        pump.reset()
        return []
    except BaseException:
        await batch.tx.rollback()
        if not batch.detached:
            pump.reset()
        raise
    finally:
        if not batch.detached:  # else another task pumps by now
            pump.batching = False


async def _to_the_end(coroutine: Coroutine[Any, Any, Any], waits_for: Any) -> Any:
    """Go on with a coroutine that was started by hand and waits; returns its result."""
    return (await go_on(coroutine, waits_for, lambda: False))[1]


class Batch(Generic[T]):
    """One transaction over several deliveries."""

    raw: StoreTransaction
    current: T  # the last one that was handed over

    def __init__(self, pump: Pump, taken: Iterable[T]) -> None:
        """Args: pump: whose deliveries it handles. taken: these."""
        self.pump = pump
        self.tx = pump.transaction()
        self.rest = iter(taken)  # what is not handed over yet
        self.until = math.inf  # loop time
        self.detaching = self.detached = False

    async def begin(self) -> None:
        """Begin the transaction."""
        OPEN.set(self.tx)
        self.raw = await self.tx.begun()
        self.tx.touched = False  # by no handler yet
        self.until = loop_time() + LONGEST

    async def watch(self, handling: Coroutine[Any, Any, Any]) -> None:
        """Run what hands deliveries over inside the current task, to see when a handler waits."""
        try:
            waits_for = handling.send(None)
        except StopIteration:
            return
        ended, waits_for = await go_on(handling, waits_for, self._must_detach)
        if not ended:
            await self._detach(_to_the_end(handling, waits_for))

    def _must_detach(self) -> bool:
        """A handler waits. If not for its transaction, its like must not share one from now on.

        Returns:
            True where it must not go on in this one either, for it has done nothing in it yet.
        """
        if self.raw.waiting:
            return False
        self.pump.suspends = True
        return not self.tx.touched

    async def _detach(self, calling: Awaitable[Any]) -> None:
        """Commit what came before a handler that awaits something else, and let the pump go on without it.

        Args:
            calling: Goes on with the handler, and returns what it returns.
        """
        pump, tx = self.pump, self.tx
        delivery, *rest = await self.detached_ones([self.current, *self.rest])
        self.detaching = True
        sent, later = tx.outbox, tx.later
        await commit(pump, tx, (), mark=False)
        tx.reopen()
        tx.outbox, tx.later = sent, later
        self.detached = True
        await detach(pump, delivery, tx, [other for other in rest if pump.takes(other)], calling)

    async def detached_ones(self, taken: Sequence[T]) -> list[Delivery]:
        """The deliveries of a handler that waits, and of what is behind it."""
        raise NotImplementedError


class Careful(Batch[Delivery]):
    """A batch with a savepoint for each delivery."""

    async def run(self) -> list[Delivery]:
        """See `run_batch`."""
        pump = self.pump
        await self.begin()
        while not (pump.stopping or pump.suspends or loop_time() > self.until):
            try:
                await self.watch(self._handle())
                break
            except BaseException as error:  # noqa: BLE001 - a failed attempt, whatever it is
                await self._undo(error)
        if self.detached:
            return []
        rest = [other for other in self.rest if pump.takes(other)]
        following = [] if rest else await pump.take_more(pump.take)
        await commit(pump, self.tx, following, mark=bool(following))
        return rest or following

    async def _handle(self) -> Any:
        """Hand over one delivery after the other, until one fails or there is a reason to commit.

        Returns:
            What the last handler returned, when it was detached.
        """
        pump, tx, raw = self.pump, self.tx, self.raw
        readers, call = pump.answering.readers, pump.dispatch.call
        failing, acked = pump.intake.failing, pump.ended.acked
        task = cast("asyncio.Task[Any]", asyncio.current_task())
        for count, delivery in enumerate(self.rest, 1):
            if failing and not pump.takes(delivery):
                continue
            self.current = delivery
            envelope = delivery.envelope
            await raw.savepoint()
            HANDLING.set(envelope)
            message = readers[envelope.type](envelope)
            result = None if message is UNSEEN else await call(message, tx, envelope)
            if task.cancelling() and not pump.cutting:
                await calm()  # the handler itself did that, as nobody else has this task
            if self.detaching:
                return result
            if result is not None or envelope.headers is not None:  # a request is answered all the same
                tx.add(pump.answering.returned(result, envelope))
            await raw.keep()
            if delivery.held:
                pump.ended.well(delivery)
            else:
                acked.append(envelope)
            if tx.published:
                tx.kept()
            tx.touched = False
            if pump.suspends or pump.stopping or (count % 8 == 0 and loop_time() > self.until):
                break
        return None

    async def _undo(self, error: BaseException) -> None:
        """Undo what a handler did that failed; the others of its batch are kept."""
        if self.detaching or (self.pump.cutting and isinstance(error, asyncio.CancelledError)):
            raise error  # not acknowledged
        await calm()
        try:
            await self.raw.undo()
        except Exception:  # noqa: BLE001 - whatever it says, the handler's error is the reason
            raise error from None  # the store's own trouble has ended the whole transaction
        self.tx.undone()
        fail(self.pump, self.current, error)

    async def detached_ones(self, taken: Sequence[Delivery]) -> list[Delivery]:
        """The deliveries of a handler that waits, and of what is behind it."""
        return list(taken)


async def commit(pump: Pump, tx: OpenTransaction, following: Sequence[Delivery], *, mark: bool) -> None:
    """Settle what ended, with everything that its handlers published in the transaction, and commit it.

    Args:
        pump: Whose deliveries ended.
        tx: The transaction of their handlers.
        following: Deliveries that start next.
        mark: True when everything that was taken starts next, if it did not before.
    """
    raw = await tx.begun()
    ended, parked, ops = pump.settlements(following, mark=mark)
    sent, later = tx.earlier, tx.earlier_later
    if ops and (sent or later):  # behind what others returned before
        feed, last = ops[-1]
        ops[-1] = feed, msgspec.structs.replace(last, append=[*last.append, *sent], later=[*last.later, *later])
    elif sent or later:
        for append in (Append(sent), *later):
            await raw.apply(append)
    for _, op in ops:
        await raw.apply(op)
    await tx.finish()
    for feed, op in ops:
        feed.flushed = max(feed.flushed, op.checkpoint or 0)
    pump.settled(ended, parked)
