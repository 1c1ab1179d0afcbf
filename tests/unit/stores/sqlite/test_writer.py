"""The writer: many operations in one commit, blocking callers, transactions that are let go, the WAL."""

# ruff: noqa: ASYNC240 - the files are what is looked at

import asyncio
import fcntl
import gc
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tidings.core.envelope import Envelope
from tidings.core.operations import ANY, Append, Appended, Claim, Settle
from tidings.errors import Fenced, IdConflict, NotOpen, Overloaded, TidingsError, UsageError, WrongVersion
from tidings.stores.sqlite import SqliteStore, committer, log, turnstile, wal, writer
from tidings.testing.conformance.store.making import GROUP, claimed, envelope, held


@pytest.fixture
def traced(store: SqliteStore) -> Iterator[list[str]]:
    """Statements of the write connection, without their values."""
    statements: list[str] = []
    connection = store._committer.connection
    connection.set_trace_callback(lambda sql: statements.append(sql.partition(" (")[0].partition(" VALUES")[0]))
    yield statements
    connection.set_trace_callback(None)


async def test_all_that_wait_are_committed_together(store: SqliteStore, traced: list[str]) -> None:
    tx = await store.begin()
    waiting = [asyncio.ensure_future(store.write(Append([envelope()]))) for _ in range(100)]
    await asyncio.sleep(0)
    await tx.rollback()
    traced.clear()
    await asyncio.gather(*waiting)
    assert traced.count("COMMIT") == 1
    assert traced.count("INSERT INTO tidings_log") == 100
    assert not [sql for sql in traced if "SAVEPOINT" in sql]


@pytest.mark.parametrize("where", ["in the loop", "in threads"])
async def test_who_watches_is_told_all_that_others_of_the_process_append(store: SqliteStore, where: str) -> None:
    told: dict[int, str | None] = {}
    done = asyncio.Event()

    def changed(envelopes: Sequence[Envelope], positions: Sequence[int]) -> None:
        told.update(zip(positions, [each.key for each in envelopes], strict=True))
        if len(told) == 20:
            done.set()

    async def write(op: Append) -> Appended:
        appended = await (store.write(op) if where == "in the loop" else asyncio.to_thread(store.write_now, op))
        assert isinstance(appended, Appended)
        return appended

    watching = asyncio.ensure_future(store.watch(changed))
    await asyncio.sleep(0)
    keys = [f"k-{number}" for number in range(20)]
    appended = await asyncio.gather(*(write(Append([envelope(key)], fresh=True)) for key in keys))
    async with asyncio.timeout(20):
        await done.wait()
    watching.cancel()
    assert told == {each.position: key for each, key in zip(appended, keys, strict=True)}


async def test_an_append_takes_as_few_statements_as_it_can(store: SqliteStore, traced: list[str]) -> None:
    await store.write(Append([envelope()], fresh=True))
    assert [sql.split()[0] for sql in traced] == ["INSERT"]
    few = [
        Append([envelope(), envelope()], fresh=True),
        Append([envelope(stream="a:1"), envelope(stream="a:1")], expected=0, fresh=True),
        Append([envelope(stream="a:1")], expected=2, fresh=True),
        Append([envelope(stream="a:2") for _ in range(log.MOST_ALONE)], expected=0, fresh=True),
    ]
    for op in few:
        traced.clear()
        await store.write(op)
        assert [sql.split()[0] for sql in traced] == ["INSERT"]
    traced.clear()
    await store.write(Append([envelope() for _ in range(log.MOST_ALONE + 1)], fresh=True))
    assert [sql.split()[0] for sql in traced] == ["BEGIN", "SELECT", *["INSERT"] * (log.MOST_ALONE + 1), "COMMIT"]


