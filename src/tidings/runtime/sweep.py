"""Sweeps: how what fills tables of its own (projections, replicas) takes what is new, while nothing goes wrong.

Its handlers do nothing but that, so that handling an event twice shows nowhere. So a sweep reads no more of an event
than it takes, sets no savepoints and defers changes. When a handler fails, all of it is undone, and the same events are
handled again in batches, which look after each of them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tidings.core.envelope import Seen
from tidings.core.operations import Delivery
from tidings.errors import Fenced, OutcomeUnknown, StoreError
from tidings.runtime.batch import Batch, commit
from tidings.runtime.clock import loop_time
from tidings.runtime.dispatch import UNSEEN
from tidings.runtime.lane import calm
from tidings.runtime.outgoing import HANDLING

if TYPE_CHECKING:
    from tidings.runtime.pump import Pump

log = logging.getLogger("tidings")

CAREFUL_BATCHES = 16
"""Batches after a sweep in which a handler failed, before the next sweep."""


class _HandleAgain(Exception):
    """A handler failed in a sweep, or one of its statements did."""


async def sweep(pump: Pump, fresh: Sequence[Seen]) -> list[Delivery]:
    """Handle fresh envelopes, and what comes after them, until there is nothing more.

    Returns:
        What has to be handled in another way. Like all that is handled here, it counts as started.
    """
    others: list[Delivery] = []
    while fresh and pump.sweeps:
        pump.ahead.handed(pump.now(), anew=True)
        sweeping = Sweep(pump, fresh)
        before = len(pump.ended.acked)
        try:
            fresh, others = await sweeping.sweep()
        except _HandleAgain:
            await sweeping.tx.rollback()
            del pump.ended.acked[before:]
            pump.careful = CAREFUL_BATCHES
        except (Fenced, OutcomeUnknown, StoreError) as error:
            await sweeping.tx.rollback()
            log.warning("%s: %s", pump.group, error)
            pump.reset()
            return []
        except BaseException:
            await sweeping.tx.rollback()
            if not sweeping.detached:
                pump.reset()
            raise
    return [*map(Delivery, await pump.consumer.again(fresh)), *others] if fresh else others


class Sweep(Batch[Seen]):
    """One transaction of a sweep."""

    async def sweep(self) -> tuple[Sequence[Seen], list[Delivery]]:
        """Handle the envelopes and commit; returns those to handle next, and what is not to be swept."""
        pump = self.pump
        await self.begin()
        self.raw.defer()
        try:
            await self.watch(self.handle())
        except BaseException as error:
            if self.detaching or (pump.cutting and isinstance(error, asyncio.CancelledError)):
                raise  # not acknowledged
            await calm()
            raise _HandleAgain from error
        if self.detached:
            return (), []
        await self._flush()
        rest = list(self.rest)
        following, others = (rest, []) if rest else await self._take()
        await commit(pump, self.tx, others, mark=bool(following or others))
        return following, others

    async def handle(self) -> object:
        """Hand over one envelope after the other, until there is a reason to commit."""
        pump, tx = self.pump, self.tx
        readers, call, acked = pump.answering.readers, pump.dispatch.call, pump.ended.acked
        for count, envelope in enumerate(self.rest, 1):
            self.current = envelope
            HANDLING.set(envelope)
            message = readers[envelope.type](envelope)
            if message is not UNSEEN:
                result = await call(message, tx, envelope)
                if self.detaching:
                    return result
                if result is not None:
                    tx.add(pump.answering.messages(result))
                if tx.published:
                    tx.kept()
                tx.touched = False
            acked.append(envelope)
            if pump.suspends or pump.stopping or (count % 8 == 0 and loop_time() > self.until):
                break
        return None

    async def detached_ones(self, seen: Sequence[Seen]) -> list[Delivery]:
        """The deliveries of a handler that waits, and of what is behind it."""
        await self._flush()
        return list(map(Delivery, await self.pump.consumer.again(seen)))

    async def _take(self) -> tuple[Sequence[Seen], list[Delivery]]:
        """What may be swept next, or what must be handled in another way."""
        pump = self.pump
        if pump.intake.calm and "envelope" not in pump.subscription.takes:
            return await pump.take_more(pump.consumer.skim), []
        taken = await pump.take_more(pump.take)
        return ((), taken) if any(each.held for each in taken) else ([each.envelope for each in taken], [])

    async def _flush(self) -> None:
        """Have done what was deferred, before anything else depends on it."""
        try:
            await self.raw.flush()
        except StoreError:
            raise  # the store's own trouble
        except Exception as error:
            raise _HandleAgain from error
