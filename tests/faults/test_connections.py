"""Connections run out, at the server's end or at ours; the server ends one in the middle of a transaction."""

import asyncio
import contextlib
import time
from collections.abc import Iterator

import psycopg
import pytest

from tests.faults.processes import crew, dismiss, resumed
from tests.faults.sizes import ROUNDS
from tests.faults.test_postgres import PROMISES
from tests.servers.postgres import PostgresServer, PostgresServers
from tidings import App, Envelope, Key, Transaction, event
from tidings.errors import OutcomeUnknown, StoreUnavailable
from tidings.stores.postgres import connection as settings
from tidings.stores.postgres import pool
from tidings.testing.proxy import BLACK_HOLE, Proxy

ROOM = 40
"""Connections that the small server has."""


@event(topic="orders")
class Counted:
    key: Key[str]


@pytest.fixture
def small_server(postgres_servers: PostgresServers) -> Iterator[PostgresServer]:
    server = postgres_servers.make(durable=False, settings={"max_connections": str(ROOM)})
    server.start()
    yield server
    server.kill()


@contextlib.contextmanager
def all_taken(server: PostgresServer, url: str) -> Iterator[None]:
    """Whoever is connected is thrown out, and somebody else takes every connection there is."""
    ours = "FROM pg_stat_activity WHERE application_name = 'tidings'"
    with contextlib.ExitStack() as taken:
        super_ = taken.enter_context(server.connect())
        while True:
            super_.execute(f"SELECT pg_terminate_backend(pid) {ours}")
            try:
                while True:
                    taken.enter_context(contextlib.closing(psycopg.connect(url)))
            except psycopg.OperationalError:
                if super_.execute(f"SELECT count(*) {ours}").fetchone() == (0,):
                    break
        yield


def test_work_goes_on_by_itself_after_a_server_had_no_connection_left(make_scene, small_server: PostgresServer) -> None:
    with small_server.database() as url:
        scene = make_scene(url)
        scene.prepare()
        children = crew(scene)
        time.sleep(0.5)
        for _ in range(ROUNDS):
            scene.history.note("fault", "invoke", target=0, reason="no connection is left")
            with all_taken(small_server, url):
                time.sleep(1.0)
                begun = time.monotonic()
                with pytest.raises(StoreUnavailable) as told, scene.shop().app.blocking():
                    pass
                assert time.monotonic() - begun < 3.0
            took = resumed(scene)
        dismiss(scene, children)
        report = scene.report()
    print(f"work went on after {took:.1f} s; a caller was told: {told.value}\n{report}")
    assert "max_connections" in told.value.cure
    report.require(*PROMISES)


@pytest.fixture
async def app(newest_postgres_url: str) -> App:
    app = App(newest_postgres_url, name="shop")
    async with app:
        yield app


async def test_more_transactions_than_connections_take_their_turns_and_read_meanwhile(app: App) -> None:
    async with app.transaction() as tx:
        await tx.execute("CREATE TABLE counted (n INTEGER)")

    async def one(number: int) -> None:
        async with app.transaction() as tx:
            await tx.execute("INSERT INTO counted VALUES (?)", number)
            await app.store.query("SELECT count(*) FROM counted")  # on a connection of its own
            await asyncio.sleep(0.01)
            await tx.publish(Counted(f"k{number}"))

    async with asyncio.timeout(10):
        await asyncio.gather(*map(one, range(5 * pool.MOST)))
    assert await app.store.query("SELECT count(*) FROM counted") == [(5 * pool.MOST,)]
    assert await app.store.head() == 5 * pool.MOST


async def test_a_transaction_that_finds_no_free_connection_in_time_is_told_so(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "DEADLINE", 0.2)
    begun, over = asyncio.Semaphore(0), asyncio.Event()

    async def hold() -> None:
        async with app.transaction() as tx:
            await tx.execute("SELECT 1")
            begun.release()
            await over.wait()

    holding = [asyncio.create_task(hold()) for _ in range(pool.MOST)]
    async with asyncio.timeout(10):
        for _ in holding:
            await begun.acquire()
        async with asyncio.timeout(1):
            with pytest.raises(StoreUnavailable, match=f"all {pool.MOST} connections were in use"):
                await hold()
        over.set()
        await asyncio.gather(*holding, hold())


# ---- a network that swallows everything ------------------------------------------------------------------------------

LATE = 2.0
"""Seconds that one round trip may take here, and connecting."""


