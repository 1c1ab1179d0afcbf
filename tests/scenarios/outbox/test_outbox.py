"""A transaction of the user's own publishes: committed it is published, rolled back it never was."""

import asyncio
import contextlib
import sqlite3
import time
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.db import connections

from tests.scenarios.outbox.libraries import Way, add, django_connection, engine, file_of
from tests.scenarios.outbox.messages import Customer, Placed, Unkeyed
from tidings import App, Envelope, Gone, Transaction
from tidings.errors import NotAMessage, UsageError
from tidings.ops.cli.status import survey


class Changed(Exception):
    """The user changed their mind."""


async def shelf(app: App) -> int:
    [(count,)] = await app.store.query("SELECT count(*) FROM shelf")
    return count


async def published(app: App) -> list[Envelope]:
    return list(await app.store.read(0, await app.store.head(), 10_000))


async def test_what_is_committed_is_published(shop: App, way: Way) -> None:
    async with way(shop.url) as (connection, own):
        await own()
        await add(shop, connection, Placed("o-1", 1), Placed("o-1", 2), Unkeyed(3))
        await own()
    assert await shop.outbox.ship() == 3
    found = await published(shop)
    assert [(each.type, each.key, each.source) for each in found] == [
        ("Placed", "o-1", "shop"),
        ("Placed", "o-1", "shop"),
        ("Unkeyed", None, "shop"),
    ]
    assert await shelf(shop) == 2
    assert await shop.store.oldest_outgoing() is None


async def test_what_is_rolled_back_never_was(shop: App, way: Way) -> None:
    async def change_it() -> None:
        async with way(shop.url) as (connection, own):
            await own()
            await add(shop, connection, Placed("o-1", 1))
            raise Changed

    with pytest.raises(Changed):
        await change_it()
    assert await shop.outbox.ship() == 0
    assert (await shop.store.head(), await shelf(shop)) == (0, 0)


async def test_nothing_is_seen_before_the_commit(shop: App, way: Way) -> None:
    async with way(shop.url) as (connection, _own):
        await add(shop, connection, Placed("o-1", 1))
        assert await shop.store.oldest_outgoing() is None
    assert await shop.store.oldest_outgoing() is not None


async def test_a_handler_gets_it_from_a_worker_that_runs_beside(url: str) -> None:
    app = App(url, name="shop")
    seen: list[Placed] = []
    waits: list[float] = []

    @app.on(Placed)
    async def handle(order: Placed) -> None:
        seen.append(order)
        waits.append(time.monotonic() - committed)

    async with app:
        running = asyncio.ensure_future(app.run())
        await asyncio.sleep(0.3)  # it has found nothing for a while
        for number in range(5):
            with engine(url) as made, made.begin() as connection:
                app.outbox.add(connection, Placed("o-1", number))
            committed = time.monotonic()
            while len(seen) <= number:
                await asyncio.sleep(0.001)
        app.stop()
        await running
    assert seen == [Placed("o-1", number) for number in range(5)]
    assert sorted(waits)[2] < 0.1, waits


async def test_an_app_is_not_idle_while_something_is_in_the_outbox(url: str) -> None:
    app = App(url, name="shop")
    seen: list[int] = []

    @app.on(Placed)
    async def handle(order: Placed) -> None:
        seen.append(order.number)

    async with app:
        with engine(url) as made, made.begin() as connection:
            for number in range(1200):
                app.outbox.add(connection, Placed("o-1", number))
        await app.run(until_idle=True)
    assert seen == list(range(1200))


async def test_the_app_that_adds_need_not_be_open(shop: App, way: Way) -> None:
    web = App(shop.url, name="shop")
    async with way(shop.url) as (connection, _own):
        await add(web, connection, Placed("o-1", 1))
    assert await shop.outbox.ship() == 1


async def test_a_program_that_does_nothing_else_can_relay(app: App, url: str) -> None:
    relaying = asyncio.ensure_future(app.outbox.relay())
    with engine(url) as made, made.begin() as connection:
        app.outbox.add(connection, Placed("o-1", 1))
    async with asyncio.timeout(5.0):
        await app.store.grown(0, 5.0)
        while not await app.store.head():
            await asyncio.sleep(0.01)
    relaying.cancel()


async def test_the_status_says_what_waits_and_for_how_long(app: App, url: str) -> None:
    with engine(url) as made, made.begin() as connection:
        app.outbox.add(connection, Placed("o-1", 1), Placed("o-1", 2))
    found = (await survey(app.store, app))["outbox"]
    assert (found["waiting"], 0.0 < found["oldest_seconds"] < 60.0) == (2, True)
    await app.outbox.ship()
    assert (await survey(app.store, app))["outbox"] == {"waiting": 0, "oldest_seconds": 0.0}


async def test_states_get_their_versions_and_tombstones_pass(app: App, url: str) -> None:
    with engine(url) as made, made.begin() as connection:
        app.outbox.add(connection, Customer("c-1", "Ada"), Customer("c-1", "Lovelace"), Gone(Customer, "c-1"))
    await app.publish(Customer("c-1", "Countess"))
    assert await app.outbox.ship() == 3
    assert [each.version for each in await published(app)] == [1, 2, 3, 4]
    [state] = await app.store.states("Customer")
    assert (state.version, state.data) == (4, b"")


