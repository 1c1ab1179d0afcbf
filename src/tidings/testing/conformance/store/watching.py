"""Waiting for the log to grow, and being told of what changes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec

from tidings.core.envelope import Envelope
from tidings.core.operations import Append
from tidings.core.ports import Store
from tidings.errors import IdConflict
from tidings.testing.conformance.store.making import envelope


class WatchingTests:
    """G4 and G5, as far as they concern who waits and who watches."""

    async def test_waiting_for_growth_ends_when_somebody_appends(self, store: Store, other: Store) -> None:
        loop = asyncio.get_running_loop()
        for writer in (store, other):
            waiting = asyncio.ensure_future(store.grown(await store.head(), 20.0))
            await asyncio.sleep(0)
            began = loop.time()
            await writer.write(Append([envelope()]))
            await waiting
            assert loop.time() - began < 5.0

    async def test_waiting_for_growth_ends_at_once_when_there_is_more_already(self, store: Store) -> None:
        await store.write(Append([envelope()]))
        await asyncio.wait_for(store.grown(0, 20.0), 5.0)

    async def test_waiting_for_growth_ends_in_time_and_when_poked(self, store: Store) -> None:
        await store.grown(0, 0.01)
        waiting = asyncio.ensure_future(store.grown(0, 20.0))
        await asyncio.sleep(0)
        store.poke()
        await asyncio.wait_for(waiting, 5.0)

    async def test_g5_who_watches_is_told_of_every_change_and_of_nothing_that_is_not_there(
        self, store: Store, other: Store
    ) -> None:
        told, ends = asyncio.Event(), list[int]()
        at_hand: list[tuple[int, Envelope]] = []

        def changed(envelopes: Sequence[Envelope], positions: Sequence[int]) -> None:
            if envelopes:
                at_hand.extend(zip(positions, envelopes, strict=True))
            if positions:
                ends.append(positions[-1])
            told.set()

        watching = asyncio.ensure_future(store.watch(changed))
        async with asyncio.timeout(20.0):
            await told.wait()  # at once, whatever was there before
            for writer in (store, other, store):
                told.clear()
                await writer.write(Append([envelope()], fresh=True))
                await told.wait()
            told.clear()
            store.poke()
            await told.wait()
        watching.cancel()
        rows = {row.position: row for row in await store.read(0, 10, 10)}
        assert len(rows) == 3
        assert [0, *ends, 3] == sorted([0, *ends, 3])
        for position, each in at_hand:
            assert msgspec.structs.replace(each, position=position) == rows[position]
        await asyncio.wait([watching])
        told.clear()
        await store.write(Append([envelope()], fresh=True))
        assert not told.is_set()

    async def test_who_watches_is_given_what_is_appended_here_and_need_not_read_it(self, store: Store) -> None:
        given: list[tuple[int, str]] = []

        def changed(envelopes: Sequence[Envelope], positions: Sequence[int]) -> None:
            given.extend(zip(positions, [each.id for each in envelopes], strict=bool(envelopes)))

        watching = asyncio.ensure_future(store.watch(changed))
        await asyncio.sleep(0)
        for callers, count in ((1, 1), (1, 3), (5, 1), (5, 2)):
            appends = [Append([envelope() for _ in range(count)], fresh=True) for _ in range(callers)]
            await asyncio.gather(*map(store.write, appends))
        rows = await store.read(0, 100, 100)
        watching.cancel()
        assert given == [(row.position, row.id) for row in rows]

    async def test_g4_who_watches_does_not_change_what_a_refused_append_is_told(self, store: Store) -> None:
        watching = asyncio.ensure_future(store.watch(lambda _envelopes, _positions: None))
        await asyncio.sleep(0)
        await store.write(Append([one := envelope()]))
        for count in (1, 2, 1, 2, 1):
            wrong = [store.write(Append([msgspec.structs.replace(one, data=b"2")])) for _ in range(count)]
            assert {type(each) for each in await asyncio.gather(*wrong, return_exceptions=True)} == {IdConflict}
        watching.cancel()
