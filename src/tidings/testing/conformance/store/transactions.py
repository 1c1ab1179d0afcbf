"""Transactions of handlers and callers on the store."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from tidings.core.operations import Append, Settle
from tidings.core.ports import Store
from tidings.errors import Fenced, IdConflict, UsageError, WrongVersion
from tidings.testing.conformance.store.making import GROUP, claimed, envelope

TABLE = "CREATE TABLE effect (id TEXT, amount INTEGER)"


def at_once(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """The result of a coroutine that does not suspend."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    coroutine.close()
    pytest.fail("it suspended")


class TransactionTests:
    """G2, G7, G12 and G26, as far as a store can be asked about them alone."""

    async def effects(self, store: Store) -> list[tuple[Any, ...]]:
        """Rows of the table that the tests fill."""
        return await store.query("SELECT id, amount FROM effect ORDER BY id")

    @pytest.fixture(autouse=True)
    async def table(self, store: Store) -> None:
        tx = await store.begin()
        await tx.execute(TABLE)
        await tx.commit()

    async def test_g2_rows_and_messages_commit_together(self, store: Store, other: Store) -> None:
        tx = await store.begin()
        await tx.execute("INSERT INTO effect VALUES (?, ?)", ("a", 1))
        appended = await tx.apply(Append([envelope()]))
        assert appended.position == 1
        assert (await self.effects(other), await other.head()) == ([], 0)
        await tx.commit()
        assert (await self.effects(other), await other.head()) == ([("a", 1)], 1)

    async def test_g2_a_rollback_leaves_nothing(self, store: Store) -> None:
        tx = await store.begin()
        await tx.execute("INSERT INTO effect VALUES (?, ?)", ("a", 1))
        await tx.apply(Append([envelope(stream="a:1")]))
        await tx.rollback()
        await tx.rollback()
        assert (await self.effects(store), await store.head(), await store.load("a:1")) == ([], 0, [])
        assert (await store.write(Append([envelope(stream="a:1")]))).version == 1

    async def test_statements_read_what_the_transaction_wrote(self, store: Store) -> None:
        tx = await store.begin()
        await tx.executemany("INSERT INTO effect VALUES (?, ?)", [("a", 1), ("b", 2)])
        rows = await tx.execute("SELECT id, amount FROM effect ORDER BY id")
        assert rows.fetchone() == ("a", 1)
        assert rows.fetchall() == [("b", 2)]
        assert rows.fetchone() is None
        assert (await tx.execute("UPDATE effect SET amount = 5")).rowcount == 2
        await tx.apply(Append([envelope(stream="a:1")]))
        assert [version for _, _, version in await tx.load("a:1")] == [1]
        await tx.rollback()

    async def test_deferred_changes_are_there_for_what_follows_and_after_the_commit(self, store: Store) -> None:
        tx = await store.begin()
        tx.defer()
        await tx.execute("INSERT INTO effect VALUES (?, ?)", ("a", 1))
        await tx.executemany("INSERT INTO effect VALUES (?, ?)", [("b", 2), ("c", 3)])
        assert (await tx.execute("SELECT sum(amount) FROM effect")).fetchone() == (6,)
        await tx.execute("DELETE FROM effect WHERE id = ?", ("b",))
        await tx.commit()
        assert await self.effects(store) == [("a", 1), ("c", 3)]

    async def test_a_deferred_change_that_fails_does_so_when_it_is_flushed_at_the_latest(self, store: Store) -> None:
        tx = await store.begin()
        tx.defer()
        await tx.execute("INSERT INTO effect VALUES (?, ?)", ("a", 1))

        async def change() -> None:
            await tx.execute("INSERT INTO missing VALUES (?)", (1,))
            await tx.flush()

        with pytest.raises(Exception, match="missing"):
            await change()
        await tx.rollback()
        assert await self.effects(store) == []

    async def test_who_looks_at_the_result_of_a_deferred_change_gets_it_now_or_next_time(self, store: Store) -> None:
        sql = "INSERT INTO effect VALUES (?, ?)"
        tx = await store.begin()
        tx.defer()
        result = await tx.execute(sql, ("a", 1))
        try:
            assert result.rowcount == 1
        except Exception:  # noqa: BLE001 - a store has its own way to say so
            with pytest.raises(Exception):  # noqa: B017, PT011 - the same
                await tx.flush()  # whatever became of the first one
        await tx.rollback()
        tx = await store.begin()
        tx.defer()
        assert (await tx.execute(sql, ("a", 1))).rowcount == 1
        await tx.commit()

    async def test_a_savepoint_undoes_one_delivery_and_keeps_the_others(self, store: Store) -> None:
        tx = await store.begin()
        for name, is_kept in (("a", True), ("b", False), ("c", True)):
            await tx.savepoint()
            await tx.execute("INSERT INTO effect VALUES (?, 1)", (name,))
            await tx.apply(Append([envelope(stream="a:1")]))
            await (tx.keep() if is_kept else tx.undo())
        await tx.commit()
        assert await self.effects(store) == [("a", 1), ("c", 1)]
        assert [version for _, _, version in await store.load("a:1")] == [1, 2]
        assert [one.position for one in await store.read(0, 9, 9)] == [1, 2]

    async def test_g5_what_a_savepoint_undid_last_has_no_place_in_the_log(self, store: Store) -> None:
        given: list[int] = []
        watching = asyncio.ensure_future(store.watch(lambda _envelopes, positions: given.extend(positions)))
        await asyncio.sleep(0)
        tx = await store.begin()
        for key, is_kept in (("a", True), ("b", False)):
            await tx.savepoint()
            await tx.apply(Append([envelope(key)]))
            await (tx.keep() if is_kept else tx.undo())
        await tx.commit()
        assert await store.head() == 1
        appended = await store.write(Append([envelope("c")]))
        watching.cancel()
        assert (appended.position, await store.head(), max(given)) == (2, 2, 2)
        assert [one.key for one in await store.read(0, 9, 9)] == ["a", "c"]

    async def test_a_blocking_caller_is_never_suspended(self, store: Store) -> None:
        def use() -> int:
            tx = store.begin_now()
            at_once(tx.execute("INSERT INTO effect VALUES ('a', 1)"))
            at_once(tx.commit())
            undone = store.begin_now()
            at_once(undone.execute("INSERT INTO effect VALUES ('b', 1)"))
            at_once(undone.rollback())
            appended = store.write_now(Append([envelope()]))
            position: int = appended.position
            return position

        assert await asyncio.to_thread(use) == 1
        assert await self.effects(store) == [("a", 1)]

    async def test_a_refused_operation_leaves_the_transaction_as_it_was(self, store: Store) -> None:
        await store.write(Append([envelope(id="x"), envelope(stream="a:1")]))
        tx = await store.begin()
        await tx.execute("INSERT INTO effect VALUES ('a', 1)")
        with pytest.raises(WrongVersion):
            await tx.apply(Append([envelope(stream="a:1"), envelope(stream="a:1")], expected=0))
        with pytest.raises(IdConflict):
            await tx.apply(Append([envelope(), envelope(id="x", data=b"{}")]))
        assert (await tx.apply(Append([envelope(stream="a:1")], expected=1))).version == 2
        await tx.commit()
        assert (await self.effects(store), await store.head()) == ([("a", 1)], 3)

    async def test_g15_the_same_id_in_a_transaction_is_not_stored_again(self, store: Store) -> None:
        one = envelope()
        await store.write(Append([one]))
        tx = await store.begin()
        assert tuple((await tx.apply(Append([envelope(), one]))).positions) == (2, 1)
        await tx.commit()
        assert await store.head() == 2

    async def test_g26_an_old_epoch_cannot_settle_in_a_transaction(self, store: Store) -> None:
        epochs = await claimed(store)
        tx = await store.begin()
        await tx.execute("INSERT INTO effect VALUES ('a', 1)")
        with pytest.raises(Fenced):
            await tx.apply(Settle(GROUP, {slot: epoch - 1 for slot, epoch in epochs.items()}, checkpoint=1))
        await tx.rollback()
        assert await self.effects(store) == []

    async def test_an_abandoned_transaction_is_rolled_back(self, store: Store) -> None:
        tx = await store.begin()
        await tx.execute("INSERT INTO effect VALUES ('a', 1)")
        del tx
        await asyncio.wait_for(store.write(Append([envelope()])), 5.0)
        assert await self.effects(store) == []

    async def test_a_caller_cancelled_while_waiting_for_its_turn_leaves_no_transaction(self, store: Store) -> None:
        tx = await store.begin()
        waiting = [asyncio.ensure_future(store.begin()) for _ in range(3)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        waiting[1].cancel()
        await tx.commit()
        await (await waiting[2]).rollback()
        await asyncio.wait_for(store.write(Append([envelope()])), 5.0)

    async def test_after_its_end_a_transaction_does_nothing(self, store: Store) -> None:
        tx = await store.begin()
        await tx.commit()
        for attempt in (tx.execute("SELECT 1"), tx.apply(Append([envelope()])), tx.commit(), tx.savepoint()):
            with pytest.raises(UsageError):
                await attempt
        await tx.rollback()

    @pytest.mark.parametrize("sql", ["COMMIT", " rollback;", "/* a */ -- b\n BEGIN", "SAVEPOINT x", "end"])
    async def test_a_statement_cannot_end_the_transaction(self, store: Store, sql: str) -> None:
        tx = await store.begin()
        await tx.execute("INSERT INTO effect VALUES ('a', 1)")
        with pytest.raises(UsageError):
            await tx.execute(sql)
        await tx.rollback()
        assert await self.effects(store) == []