async def test_an_append_of_one_statement_says_where_its_events_are(store: SqliteStore) -> None:
    two, streamed = [envelope(), envelope()], [envelope(stream="a:1") for _ in range(3)]
    assert await store.write(Append(two, fresh=True)) == Appended((1, 2))
    assert await store.write(Append(streamed[:2], 0, fresh=True)) == Appended((3, 4), 2)
    assert await store.write(Append(streamed[2:], 2, fresh=True)) == Appended((5,), 3)
    rows = await store.read(0, 10, 10)
    assert [(one.position, one.version) for one in rows] == [(1, None), (2, None), (3, 1), (4, 2), (5, 3)]


async def test_an_append_of_one_statement_is_refused_whole_or_known_already(store: SqliteStore) -> None:
    first = Append([envelope(stream="a:1"), envelope(stream="a:1")], expected=0, fresh=True)
    done = await store.write(first)
    assert await store.write(Append(first.envelopes, expected=0)) == done
    for expected in (1, 3):  # the stream has gone on; it is not that long
        with pytest.raises(WrongVersion, match=f"at version 2, not {expected}"):
            await store.write(Append([envelope(stream="a:1"), envelope(stream="a:1")], expected, fresh=True))
    taken = envelope(id=first.envelopes[0].id, data=b"2")
    with pytest.raises(IdConflict):
        await store.write(Append([envelope(), taken]))
    assert await store.head() == 2


async def test_a_stream_is_looked_for_once_and_then_known_to_have_got_so_far(store: SqliteStore) -> None:
    async def add(expected: int, stream: str = "a:1") -> None:
        await store.write(Append([envelope(stream=stream)], expected, fresh=True))

    other = SqliteStore(store.url)
    await other.open()
    await other.write(Append([envelope(stream="a:1")], 0, fresh=True))
    statements: list[str] = []
    store._committer.connection.set_trace_callback(statements.append)
    for expected in (1, 2, 3):
        await add(expected)
    store._committer.connection.set_trace_callback(None)
    looks = ["EXISTS" in each for each in statements if each.startswith("INSERT")]
    assert looks == [True, False, False]
    await other.write(Append([envelope(stream="a:1")], 4, fresh=True))
    for wrong in (4, 6):  # another one was faster; nobody has got so far
        with pytest.raises(WrongVersion, match=f"at version 5, not {wrong}"):
            await add(wrong)
    await add(5)
    await other.close()


async def test_of_appends_in_one_commit_those_whose_streams_have_gone_on_elsewhere_are_refused(
    store: SqliteStore, other: SqliteStore, traced: list[str]
) -> None:
    streams = [f"a:{number}" for number in range(4)]

    async def append_all(expected: int) -> list[object]:
        ops = [Append([envelope(stream=stream)], expected, fresh=True) for stream in streams]
        traced.clear()
        return await asyncio.gather(*map(store.write, ops), return_exceptions=True)

    await append_all(0)
    await append_all(1)
    assert traced.count("INSERT INTO tidings_log") == 4
    assert [sql for sql in traced if sql.startswith("SELECT max(version)")] == []
    await other.write(Append([envelope(stream="a:1"), envelope(stream="a:2")], ANY, fresh=True))
    done = await append_all(2)
    assert [type(one) for one in done] == [Appended, WrongVersion, WrongVersion, Appended]
    assert "a:1' is at version 3, not 2" in str(done[1])
    again = [Append([envelope(stream="a:1")], 3, fresh=True), Append([envelope(stream="a:2")], 3, fresh=True)]
    assert [one.version for one in await asyncio.gather(*map(store.write, again))] == [4, 4]
    assert [row.version for row in await store.read(0, 99, 99, types=None) if row.stream == "a:1"] == [1, 2, 3, 4]


