"""Seeding replicas from the owner's current states, however late they start."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

import msgspec

from tidings.core.codec import Codec
from tidings.core.delivery import settle
from tidings.core.envelope import TOMBSTONES
from tidings.core.message import MessageType
from tidings.core.operations import CurrentState, Delivery, Seed, Settle
from tidings.core.ports import Store, StoreTransaction
from tidings.errors import Unreadable
from tidings.runtime.pump import Pump

log = logging.getLogger("tidings")

PAGE = 1000
"""States copied in one transaction."""


class Seeding:
    """Fills a replica from the owner's current states, page by page, while its pump follows the log.

    Both may meet the same record: the owner's version decides, so their order does not matter.
    """

    def __init__(self, store: Store, pump: Pump) -> None:
        """Args: pump: of the replica's subscription."""
        self._store = store
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
        kind = pump.subscription.bootstrap
        assert kind is not None  # noqa: S101 - for the type checker: a seeding exists only for replicas
        page = await self._store.states(kind.name, cursor, PAGE)
        last = None if len(page) < PAGE else page[-1].key
        tx = pump.transaction()
        try:
            raw = await tx.begun()
            if await self._store.seeding(pump.group) != cursor:  # rebuilt, or another worker's, since the page was read
                await tx.rollback()
                return
            try:
                await self._part.seed(page, tx)
            except Unreadable:  # raised before anything is written
                await self._part.seed(await self._readable(kind, page, raw), tx)
            await raw.apply(Seed(pump.group, last))
            await tx.commit()
        except BaseException:
            await tx.rollback()
            raise

    async def _readable(
        self, kind: MessageType, page: Sequence[CurrentState], raw: StoreTransaction
    ) -> Sequence[CurrentState]:
        """Those states of a page that can be read; the others become dead letters, as when they come by the log."""
        decode = Codec(kind).decode
        readable: list[CurrentState] = []
        for state in page:
            try:
                if state.data not in TOMBSTONES:
                    decode(state.data)
            except Unreadable as error:
                await self._bury(state, error, raw)
            else:
                readable.append(state)
        return readable

    async def _bury(self, state: CurrentState, error: Unreadable, raw: StoreTransaction) -> None:
        group, now = self._pump.group, self._pump.clock.now()
        for envelope in await self._store.read(state.position - 1, state.position, 1):
            log.error("%s: the state %s of %s: %s", group, envelope.type, state.key, error)
            kept = msgspec.structs.replace(envelope, data=state.data)
            held = settle(None, Delivery(kept), error, "", self._pump.subscription.retry, 0.0, now, group)
            await raw.apply(Settle(group, {}, hold=(held,)))
