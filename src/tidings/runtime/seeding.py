"""Seeding replicas from the owner's current states, however late they start."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec

from tidings.core.delivery import settle
from tidings.core.operations import CurrentState, Delivery, Seed, Settle
from tidings.core.ports import Store, StoreTransaction
from tidings.errors import StoreError
from tidings.runtime.pump import Pump
from tidings.runtime.transaction import OpenTransaction

log = logging.getLogger("tidings")

PAGE = 1000
"""States copied in one transaction."""


class Seeding:
    """Fills a replica from the owner's current states, page by page, while its pump follows the log.

    Both may meet the same record: the owner's version decides, so their order does not matter.
    """

    def __init__(self, store: Store, pump: Pump, ask: Callable[[str], Awaitable[None]] | None = None) -> None:
        """Args: pump: of the replica's subscription. ask: for the current states of a type, elsewhere."""
        self._store = store
        self._ask = ask
        self._pump = pump
        self._part: Any = pump.subscription.handler.__self__  # type: ignore[attr-defined]

    async def busy(self) -> bool:
        """True while the bootstrap is unfinished."""
        return await self._store.seeding(self._pump.group) is not None

    async def run(self) -> None:
        """Seed whenever a bootstrap is unfinished and this worker holds the group's first slot."""
        while True:
            while 0 in self._pump.consumer.slots:
                cursor = await self._store.seeding(self._pump.group)
                if cursor is None:
                    break
                await self._page(cursor)
            await asyncio.sleep(0.2)

    async def _page(self, cursor: str) -> None:
        pump = self._pump
        if not cursor and self._ask is not None:
            await self._ask(self._part.state.name)
        page = await self._store.states(self._part.state.name, cursor, PAGE)
        last = None if len(page) < PAGE else page[-1].key
        tx = pump.transaction()
        try:
            raw = await tx.begun()
            if await self._store.seeding(pump.group) != cursor:  # rebuilt, or another worker's, since the page was read
                await tx.rollback()
                return
            await raw.savepoint()
            try:
                await self._part.seed(page, tx)
            except StoreError:
                raise
            except Exception:  # noqa: BLE001 - one of them cannot be taken over; which one will show
                await raw.undo()
                await self._one_by_one(page, tx, raw)
            else:
                await raw.keep()
            await raw.apply(Seed(pump.group, last))
            await tx.commit()
        except BaseException:
            await tx.rollback()
            raise

    async def _one_by_one(self, page: Sequence[CurrentState], tx: OpenTransaction, raw: StoreTransaction) -> None:
        """Take over each state of a page for itself; those that fail are held, as when they come by the log."""
        for state in page:
            await raw.savepoint()
            try:
                await self._part.seed([state], tx)
            except StoreError:
                raise
            except Exception as error:  # noqa: BLE001 - kept with the delivery
                await raw.undo()
                await self._hold(state, error, raw)
            else:
                await raw.keep()

    async def _hold(self, state: CurrentState, error: Exception, raw: StoreTransaction) -> None:
        group, now = self._pump.group, self._pump.clock.now()
        for envelope in await self._store.read(state.position - 1, state.position, 1):
            log.error("%s: the state %s of %s: %s", group, envelope.type, state.key, error)
            kept = msgspec.structs.replace(envelope, data=state.data)
            held = settle(None, Delivery(kept), error, "", self._pump.subscription.retry, 0.0, now, group)
            await raw.apply(Settle(group, {}, hold=(held,)))