async def test_a_mere_start_is_one_statement_and_refused_where_a_slot_changed_hands(
    store: SqliteStore, traced: list[str]
) -> None:
    epochs = await claimed(store)
    await store.write(Append([envelope() for _ in range(9)]))
    traced.clear()
    await store.write(Settle(GROUP, epochs, started=4, durable=False))
    await store.write(Settle(GROUP, epochs, started=3, durable=False))  # it never goes back
    assert [sql.split()[0] for sql in traced] == ["PRAGMA", "UPDATE", "UPDATE"]
    await store.write(Settle(GROUP, epochs, started=4))
    assert traced[3] == "PRAGMA synchronous = FULL"  # who asks for it has it flushed
    await store.write(Claim(GROUP, "worker-1", 0, list(epochs)))
    half = await store.write(Claim(GROUP, "worker-1", 8))
    assert {lease.started for lease in half.values()} == {4}
    with pytest.raises(Fenced, match=f"of {GROUP} is at epoch"):
        await store.write(Settle(GROUP, epochs, started=9, durable=False))
    mine = {slot: lease.epoch for slot, lease in half.items()}
    await store.write(Settle(GROUP, mine, started=7, durable=False))
    starts = await store.query("SELECT started FROM tidings_slot WHERE name = ? ORDER BY slot", (GROUP,))
    assert starts == [(7 if slot in mine else 4,) for slot in range(16)]


