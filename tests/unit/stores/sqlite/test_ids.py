"""The table of ids that follows the log: when it does, what it costs, and that the proof sees when it does not."""

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import RFC_4122, UUID

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.unit.stores.sqlite.test_state_machine import StoreMachine
from tidings.core.envelope import Envelope
from tidings.core.operations import Append
from tidings.errors import IdConflict, TidingsError
from tidings.runtime.clock import Clock
from tidings.stores.sqlite import SqliteStore, checkup, log
from tidings.stores.sqlite.changes import Changes
from tidings.stores.sqlite.ids import MOST_BEHIND, Ids
from tidings.testing.clock import VirtualClock
from tidings.testing.conformance.store.making import envelope


async def followed(store: SqliteStore) -> tuple[int, int]:
    """How many ids the table has, and up to where the file says that it has them all."""
    [(count,)] = await store.query("SELECT count(*) FROM tidings_id")
    [(noted,)] = await store.query("SELECT CAST(value AS INTEGER) FROM tidings_meta WHERE name = 'indexed'")
    return count, noted


async def publish(store: SqliteStore, count: int) -> list[Envelope]:
    """Append new events one by one; returns them."""
    made = [envelope() for _ in range(count)]
    for one in made:
        await store.write(Append([one], fresh=True))
    return made


async def test_new_ids_are_entered_many_at_a_time(store: SqliteStore) -> None:
    await publish(store, MOST_BEHIND)
    assert await followed(store) == (0, 0)
    await publish(store, 1)
    assert await followed(store) == (MOST_BEHIND + 1, MOST_BEHIND + 1)
    await store.write(Append([envelope() for _ in range(MOST_BEHIND)], fresh=True))
    assert await followed(store) == (2 * MOST_BEHIND + 1, 2 * MOST_BEHIND + 1)


async def test_many_callers_and_transactions_lead_the_table_up_as_well(store: SqliteStore) -> None:
    await asyncio.gather(*(store.write(Append([envelope()], fresh=True)) for _ in range(MOST_BEHIND)))
    assert (await followed(store))[1] == MOST_BEHIND
    tx = await store.begin()
    await tx.apply(Append([envelope() for _ in range(MOST_BEHIND)], fresh=True))
    await tx.commit()
    assert (await followed(store))[1] == 2 * MOST_BEHIND


async def test_an_id_is_known_however_it_came_and_whoever_wrote_it(store: SqliteStore, other: SqliteStore) -> None:
    made = [*await publish(store, 3), *await publish(other, 3), *await publish(store, 1)]
    for writer in (store, other):
        again = await writer.write(Append(made))
        assert tuple(again.positions) == (1, 2, 3, 4, 5, 6, 7)
        with pytest.raises(IdConflict):
            await writer.write(Append([envelope(id=made[4].id, data=b"2")]))
    assert (await store.head(), await followed(store)) == (7, (7, 0))


async def test_an_id_is_known_to_a_timer_that_is_set_or_fires(store: SqliteStore, other: SqliteStore) -> None:
    [one] = await publish(store, 1)
    assert (await other.write(Append([one], due=1))).positions == (1,)
    with pytest.raises(IdConflict):
        await other.write(Append([envelope(id=one.id, data=b"2")], due=1))


async def test_what_was_undone_is_not_taken_for_known(store: SqliteStore) -> None:
    one = envelope()
    tx = await store.begin()
    await tx.savepoint()
    await tx.apply(Append([one]))
    await tx.undo()
    assert (await tx.apply(Append([one, envelope()]))).position == 2
    await tx.rollback()
    assert await followed(store) == (0, 0)
    assert (await store.write(Append([one]))).position == 1
    assert (await store.write(Append([one]))).position == 1
    assert await store.head() == 1