@pytest.fixture
def swallowed(postgres_proxy: Proxy, durable_postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> App:
    """An app whose network `postgres_proxy` breaks, and that does not wait for half a minute."""
    monkeypatch.setattr(settings.TimelyConnection, "deadline", LATE)
    monkeypatch.setattr(settings.TimelyAsyncConnection.answer, "__defaults__", (LATE,))
    return App(f"{postgres_proxy.url(durable_postgres_url)}?connect_timeout={LATE:.0f}", name="shop")


@pytest.mark.parametrize("call", ["publish", "query", "begin", "execute", "commit", "execute in a thread"])
async def test_no_call_outlasts_its_deadline_where_nobody_answers(
    swallowed: App, postgres_proxy: Proxy, call: str
) -> None:
    """One round trip and one try to connect again are all that a call waits for."""

    async def transact(app: App) -> None:
        async with app.transaction() as tx:
            if call == "begin":
                postgres_proxy.suffer(BLACK_HOLE)
            await tx.execute("SELECT 1")
            if call in {"execute", "commit"}:
                postgres_proxy.suffer(BLACK_HOLE)
            if call == "execute":
                await tx.execute("SELECT 2")

    def block(app: App) -> None:
        with app.blocking() as b:
            b.publish(Counted("before"))
            with b.transaction() as tx:
                tx.execute("SELECT 1")
                postgres_proxy.suffer(BLACK_HOLE)
                tx.execute("SELECT 2")

    async def make(app: App) -> None:
        if call in {"publish", "query"}:
            postgres_proxy.suffer(BLACK_HOLE)
            await (app.publish(Counted("a")) if call == "publish" else app.store.query("SELECT 1"))
        elif call == "execute in a thread":
            await asyncio.to_thread(block, app)
        else:
            await transact(app)

    async with swallowed as app:
        await app.publish(Counted("before"))
        began = time.monotonic()
        with pytest.raises((StoreUnavailable, OutcomeUnknown)):
            await make(app)
        assert time.monotonic() - began < (2 if call == "publish" else 1) * LATE + 1.0
        postgres_proxy.heal()
        async with asyncio.timeout(10):
            await app.publish(Counted("after"))


# ---- idle_in_transaction_session_timeout -----------------------------------------------------------------------------

DOZE = 0.6
"""Seconds that a transaction does nothing; the server lets it for half as long."""


@pytest.fixture
def impatient(newest_postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> App:
    """An app on a store that does not wait for idle transactions."""
    monkeypatch.setattr(settings, "_IDLE", DOZE / 2)
    return App(newest_postgres_url, name="shop")


@pytest.mark.parametrize("last", ["its commit", "a statement"])
async def test_a_caller_whose_transaction_the_server_ended_is_told_and_goes_on(impatient: App, last: str) -> None:
    async def doze() -> None:
        async with app.transaction() as tx:
            await tx.execute("CREATE TABLE counted (n INTEGER)")
            await asyncio.sleep(DOZE)
            if last == "a statement":
                await tx.execute("SELECT 1")

    async with impatient as app:
        with pytest.raises(StoreUnavailable, match=r"idle-in-transaction timeout\. the transaction was undone"):
            await doze()
        await app.publish(Counted("a"))
        async with app.transaction() as tx:
            await tx.execute("CREATE TABLE counted (n INTEGER)")  # of the first one nothing is there


async def test_a_delivery_whose_transaction_the_server_ended_takes_effect_once(impatient: App) -> None:
    app, calls, dozes = impatient, [], [DOZE, DOZE]

    @app.on(Counted)
    async def count(_counted: Counted, tx: Transaction, envelope: Envelope) -> None:
        calls.append(envelope.position)
        await tx.execute("INSERT INTO counted VALUES (?, ?)", envelope.position, envelope.key)
        if dozes:
            await asyncio.sleep(dozes.pop())

    async with app, asyncio.timeout(20):
        async with app.transaction() as tx:
            await tx.execute("CREATE TABLE counted (at INTEGER, key TEXT)")
        await app.publish(*(Counted(f"k{number % 5}") for number in range(20)))
        await app.run(until_idle=True)
        counted = await app.store.query("SELECT at, key FROM counted ORDER BY ctid")
        dead = await app.store.held()
    assert len(calls) > 20, "the server ended nothing"
    assert sorted(at for at, _ in counted) == list(range(1, 21))
    for key in {key for _, key in counted}:
        assert [at for at, each in counted if each == key] == sorted(at for at, each in counted if each == key)
    assert not dead
