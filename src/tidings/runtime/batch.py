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

from tidings.core.operations import Delivery
from tidings.errors import Fenced, OutcomeUnknown, StoreError
from tidings.runtime.dispatch import UNSEEN
from tidings.runtime.outgoing import HANDLING
from tidings.runtime.settlement import Ended
from tidings.runtime.transaction import drained

if TYPE_CHECKING:
    from tidings.runtime.pump import Pump

log = logging.getLogger("tidings")

LONGEST = 0.05
"""Seconds after which a batch commits what it has, so that other writers get their turn."""


@types.coroutine
def _resume(coroutine: Coroutine[Any, Any, Any], waits_for: Any) -> Generator[Any, Any, Any]:
    """Go on with a coroutine that was started by hand and is suspended, inside the current task."""
    while True:
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
    batch = Batch(pump)
    try:
        return await batch.run(taken)
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


class Batch:
    """One transaction over several deliveries."""

    def __init__(self, pump: Pump) -> None:
        """Args: pump: whose deliveries it handles."""
        self.pump = pump
        self.tx = pump.transaction()
        self.detached = False

    async def run(self, taken: Sequence[Delivery]) -> list[Delivery]:
        """See `run_batch`."""
        pump = self.pump
        now = asyncio.get_running_loop().time
        until = now() + LONGEST
        for index, delivery in enumerate(taken):
            if pump.takes(delivery):
                await self._handle(delivery, taken[index + 1 :])
                if self.detached:
                    return []
                if pump.suspends or pump.stopping or (index % 8 == 7 and now() > until):  # noqa: PLR2004
                    rest = [other for other in taken[index + 1 :] if pump.takes(other)]
                    await self._commit(())
                    return rest
        following = await pump.take_more()
        await self._commit(following)
        return following

    async def _handle(self, delivery: Delivery, rest: Sequence[Delivery]) -> None:
        pump, tx = self.pump, self.tx
        envelope = delivery.envelope
        raw = tx.raw or await tx.begun()
        await raw.savepoint()
        tx.touched = False
        HANDLING.set(envelope)
        try:
            message = pump.dispatch.read(envelope)
            if message is not UNSEEN:
                coroutine: Any = pump.dispatch.call(message, tx, envelope)
                try:
                    waits_for = coroutine.send(None)
                except StopIteration as stop:
                    result = stop.value
                else:
                    pump.suspends = True
                    if not tx.touched:
                        await self._detach(delivery, rest, _resume(coroutine, waits_for))
                        return
                    result = await _resume(coroutine, waits_for)
                if result is not None:
                    tx.outbox.extend([pump.outgoing.envelope(out) for out in pump.dispatch.messages(result)])
            await raw.keep()
        except (Fenced, OutcomeUnknown, StoreError):
            raise
        except BaseException as error:
            if self.detached or drained(error, tx):
                raise  # not acknowledged
            tx.outbox, tx.later = [], []
            await raw.undo()
            pump.failed(delivery, error)
        else:
            pump.ended.append(Ended(delivery, None, tx.outbox, tx.later) if tx.outbox or tx.later else Ended(delivery))
            tx.outbox, tx.later = [], []

    async def _detach(self, delivery: Delivery, rest: Sequence[Delivery], calling: Awaitable[Any]) -> None:
        """Commit what came before a handler that awaits something else, and let the pump go on without it."""
        tx = self.tx
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
        for _, op in ops:
            await raw.apply(op)
        await asyncio.shield(self.tx.end())  # being cancelled now must not leave the outcome open
        for feed, op in ops:
            feed.flushed = max(feed.flushed, op.checkpoint or 0)
        pump.settled(ended, parked)