async def test_what_a_handler_adds_is_caused_by_what_it_handles(url: str) -> None:
    app = App(url, name="shop")

    @app.on(Placed)
    async def handle(order: Placed) -> None:
        with engine(url) as made, made.begin() as connection:
            app.outbox.add(connection, Unkeyed(order.number))

    async with app:
        await app.publish(Placed("o-1", 1), headers={"traceparent": "00-" + "a" * 32 + "-" + "b" * 16 + "-01"})
        await app.run(until_idle=True)
        cause, effect = await published(app)
    assert (effect.causation, effect.correlation, effect.traceparent) == (cause.id, cause.id, cause.traceparent)


async def test_the_same_id_is_published_once(app: App, url: str) -> None:
    await app.publish(Placed("o-1", 1), id="a")
    with engine(url) as made, made.begin() as connection:
        for _ in range(2):
            app.outbox.add(connection, Placed("o-1", 1), id="a")
            app.outbox.add(connection, Placed("o-1", 2), id="b")
    assert await app.outbox.ship() == 4
    assert [each.id for each in await published(app)] == ["a", "b"]


async def test_an_id_that_stands_for_something_else_is_kept_as_a_dead_letter(app: App, url: str) -> None:
    await app.publish(Placed("o-1", 1), id="a")
    with engine(url) as made, made.begin() as connection:
        app.outbox.add(connection, Placed("o-1", 2), id="a")
        app.outbox.add(connection, Placed("o-1", 3), id="c")
        app.outbox.add(connection, Placed("o-1", 4), id="c")
    assert await app.outbox.ship() == 3
    assert [(each.id, each.data) for each in await published(app)][1:] == [("c", b'{"order_id":"o-1","number":3}')]
    dead = await app.store.held(state="dead")
    assert [(each.group, each.envelope.data[-2:-1]) for each in dead] == [("shop.outbox", b"2"), ("shop.outbox", b"4")]
    assert "taken" in dead[0].reason


async def test_a_row_that_was_damaged_is_kept_as_a_dead_letter_and_holds_up_nobody(app: App, url: str) -> None:
    damages = ("envelope = substr(envelope, 2)", "envelope = substr(envelope, 1, 9)", "key = 'o-2'")
    with engine(url) as made, made.begin() as connection:
        for number, damage in enumerate(damages):
            app.outbox.add(connection, Placed("o-1", number), id=f"{number}")
            connection.exec_driver_sql(f"UPDATE tidings_outbox SET {damage} WHERE id = '{number}'")
        kept = connection.exec_driver_sql("SELECT envelope FROM tidings_outbox ORDER BY number").fetchall()
        app.outbox.add(connection, Placed("o-1", 9))
    assert await app.outbox.ship() == 4
    assert [each.data[-2:-1] for each in await published(app)] == [b"9"]
    dead = await app.store.held(state="dead")
    assert [(each.group, each.envelope.data) for each in dead] == [("shop.outbox", bytes(data)) for (data,) in kept]
    assert all(each.reason.startswith("Unreadable") for each in dead)


async def test_large_messages_leave_in_several_steps(app: App, url: str) -> None:
    big = "x" * 900_000
    with engine(url) as made, made.begin() as connection:
        app.outbox.add(connection, *(Customer(f"c-{number}", big) for number in range(12)))
    assert await app.outbox.ship() == 12
    assert [each.key for each in await published(app)] == [f"c-{number}" for number in range(12)]


# ---- what is refused -------------------------------------------------------------------------------------------------


async def test_a_connection_in_no_transaction_is_refused(app: App, url: str) -> None:
    if url.startswith("sqlite"):
        with contextlib.closing(sqlite3.connect(file_of(url), isolation_level=None)) as connection:
            refuse(app, connection, r'in no transaction.*connection\.execute\("BEGIN IMMEDIATE"\)')
    else:
        with psycopg.connect(url, autocommit=True) as connection:
            refuse(app, connection, r"in no transaction.*with connection\.transaction\(\):")
            with connection.pipeline():
                connection.execute("SELECT 1")
                refuse(app, connection, r"in no transaction.*with connection\.transaction\(\):")
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
            with pytest.raises(UsageError, match=r"in no transaction.*async with connection\.transaction"):
                await app.outbox.add(connection, Placed("o-1"))
            async with connection.pipeline():
                await connection.execute("SELECT 1")
                with pytest.raises(UsageError, match=r"in no transaction.*async with connection\.transaction"):
                    await app.outbox.add(connection, Placed("o-1"))
    with engine(url) as made, made.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        refuse(app, connection, r"in no transaction.*with engine")
    refuse(app, django_connection(url), r"in no transaction.*with transaction\.atomic\(\):")
    connections.close_all()
    assert await app.store.oldest_outgoing() is None