async def test_a_lone_writer_lets_the_others_of_its_loop_go_on(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tidings.stores.rounds.LONGEST", 0.0)  # every write is a long one
    rounds = 0

    async def count() -> None:
        nonlocal rounds
        while True:
            rounds += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    for _ in range(20):
        await store.write(Append([envelope()]))
    counting.cancel()
    assert rounds >= 20


async def test_tasks_that_write_in_the_same_turn_share_a_commit_however_long_one_wrote_alone(
    store: SqliteStore, traced: list[str]
) -> None:
    async def write(times: int) -> None:
        for _ in range(times):
            await store.write(Append([envelope()]))

    await write(5)
    traced.clear()
    await asyncio.gather(*(write(10) for _ in range(8)))
    assert traced.count("COMMIT") <= 12


async def test_what_waits_and_only_appends_is_one_statement_and_each_caller_gets_its_positions(
    store: SqliteStore, traced: list[str]
) -> None:
    async def write_together(*ops: Append) -> list[Appended | BaseException]:
        tx = await store.begin()
        waiting = [asyncio.ensure_future(store.write(op)) for op in ops]
        await asyncio.sleep(0)
        await tx.rollback()
        traced.clear()
        return await asyncio.gather(*waiting, return_exceptions=True)

    new = [Append([envelope() for _ in range(count)], fresh=True) for count in (1, 2, 0, 3)]
    assert await write_together(*new) == [Appended((1,)), Appended((2, 3)), Appended(()), Appended((4, 5, 6))]
    assert traced == ["INSERT INTO tidings_log"]
    stored = await store.read(0, 100, 100)
    assert [each.id for each in stored] == [each.id for op in new for each in op.envelopes]

    unlike = [Append([envelope(correlation="c")], fresh=True), Append([envelope(stream="a:1")], fresh=True)]
    refused = Append([envelope(topic="\ud800")], fresh=True)
    done = await write_together(unlike[0], refused, unlike[1], Append([envelope()], fresh=True))
    assert [done[0], done[2], done[3]] == [Appended((7,)), Appended((8,), 1), Appended((9,))]
    assert isinstance(done[1], TidingsError)
    assert "SAVEPOINT tidings_op" in traced


@pytest.mark.parametrize(("count", "quick", "here"), [(8, 60.0, True), (102, 60.0, False), (8, 0.0, False)])
async def test_what_tasks_write_in_one_turn_is_committed_in_the_loop_where_that_is_quick(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch, count: int, quick: float, here: bool
) -> None:
    monkeypatch.setattr(committer, "QUICK", quick)
    connection, threads = store._committer.connection, set[int]()
    connection.set_trace_callback(lambda _sql: threads.add(threading.get_ident()))
    await asyncio.gather(*(store.write(Append([envelope()])) for _ in range(count)))
    connection.set_trace_callback(None)
    assert (threads == {threading.get_ident()}) is here


async def test_only_what_may_be_lost_with_the_machine_is_not_flushed(store: SqliteStore, traced: list[str]) -> None:
    epochs = await claimed(store)
    traced.clear()
    await store.write(Settle(GROUP, epochs, started=1, durable=False))
    await store.write(Claim(GROUP, "worker-1", 16))
    assert not [sql for sql in traced if "FULL" in sql]
    await store.write(Append([envelope()]))
    assert [sql for sql in traced if "synchronous" in sql][-1] == "PRAGMA synchronous = FULL"
    traced.clear()
    tx = await store.begin()
    waiting = [
        asyncio.ensure_future(store.write(op))
        for op in (Settle(GROUP, epochs, started=2, durable=False), Append([envelope()]))
    ]
    await asyncio.sleep(0)
    await tx.rollback()
    await asyncio.gather(*waiting)
    assert not [sql for sql in traced if "NORMAL" in sql]


async def test_blocking_callers_of_many_threads_and_async_ones_get_along(store: SqliteStore) -> None:
    def publish() -> list[int]:
        return [store.write_now(Append([envelope()])).position for _ in range(50)]

    async def transact() -> None:
        for _ in range(20):
            tx = await store.begin()
            await tx.apply(Append([envelope()]))
            await asyncio.sleep(0)
            await tx.commit()

    async def write() -> None:
        for _ in range(50):
            await store.write(Append([envelope()]))

    await asyncio.gather(*(asyncio.to_thread(publish) for _ in range(4)), transact(), write(), write())
    assert [one.position for one in await store.read(0, 1000, 1000)] == list(range(1, 4 * 50 + 20 + 100 + 1))


async def test_blocking_transactions_of_many_threads_take_turns(store: SqliteStore) -> None:
    store.write_now(Append([envelope(stream="a:1")]))

    def add() -> None:
        for _ in range(20):
            tx = store.begin_now()
            with pytest.raises(StopIteration) as loaded:
                tx.load("a:1").send(None)
            with pytest.raises(StopIteration):
                tx.apply(Append([envelope(stream="a:1")], expected=len(loaded.value.value))).send(None)
            with pytest.raises(StopIteration):
                tx.commit().send(None)

    await asyncio.gather(*(asyncio.to_thread(add) for _ in range(4)))
    assert len(await store.load("a:1")) == 81


async def test_several_event_loops_share_one_writer(store: SqliteStore) -> None:
    async def publish() -> None:
        await asyncio.gather(*(store.write(Append([envelope()])) for _ in range(20)))
        tx = await store.begin()
        await tx.apply(Append([envelope()]))
        await tx.commit()
        await store.grown(0, 5.0)

    await asyncio.gather(*(asyncio.to_thread(asyncio.run, publish()) for _ in range(3)), publish())
    assert await store.head() == 4 * 21
    await store.write(Append([envelope()]))


async def test_a_caller_that_is_cancelled_stops_nobody(store: SqliteStore) -> None:
    tasks = [asyncio.create_task(store.write(Append([envelope()]))) for _ in range(20)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert await store.head() == 20


async def test_an_event_loop_that_ended_with_a_transaction_open_stops_nobody(store: SqliteStore) -> None:
    async def leave() -> None:
        tx = await store.begin()
        await tx.apply(Append([envelope()]))
        asyncio.get_running_loop().tx = tx

    def run() -> None:
        loop = asyncio.new_event_loop()
        loop.run_until_complete(leave())
        loop.close()
        del loop.tx

    await asyncio.to_thread(run)
    gc.collect()
    assert (await asyncio.wait_for(store.write(Append([envelope()])), 5.0)).position == 1


@pytest.mark.proves("G28")
async def test_too_much_waiting_is_refused_and_nothing_of_it_kept(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "MOST_WAITING", 50)
    tx = await store.begin()
    waiting = [asyncio.ensure_future(store.write(Append([envelope()]))) for _ in range(80)]
    await asyncio.sleep(0.05)
    with pytest.raises(Overloaded):
        await store.write(Append([envelope()]))
    await tx.rollback()
    done = await asyncio.gather(*waiting, return_exceptions=True)
    refused = [one for one in done if isinstance(one, Overloaded)]
    assert 0 < len(refused) < 30
    assert await store.head() == 80 - len(refused)


async def test_a_loop_that_commits_by_itself_keeps_its_turn_from_the_first_look_to_the_commit(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns: list[int] = []
    lock = fcntl.flock
    monkeypatch.setattr(turnstile, "flock", lambda fd, turn: (turns.append(turn), lock(fd, turn))[1])
    await store.write(Append([envelope()]))
    assert fcntl.LOCK_EX | fcntl.LOCK_NB in turns, "the loop did not do it"
    assert turns.index(fcntl.LOCK_UN) == len(turns) - 1, "another process could slip in, and the loop would wait for it"


async def test_a_value_the_database_cannot_hold_fails_its_caller_alone(store: SqliteStore) -> None:
    tx = await store.begin()
    waiting = [
        asyncio.ensure_future(store.write(Append([one])))
        for one in (envelope(), envelope(id="\ud800"), envelope(time=2**70), envelope(data=None), envelope())
    ]
    await asyncio.sleep(0)
    await tx.rollback()
    done = await asyncio.gather(*waiting, return_exceptions=True)
    assert [isinstance(one, TidingsError) for one in done] == [False, True, True, True, False]
    assert await store.head() == 2


async def test_closing_finishes_what_waits_and_ends_what_is_open(path: Path) -> None:
    store = SqliteStore(f"sqlite://{path}")
    await store.open()
    tx = await store.begin()
    await tx.apply(Append([envelope()]))
    waiting = [asyncio.ensure_future(store.write(Append([envelope()]))) for _ in range(20)]
    begun = asyncio.ensure_future(store.begin())
    await asyncio.sleep(0.01)
    await store.close()
    assert sorted([(await one).position for one in waiting]) == list(range(1, 21))
    with pytest.raises(NotOpen):
        await begun
    with pytest.raises(NotOpen):
        await tx.commit()
    assert "tidings-writer" not in {thread.name for thread in threading.enumerate()}
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT count(*) FROM tidings_log").fetchone() == (20,)
    connection.close()


async def test_a_long_statement_can_be_interrupted_from_another_thread(store: SqliteStore) -> None:
    tx = await store.begin()
    threading.Timer(0.1, tx.interrupt).start()
    endless = "WITH RECURSIVE n (i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    with pytest.raises(sqlite3.OperationalError, match="interrupted"):
        await tx.execute(endless)
    await tx.rollback()
    await store.write(Append([envelope()]))


async def test_no_connection_checkpoints_by_itself(store: SqliteStore) -> None:
    await store.head()
    await store.query("SELECT 1")
    connections = [store._committer.connection, *store._readers._idle]
    assert [one.execute("PRAGMA wal_autocheckpoint").fetchone() for one in connections] == [(0,)] * len(connections)
    assert store._committer.connection.execute("PRAGMA synchronous").fetchone() == (2,)


def checkpoints_after(size: int, store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wal, "PASSIVE_AFTER", size)
    store._committer.wal.most = size


async def test_the_wal_is_written_back_and_stays_small(
    store: SqliteStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints_after(200_000, store, monkeypatch)
    monkeypatch.setattr(wal, "TRUNCATE_AFTER", 1_000_000)
    file = path.with_name("shop.db-wal")
    largest = 0
    for n in range(60):
        await store.write(Append([envelope(data=b"1" * 2000) for _ in range(20)]))
        if n % 2:
            store.write_now(Append([envelope(data=b"1" * 2000) for _ in range(20)]))
        largest = max(largest, file.stat().st_size)
    assert largest < 2_500_000
    assert path.stat().st_size > 3_000_000


async def test_rows_that_change_again_and_again_need_few_checkpoints_and_others_bring_them_back(
    store: SqliteStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints_after(400_000, store, monkeypatch)
    checkpoints: list[str] = []
    store._committer.connection.set_trace_callback(lambda sql: checkpoints.append(sql) if "checkpoint" in sql else None)
    tx = await store.begin()
    await tx.execute("CREATE TABLE effect (id INTEGER PRIMARY KEY, count INTEGER)")
    await tx.execute("INSERT INTO effect VALUES (1, 0)")
    await tx.commit()
    for _ in range(40):  # 90,000 bytes of WAL by the estimate, 4,096 in truth
        tx = await store.begin()
        for _ in range(100):
            await tx.execute("UPDATE effect SET count = count + 1")
        await tx.commit()
    assert 1 <= len(checkpoints) <= 5
    checkpoints.clear()
    for _ in range(80):
        await store.write(Append([envelope(data=b"1" * 500) for _ in range(40)]))
    assert len(checkpoints) >= 3
    assert path.with_name("shop.db-wal").stat().st_size < 2_500_000


async def test_a_reader_that_stays_makes_the_wal_grow_and_its_end_makes_it_small_again(
    store: SqliteStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints_after(200_000, store, monkeypatch)
    monkeypatch.setattr(wal, "TRUNCATE_AFTER", 1_000_000)
    reader = sqlite3.connect(path)
    await store.write(Append([envelope()]))
    reading = reader.execute("SELECT 1 FROM tidings_log")
    for _ in range(30):
        await store.write(Append([envelope(data=b"1" * 2000) for _ in range(40)]))
    file = path.with_name("shop.db-wal")
    assert file.stat().st_size > 2_000_000
    reading.close()
    reader.close()
    for _ in range(10):
        await store.write(Append([envelope(data=b"1" * 2000) for _ in range(40)]))
        while store._committer.wal.is_due:  # by the writer's thread, which may come late on a busy machine
            await asyncio.sleep(0.001)
    assert file.stat().st_size < 1_500_000


async def test_due_deliveries_and_versions_are_found_by_index(store: SqliteStore) -> None:
    async def plan(sql: str, params: tuple[object, ...]) -> str:
        return " ".join(row[3] for row in await store.query(f"EXPLAIN QUERY PLAN {sql}", params))

    due = "SELECT id FROM tidings_held WHERE name = ? AND ready <= ? AND slot IN (1, 2) ORDER BY ready LIMIT 10"
    assert "COVERING INDEX tidings_held_ready" in await plan(due, ("g", 1))
    assert "B-TREE" not in await plan(due, ("g", 1))
    version = "SELECT max(version) FROM tidings_log WHERE stream = ?"
    assert "COVERING INDEX tidings_log_stream" in await plan(version, ("s",))
    held = "SELECT id FROM tidings_held WHERE name = ? ORDER BY id DESC LIMIT 1"
    assert "B-TREE" not in await plan(held, ("g",))
    first = "SELECT id FROM tidings_held WHERE name = ? AND key = ? ORDER BY position, id LIMIT 1"
    assert "INDEX tidings_held_key" in await plan(first, ("g", "k"))
    assert "B-TREE" not in await plan(first, ("g", "k"))


async def test_ids_that_come_again_are_looked_up_first_for_a_while(store: SqliteStore, traced: list[str]) -> None:
    one = Append([envelope()])
    await store.write(one)
    await store.write(one)
    traced.clear()
    await store.write(one)
    assert "ROLLBACK" not in traced
    for _ in range(committer._CAREFUL_BATCHES):
        await store.write(Append([envelope()], ANY))
    traced.clear()
    await store.write(Append([envelope()]))
    assert not [sql for sql in traced if "SAVEPOINT" in sql]


async def test_a_query_only_reads(store: SqliteStore) -> None:
    with pytest.raises(UsageError, match="only reads"):
        await store.query("DELETE FROM tidings_log")


async def test_the_text_of_any_exception_can_be_kept(store: SqliteStore) -> None:
    epochs = await claimed(store)
    await store.write(Settle(GROUP, epochs, hold=[held(1, reason="ValueError: \ud800 \0", traceback="\udfff")]))
    [row] = await store.held()
    assert (row.reason, row.traceback) == ("ValueError: \\ud800 \0", "\\udfff")
