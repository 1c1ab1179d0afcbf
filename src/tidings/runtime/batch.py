"""Batches of transactional handlers: one transaction, a savepoint each, one commit with the acknowledgements.

Statements run where the transaction is; only the turn to write and the commit leave the loop. A handler that awaits
something else before its first statement must not hold that turn: what was done before it is committed, and from then
on the subscription's handlers run one transaction each, concurrently.
"""

from __future__ import annotations

import asyncio
import logging
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from tidings.core.operations import Append, Delivery
from tidings.errors import Fenced, OutcomeUnknown, StoreError
from tidings.runtime.clock import loop_time
from tidings.runtime.dispatch import UNSEEN
from tidings.runtime.lane import calm
from tidings.runtime.outgoing import HANDLING
from tidings.runtime.transaction import OPEN

if TYPE_CHECKING:
    from tidings.runtime.pump import Pump

log = logging.getLogger("tidings")

CAREFUL_BATCHES = 16
"""Batches with savepoints after one in which a handler failed."""
LONGEST = 0.05
"""Seconds after which a batch commits what it has, so that other writers get their turn."""


@types.coroutine
def _go_on(
    coroutine: Coroutine[Any, Any, Any], waits_for: Any, stops: Callable[[], bool]
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


async def run_batch(pump: Pump, taken: Sequence[Delivery]) -> list[Delivery]:
    """Handle deliveries in one transaction and commit them; returns what is to be handled next.

    That is the next batch, whose start is marked in the same commit, or what is left where a handler suspended or the
    worker stops.
    """
    careful = pump.subscription.schema is None or pump.careful > 0
    pump.careful = max(0, pump.careful - 1)
    batch = Batch(pump, taken, careful=careful)
    before = pump.ended.copy()
    try:
        return await batch.run()
    except _HandleAgain:
        await batch.tx.rollback()
        pump.ended = before
        pump.careful = CAREFUL_BATCHES
        return await run_batch(pump, taken)
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


class _HandleAgain(Exception):
    """A handler failed in a batch without savepoints, or one of its statements did."""


async def _to_the_end(coroutine: Coroutine[Any, Any, Any], waits_for: Any) -> Any:
    """Go on with a coroutine that was started by hand and waits; returns its result."""
    return (await _go_on(coroutine, waits_for, lambda: False))[1]


class Batch:
    """One transaction over several deliveries.

    What fills tables of its own (projections, replicas) does nothing but that, so that handling it twice shows nowhere:
    there a batch does without savepoints, and is undone and handled again with them when one of its handlers fails.
    """

    def __init__(self, pump: Pump, taken: Iterable[Delivery], *, careful: bool) -> None:
        """Args: pump: whose deliveries it handles. taken: these. careful: a savepoint for each of them."""
        self.pump = pump
        self.careful = careful
        self.tx = pump.transaction()
        self.rest = iter(taken)  # what is not handed over yet
        self.delivery: Delivery | None = None  # the last one that was
        self.detaching = self.detached = False

    async def run(self) -> list[Delivery]:
        """See `run_batch`."""
        pump = self.pump
        OPEN.set(self.tx)
        await self._begin()
        until = loop_time() + LONGEST
        while not (pump.stopping or pump.suspends or loop_time() > until):
            try:
                await self._watch(self._handle(until))
                break
            except BaseException as error:  # noqa: BLE001 - a failed attempt, whatever it is
                await self._undo(error)
        if self.detached:
            return []
        await self._flush()
        rest = [other for other in self.rest if pump.takes(other)]
        following = [] if rest else await pump.take_more()
        await self._commit(following)
        return rest or following

    async def _handle(self, until: float) -> Any:
        """Hand over one delivery after the other, until one fails or there is a reason to commit.

        Returns:
            What the last handler returned, when it was detached.
        """
        pump, tx, raw, careful = self.pump, self.tx, self.raw, self.careful
        readers, call, failing = pump.answering.readers, pump.dispatch.call, pump.intake.failing
        for count, delivery in enumerate(self.rest, 1):
            if failing and not pump.takes(delivery):
                continue
            self.delivery = delivery
            envelope = delivery.envelope
            if careful:
                await raw.savepoint()
            HANDLING.set(envelope)
            message = readers[envelope.type](envelope)
            result = None if message is UNSEEN else await call(message, tx, envelope)
            if self.detaching:
                return result
            if result is not None or envelope.headers is not None:  # a request is answered all the same
                tx.add(pump.answering.returned(result, envelope))
            if careful:
                await raw.keep()
            if tx.published:
                pump.ended.well(delivery, (), tx.later)
                tx.kept()
            else:
                pump.ended.acked.append(delivery)
            tx.touched = False
            if pump.suspends or pump.stopping or (count % 8 == 0 and loop_time() > until):
                break
        return None

    async def _watch(self, handling: Coroutine[Any, Any, Any]) -> None:
        """Run what hands deliveries over inside the current task, to see when a handler waits."""
        try:
            waits_for = handling.send(None)
        except StopIteration:
            return
        ended, waits_for = await _go_on(handling, waits_for, self._must_detach)
        if not ended:
            await self._detach(_to_the_end(handling, waits_for))

    async def _begin(self) -> None:
        self.raw = await self.tx.begun()
        self.tx.touched = False  # by no handler yet
        if not self.careful:
            self.raw.defer()

    async def _flush(self) -> None:
        """Have done what was deferred, before anything else depends on it."""
        if self.careful:
            return
        try:
            await self.raw.flush()
        except StoreError:
            raise  # the store's own trouble
        except Exception as error:
            raise _HandleAgain from error

    def _must_detach(self) -> bool:
        """A handler waits. If not for its transaction, its like must not share one from now on.

        Returns:
            True where it must not go on in this one either, for it has done nothing in it yet.
        """
        if self.raw.waiting:
            return False
        self.pump.suspends = True
        return not self.tx.touched

    async def _undo(self, error: BaseException) -> None:
        """Undo what a handler did that failed; the others of its batch are kept."""
        delivery = self.delivery
        if delivery is None or self.detaching or (self.pump.cutting and isinstance(error, asyncio.CancelledError)):
            raise error  # not acknowledged
        await calm()
        if not self.careful:
            raise _HandleAgain from error
        try:
            await self.raw.undo()
        except Exception:  # noqa: BLE001 - whatever it says, the handler's error is the reason
            raise error from None  # the store's own trouble has ended the whole transaction
        self.tx.undone()
        self.pump.failed(delivery, error)

    async def _detach(self, calling: Awaitable[Any]) -> None:
        """Commit what came before a handler that awaits something else, and let the pump go on without it.

        Args:
            calling: Goes on with the handler, and returns what it returns.
        """
        await self._flush()
        pump, tx, delivery = self.pump, self.tx, self.delivery
        self.detaching = True
        sent, later = tx.outbox, tx.later
        await self._commit(())
        tx.reopen()
        tx.outbox, tx.later = sent, later
        self.detached = True
        if delivery is not None:
            await pump.detach(delivery, tx, [other for other in self.rest if pump.takes(other)], calling)

    async def _commit(self, following: Sequence[Delivery]) -> None:
        """Apply the settlements with everything the handlers published, and commit."""
        pump, raw = self.pump, self.raw
        ended, parked, ops = pump.settlements(following)
        if self.tx.earlier and ops:  # behind what others returned before
            feed, last = ops[-1]
            ops[-1] = feed, msgspec.structs.replace(last, append=[*last.append, *self.tx.earlier])
        elif self.tx.earlier:
            await raw.apply(Append(self.tx.earlier))
        for _, op in ops:
            await raw.apply(op)
        await self.tx.finish()
        for feed, op in ops:
            feed.flushed = max(feed.flushed, op.checkpoint or 0)
        pump.settled(ended, parked)