def refuse(app: App, connection: Any, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        app.outbox.add(connection, Placed("o-1"))


async def test_a_connection_to_another_database_is_refused(
    app: App, url: str, tmp_path: Path, newest_postgres_url: str
) -> None:
    for place in (":memory:", tmp_path / "other.db"):
        with contextlib.closing(sqlite3.connect(place)) as connection:
            refuse(app, connection, "leads to")
    with (
        engine("sqlite::memory:" if url.startswith("postgresql") else newest_postgres_url) as made,
        made.connect() as other,
    ):
        refuse(app, other, "leads to a database of ")


async def test_a_database_without_a_store_is_named_as_such(newest_postgres_url: str, tmp_path: Path) -> None:
    with psycopg.connect(newest_postgres_url) as connection:
        refuse(App(newest_postgres_url), connection, "there is no outbox of postgresql:")
    app = App(f"sqlite:{tmp_path}/empty.db")
    with contextlib.closing(sqlite3.connect(tmp_path / "empty.db")) as connection:
        connection.execute("CREATE TABLE shelf (name TEXT)")
        refuse(app, connection, "there is no outbox of sqlite:")


def test_a_database_without_a_store_is_named_as_such_by_a_server_of_another_language(newest_postgres_url: str) -> None:
    """As with lc_messages = 'de_DE.UTF-8', which is not on every machine."""
    with psycopg.connect(newest_postgres_url) as connection:
        connection.execute("CREATE TABLE tidings_outbox (id text, source text, key text, time bigint, envelope bytea)")
        connection.execute(
            "CREATE FUNCTION miss() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION "
            "'Relation »tidings_outbox« existiert nicht' USING ERRCODE = 'undefined_table'; END $$"
        )
        connection.execute("CREATE TRIGGER miss BEFORE INSERT ON tidings_outbox FOR EACH ROW EXECUTE FUNCTION miss()")
    app = App(newest_postgres_url)
    with psycopg.connect(newest_postgres_url) as connection:
        refuse(app, connection, "there is no outbox of postgresql:")
    with engine(newest_postgres_url) as made, made.connect() as other:
        refuse(app, other, "there is no outbox of postgresql:")


async def test_a_connection_that_does_not_speak_every_letter_is_named_as_such(newest_postgres_url: str) -> None:
    async with App(newest_postgres_url, name="shop") as app:
        with psycopg.connect(newest_postgres_url, client_encoding="latin1") as connection:
            with pytest.raises(UsageError, match=r"speaks latin-1, which has no 'ć'.*client_encoding=utf8"):
                app.outbox.add(connection, Placed("o-ć"))
            app.outbox.add(connection, Placed("o-é"))
        assert await app.outbox.ship() == 1


def test_other_things_are_refused(tmp_path: Path) -> None:
    app = App(f"sqlite:{tmp_path}/shop.db")
    with pytest.raises(UsageError, match=r"given builtins\.str as the connection"):
        app.outbox.add("default", Placed("o-1"))  # type: ignore[call-overload]
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        with pytest.raises(NotAMessage):
            app.outbox.add(connection, "text")
        with pytest.raises(UsageError, match="a store in memory has no outbox"):
            App("sqlite::memory:").outbox.add(connection, Placed("o-1"))


async def test_the_users_connection_makes_no_checkpoint(app: App, url: str) -> None:
    if url.startswith("sqlite"):
        with contextlib.closing(sqlite3.connect(file_of(url))) as connection, connection:
            app.outbox.add(connection, Placed("o-1"))
            assert connection.execute("PRAGMA wal_autocheckpoint").fetchone() == (0,)


# ---- the handler's side ----------------------------------------------------------------------------------------------


async def test_a_handler_has_the_drivers_connection_in_its_own_transaction(url: str) -> None:
    app = App(url, name="shop")
    failing = True

    @app.on(Placed)
    async def handle(order: Placed, tx: Transaction) -> Unkeyed:
        connection = await tx.connection()
        if isinstance(connection, sqlite3.Connection):
            connection.execute("INSERT INTO shelf VALUES (?)", (order.order_id,))
        else:
            await psycopg.AsyncCursor(connection).execute("INSERT INTO shelf VALUES (%s)", (order.order_id,))
        nonlocal failing
        if failing and order.number == 1:
            failing = False
            raise Changed
        return Unkeyed(order.number)

    async with app:
        async with app.transaction() as tx:
            await tx.execute("CREATE TABLE shelf (name TEXT)")
        await app.publish(*(Placed(f"o-{number}", number) for number in range(3)))
        await app.run(until_idle=True)
        assert sorted(await app.store.query("SELECT name FROM shelf")) == [("o-0",), ("o-1",), ("o-2",)]
        assert await app.store.head() == 6


def test_a_blocking_transaction_has_it_too(url: str) -> None:
    app = App(url, name="shop")
    with app.blocking() as b:
        with b.transaction() as tx:
            tx.execute("CREATE TABLE shelf (name TEXT)")
        with b.transaction() as tx:
            tx.connection().execute("INSERT INTO shelf VALUES ('book')")
            tx.publish(Placed("o-1"))
        with b.transaction() as tx:
            assert tx.execute("SELECT count(*) FROM shelf").fetchall() == [(1,)]