async def test_a_store_that_is_opened_later_knows_how_far_the_table_is(store: SqliteStore, path: Path) -> None:
    await store.write(Append([envelope() for _ in range(3 * MOST_BEHIND)], fresh=True))
    made = await publish(store, 2)
    late = SqliteStore(f"sqlite://{path}")
    await late.open()
    statements: list[str] = []
    assert late._committer is not None
    late._committer.connection.set_trace_callback(statements.append)
    assert (await late.write(Append(made))).positions == (3 * MOST_BEHIND + 1, 3 * MOST_BEHIND + 2)
    late._committer.connection.set_trace_callback(None)
    assert [sql for sql in statements if f"position > {3 * MOST_BEHIND}" in sql]
    assert not [sql for sql in statements if "position > 0 " in sql]
    await late.close()


async def test_the_doctor_finds_an_id_that_is_there_twice_or_is_not_found(store: SqliteStore, path: Path) -> None:
    await store.write(Append([envelope() for _ in range(MOST_BEHIND)], fresh=True))
    twice = envelope()
    await store.write(Append([twice], fresh=True))
    assert (await checkup.ids(store.query)).verdict == "ok"
    await store.write(Append([twice], fresh=True))  # it is not: this is what must not happen
    found = await checkup.ids(store.query)
    assert (found.verdict, found.found.rpartition(" ")[2]) == ("fail", str(MOST_BEHIND + 2))
    await store.write(Append([envelope()]))  # nobody else is refused for it
    with sqlite3.connect(path) as connection:
        connection.execute("DELETE FROM tidings_id WHERE position = 7")
    connection.close()
    found = await checkup.ids(store.query)
    assert (found.verdict, found.found.partition("position ")[2]) == ("fail", f"7, {MOST_BEHIND + 2}")


def test_a_clock_says_whether_others_may_give_its_ids() -> None:
    assert Clock().unseeded
    assert not VirtualClock().unseeded


def test_ids_of_one_millisecond_differ_and_say_when_it_was() -> None:
    clock, now = Clock(), 1_700_000_000_123_456
    made = [UUID(clock.id(now)) for _ in range(1_000)]
    assert made == sorted(set(made))
    with ThreadPoolExecutor(8) as threads:
        others = list(threads.map(clock.id, [now] * 10_000))
    assert len(set(others)) == 10_000
    assert {(each.version, each.variant, each.int >> 80) for each in made} == {(7, RFC_4122, 1_700_000_000_123)}
    clock.shuffle()  # as a forked child does
    assert clock.id(now)[:24] != str(made[-1])[:24]


# ---- planted bugs ----------------------------------------------------------------------------------------------------


def nobody_else_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of other processes are not entered before an id is looked up."""

    def follow(self: Ids, connection: sqlite3.Connection, checked: int, head: int) -> None:
        self.followed = max(self.followed, checked)
        connection.execute(
            "INSERT OR IGNORE INTO tidings_id SELECT id, source, position FROM tidings_log WHERE position > ?",
            (self.followed,),
        )
        self.followed = head

    monkeypatch.setattr(Ids, "follow", follow)


def nothing_is_undone(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a transaction entered counts as entered although it was rolled back."""
    monkeypatch.setattr(Ids, "forget", lambda self: None)


def all_ids_are_new(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ids that callers give are not looked up."""
    append = log._append

    def unchecked(changes: Changes, envelopes: list[Envelope], expected: int) -> object:
        changes.given = False
        return append(changes, envelopes, expected)

    monkeypatch.setattr(log, "_append", unchecked)


def readers_forget_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ids are found in the table only, not in what it does not have yet."""
    monkeypatch.setattr("tidings.stores.sqlite.reads._WITH_ID", "SELECT position FROM tidings_id WHERE id = ?1")


BUGS = [nobody_else_writes, nothing_is_undone, all_ids_are_new, readers_forget_the_end]
FAILED = (AssertionError, TidingsError, sqlite3.Error, pytest.fail.Exception)


@pytest.mark.parametrize("plant", BUGS, ids=lambda plant: plant.__name__)
def test_a_planted_bug_is_found(plant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    quick = settings(
        max_examples=300,
        stateful_step_count=30,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    with pytest.raises(FAILED):
        run_state_machine_as_test(StoreMachine, settings=quick)
