"""What only a store with one writer owes: its transactions take turns, and their statements are done at once."""

from __future__ import annotations

import asyncio

import pytest

from tidings.core.operations import Append
from tidings.core.ports import Store
from tidings.testing.conformance.store.making import envelope
from tidings.testing.conformance.store.transactions import TransactionTests, at_once


class OneWriterTests(TransactionTests):
    """G2 and G14 where a transaction has the whole store for itself."""

    async def test_statements_operations_and_savepoints_do_not_suspend(self, store: Store) -> None:
        tx = await store.begin()
        at_once(tx.savepoint())
        at_once(tx.execute("INSERT INTO effect VALUES ('a', 1)"))
        at_once(tx.executemany("INSERT INTO effect VALUES (?, ?)", [("b", 2)]))
        at_once(tx.apply(Append([envelope()])))
        at_once(tx.load("a:1"))
        at_once(tx.keep())
        await tx.commit()

    async def test_writes_wait_for_the_transaction_and_follow_it(self, store: Store, other: Store) -> None:
        tx = await store.begin()
        waiting = [asyncio.ensure_future(one.write(Append([envelope()]))) for one in (store, other, store)]
        await asyncio.sleep(0.02)
        assert not any(one.done() for one in waiting)
        assert (await tx.apply(Append([envelope()]))).position == 1
        await tx.commit()
        assert sorted([(await one).position for one in waiting]) == [2, 3, 4]

    async def test_transactions_of_many_callers_take_turns(self, store: Store, other: Store) -> None:
        await store.write(Append([envelope()]))

        async def add(where: Store) -> None:
            tx = await where.begin()
            [(count,)] = (await tx.execute("SELECT count(*) FROM effect")).fetchall()
            await asyncio.sleep(0)
            await tx.execute("INSERT INTO effect VALUES ('x', ?)", (count,))
            await tx.commit()

        await asyncio.gather(*(add((store, other)[n % 2]) for n in range(30)))
        assert sorted(count for _, count in await self.effects(store)) == list(range(30))

    async def test_a_statement_that_fails_fails_alone(self, store: Store) -> None:
        tx = await store.begin()
        await tx.execute("INSERT INTO effect VALUES ('a', 1)")
        with pytest.raises(Exception, match="nowhere"):
            await tx.execute("INSERT INTO nowhere VALUES (1)")
        await tx.commit()
        assert await self.effects(store) == [("a", 1)]
