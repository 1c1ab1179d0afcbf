"""Batches of transactional handlers: one transaction, a savepoint each, one commit with the acknowledgements.

Statements run where the transaction is; only the turn to write and the commit leave the loop. A handler that awaits
something else before its first statement must not hold that turn: what was done before it is committed, and from then
on the subscription's handlers run one transaction each, concurrently.
"""

from __future__ import annotations

import asyncio
import logging
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from tidings.core.operations import Append, Delivery
from tidings.core.ports import StoreTransaction
from tidings.errors import Fenced, OutcomeUnknown, StoreError
from tidings.runtime.dispatch import UNSEEN
from tidings.runtime.lane import calm
from tidings.runtime.outgoing import HANDLING
from tidings.runtime.settlement import Ended
from tidings.runtime.transaction import OPEN

if TYPE_CHECKING:
    from tidings.runtime.pump import Pump

log = logging.getLogger("tidings")

CAREFUL_BATCHES = 16
"""Batches with savepoints after one in which a handler failed."""
LONGEST = 0.05
"""Seconds after which a batch commits what it has, so that other writers get their turn."""


@types.coroutine
def _resume(
    coroutine: Coroutine[Any, Any, Any], waits_for: Any, suspended: Callable[[], None]
) -> Generator[Any, Any, Any]:
    """Go on with a coroutine that was started by hand and is suspended, inside the current task.

    Args:
        coroutine: What to go on with.
        waits_for: What it yielded when it was started.
        suspended: Called whenever it is about to wait.
    """
    while True:
        suspended()
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
            return stop.value


async def run_batch(pump: Pump, taken: Sequence[Delivery]) -> list[Delivery]:
    """Handle deliveries in one transaction and commit them; returns what is to be handled next.

    That is the next batch, whose start is marked in the same commit, or what is left where a handler suspended or the
    worker stops.
    """
    careful = pump.subscription.schema is None or pump.careful > 0
    pump.careful = max(0, pump.careful - 1)
    batch = Batch(pump, careful=careful)
    ended = len(pump.ended)
    try:
        return await batch.run(taken)
    except _HandleAgain:
        await batch.tx.rollback()
        del pump.ended[ended:]
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


class _Suspended:
    """What is left of a handler that did not end at once."""

    __slots__ = ("calling",)

    def __init__(self, calling: Awaitable[Any]) -> None:
        self.calling = calling


class Batch:
    """One transaction over several deliveries.

    What fills tables of its own (projections, replicas) does nothing but that, so that handling it twice shows nowhere:
    there a batch does without savepoints, and is undone and handled again with them when one of its handlers fails.
    """

    def __init__(self, pump: Pump, *, careful: bool) -> None:
        """Args: pump: whose deliveries it handles. careful: a savepoint for each of them."""
        self.pump = pump
        self.careful = careful
        self.tx = pump.transaction()
        self.detaching = self.detached = False

    async def run(self, taken: Sequence[Delivery]) -> list[Delivery]:
        """See `run_batch`."""
        pump, tx, careful, now = self.pump, self.tx, self.careful, asyncio.get_running_loop().time
        OPEN.set(tx)
        until = now() + LONGEST
        for index, delivery in enumerate(taken):
            if not pump.takes(delivery):
                continue
            raw = tx.raw or await self._begin()
            if careful:
                await raw.savepoint()
            try:
                result = self._start(delivery)
                if result is not None or delivery.envelope.headers is not None:  # a request is answered all the same
                    await self._take(result, delivery, taken[index + 1 :])
                    if self.detached:
                        return []
                if careful:
                    await raw.keep()
            except BaseException as error:  # noqa: BLE001 - a failed attempt, whatever it is
                await self._undo(raw, delivery, error)
            else:
                pump.ended.append(Ended(delivery, None, (), tx.later) if tx.later else Ended(delivery))
                tx.kept()
            if pump.suspends or pump.stopping or (index % 8 == 7 and now() > until):  # noqa: PLR2004
                await self._flush()
                rest = [other for other in taken[index + 1 :] if pump.takes(other)]
                await self._commit(())
                return rest
        await self._flush()
        following = await pump.take_more()
        await self._commit(following)
        return following

    async def _begin(self) -> StoreTransaction:
        raw = await self.tx.begun()
        self.tx.touched = False  # by no handler yet
        if not self.careful:
            raw.defer()
        return raw

    async def _flush(self) -> None:
        """Have done what was deferred, before anything else depends on it."""
        if self.careful or self.tx.raw is None:
            return
        try:
            await self.tx.raw.flush()
        except StoreError:
            raise  # the store's own trouble
        except Exception as error:
            raise _HandleAgain from error

    def _start(self, delivery: Delivery) -> Any:
        """Run a handler until it ends or suspends; returns its result, or what is left of it."""
        dispatch, envelope = self.pump.dispatch, delivery.envelope
        HANDLING.set(envelope)
        message = self.pump.answering.read(envelope)
        if message is UNSEEN:
            return None
        coroutine: Any = dispatch.call(message, self.tx, envelope)
        try:
            waits_for = coroutine.send(None)
        except StopIteration as stop:
            return stop.value
        return _Suspended(_resume(coroutine, waits_for, self._suspended))

    def _suspended(self) -> None:
        """A handler waits; if for something else than its transaction, its like must not share one from now on."""
        raw = self.tx.raw
        if raw is None or not raw.waiting:
            self.pump.suspends = True

    async def _take(self, result: Any, delivery: Delivery, rest: Sequence[Delivery]) -> None:
        """Take what a handler returned, or see to its end first."""
        pump, tx = self.pump, self.tx
        if type(result) is _Suspended:
            if not tx.touched:
                await self._flush()
                pump.suspends = True
                await self._detach(delivery, rest, result.calling)
                return
            result = await result.calling
        if result is not None or delivery.envelope.headers is not None:
            tx.outbox.extend(pump.answering.returned(result, delivery.envelope))

    async def _undo(self, raw: StoreTransaction, delivery: Delivery, error: BaseException) -> None:
        """Undo what a handler did that failed; the others of its batch are kept."""
        if self.detaching or (self.pump.cutting and isinstance(error, asyncio.CancelledError)):
            raise error  # not acknowledged
        await calm()
        if not self.careful:
            raise _HandleAgain from error
        try:
            await raw.undo()
        except Exception:  # noqa: BLE001 - whatever it says, the handler's error is the reason
            raise error from None  # the store's own trouble has ended the whole transaction
        self.tx.undone()
        self.pump.failed(delivery, error)

    async def _detach(self, delivery: Delivery, rest: Sequence[Delivery], calling: Awaitable[Any]) -> None:
        """Commit what came before a handler that awaits something else, and let the pump go on without it."""
        tx = self.tx
        self.detaching = True
        sent, later = tx.outbox, tx.later
        await self._commit(())
        tx.reopen()
        tx.outbox, tx.later = sent, later
        self.detached = True
        await self.pump.detach(delivery, tx, [other for other in rest if self.pump.takes(other)], calling)

    async def _commit(self, following: Sequence[Delivery]) -> None:
        """Apply the settlements with everything the handlers published, and commit."""
        pump, raw = self.pump, self.tx.raw
        if raw is None:
            await pump.flush(following)
            return
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
