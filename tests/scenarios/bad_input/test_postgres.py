"""Databases that cannot be a store, or not like this; and what happens to one behind the back of those who use it."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import psycopg
import pytest

from tests.scenarios.bad_input.telling import SECRET, Order, refusal, running, until
from tests.scenarios.cli.terminal import Done, tidings
from tests.servers.binaries import identity
from tests.servers.postgres import PostgresServer, PostgresServers
from tidings import App, Transaction
from tidings.core.url import parse_url
from tidings.stores.postgres import PostgresStore
from tidings.stores.postgres.connection import Place, check_server
from tidings.stores.postgres.wire import drive_now


@pytest.fixture
def url(newest_postgres_url: str) -> str:
    """URL of a new database."""
    return newest_postgres_url


async def refuses(url: str, code: str, *words: str) -> None:
    """The store is not opened, with this message."""
    with refusal(code, *words):
        async with App(url, name="shop"):
            pass


# ---- what is written in the URL --------------------------------------------------------------------------------------


@pytest.mark.bad_input(30)
@pytest.mark.parametrize(
    ("scheme", "near"), [("kafak", "kafka:"), ("postgres", "postgresql:"), ("postgressql", "postgresql:")]
)
async def test_an_unknown_scheme_is_answered_with_the_nearest(scheme: str, near: str) -> None:
    await refuses(f"{scheme}://ada:{SECRET}@localhost/shop", "TID-104", f"did you mean {near}?", "known: sqlite")


@pytest.mark.bad_input(31)
def test_a_missing_driver_is_told_with_the_line_that_installs_it() -> None:
    code = (
        "import sys; sys.modules['psycopg'] = None\n"
        "from tidings import App, errors\n"
        "try:\n"
        f"    App('postgresql://ada:{SECRET}@localhost/shop').blocking().__enter__()\n"
        "except errors.BadUrl as error:\n"
        "    print(error.code, error.what, error.cure, sep='|')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == (
        "TID-104|postgresql: needs psycopg, which cannot be imported|pip install 'tidings[postgres]'\n"
    )


@pytest.mark.bad_input(32)
@pytest.mark.parametrize(
    ("url", "words"),
    [
        (f"postgresql://ada:{SECRET}@home@localhost/shop", ["character 25", "%40"]),
        (f"postgresql://ada:a:{SECRET}@localhost/shop", ["two : before the @", "%3A"]),
        (f"postgresql://ada:a/{SECRET}@localhost/shop", ["%2F"]),
        (f"postgresql://ada:{SECRET}#@localhost/shop", ["character 25", "%23"]),
        (f"postgresql://ada:{SECRET}@localhost:port/shop", ["the port cannot be read"]),
        (f"postgresql://ada:{SECRET}@::1/shop", ["[::1]"]),
        (f"postgresql://ada:{SECRET}@one,two/shop", ["several hosts"]),
        (f"postgresql://ada:{SECRET}@localhost/", ["names no database"]),
        (f"postgresql://ada:{SECRET}@localhost/shop?schema=a&schema=b", ["'schema' stands there twice"]),
        (f"postgresql://ada:{SECRET}@localhost/shop?sslmod=require", ["'sslmod' is not known", "sslmode"]),
        (f"postgresql://ada:{SECRET}@localhost/shop?sslmode=yes", ["sslmode is 'yes'", "verify-full"]),
        (f"postgresql://ada:{SECRET}@localhost/shop?connect_timeout=soon", ["'soon'", "whole seconds"]),
        (f"postgresql://ada:{SECRET}@localhost/shop?schema=Billing", ["small letters"]),
        (f"postgresql://ada:{SECRET}@localhost/shop?schema=pg_billing", ["pg_"]),
    ],
)
async def test_a_url_that_cannot_be_read_is_told_with_its_place_and_without_its_password(
    url: str, words: list[str]
) -> None:
    await refuses(url, "TID-104", *words)


@pytest.mark.bad_input(40)
@pytest.mark.parametrize("value", ["", "  ", "'postgresql://localhost/shop'", " postgresql://localhost/shop\n"])
async def test_a_variable_that_is_empty_or_has_too_much_around_it_is_told(value: str) -> None:
    with refusal("TID-104"):
        async with App(value, name="shop"):
            pass


# ---- where it leads --------------------------------------------------------------------------------------------------


@pytest.mark.bad_input(35)
@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda url: url.replace("/shop", "/shp"), ['database "shp" does not exist', "create the database"]),
        (lambda url: url.replace(":password", f":{SECRET}"), ["password authentication failed", "check user and pass"]),
        (lambda url: url.replace("tidings:", "nobody:"), ['user "nobody"', "check user and password"]),
        (lambda url: f"{url}?sslmode=require", ["does not support SSL", "check sslmode"]),
        (lambda url: url.replace("127.0.0.1", "no-such-host.invalid"), ["no-such-host.invalid", "correct the host"]),
        (lambda url: f"postgresql://ada:{SECRET}@127.0.0.1:1/shop", ["refused", "start PostgreSQL, or correct"]),
    ],
)
async def test_what_cannot_be_reached_is_told_in_one_line(
    url: str, wrong: Callable[[str], str], words: list[str]
) -> None:
    await refuses(wrong(url), "TID-501", *words)


@pytest.mark.bad_input(35)
async def test_a_role_that_may_not_is_told_what_it_may_not(postgres_servers: PostgresServers, url: str) -> None:
    server = postgres_servers.shared()
    server.execute("DROP ROLE IF EXISTS guest")
    server.execute(f"CREATE ROLE guest LOGIN PASSWORD '{SECRET}'")
    guest = url.replace("tidings:password", f"guest:{SECRET}")
    await refuses(f"{guest}?schema=mine", "TID-500", "permission denied for database shop", "let the owner grant it")
    async with App(url):
        pass
    await refuses(guest, "TID-500", "permission denied for table tidings_meta", "let the owner grant it")
    async with App(f"{url}?schema=theirs"):
        pass
    await refuses(f"{guest}?schema=theirs", "TID-500", "permission denied for schema theirs", "let the owner grant it")
    server.execute("ALTER DATABASE shop SET default_transaction_read_only = on")
    with refusal("TID-500", "read-only", "default_transaction_read_only = off"):
        async with App(url, name="shop") as app:
            await app.publish(Order("a"))


@pytest.mark.bad_input(35)
async def test_a_replica_is_refused(postgres_servers: PostgresServers) -> None:
    server = postgres_servers.make(durable=False)
    (server.data / "standby.signal").touch()
    server.start()
    await refuses(server.url("postgres"), "TID-501", "is a replica", "give the URL of the primary")
    server.kill()


@pytest.mark.bad_input(35)
def test_a_pooler_and_an_old_server_are_refused(url: str) -> None:
    place = Place(parse_url(url))
    with place.connect() as connection:
        info = connection.info
        with refusal("TID-501", "connection pooler (PgBouncer?)", "connect to PostgreSQL itself"):
            drive_now(check_server(place, info.server_version, info.backend_pid + 1), connection)
        with refusal("TID-501", "is PostgreSQL 12", "tidings needs 13 or newer"):
            drive_now(check_server(place, 120_011, info.backend_pid), connection)


@pytest.mark.bad_input(35)
@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
async def test_a_database_that_does_not_hold_every_text_is_refused(
    postgres_servers: PostgresServers, url: str, encoding: str
) -> None:
    server = postgres_servers.shared()
    server.drop_database("shop")
    server.execute(f"CREATE DATABASE shop TEMPLATE template0 OWNER tidings ENCODING '{encoding}' LOCALE 'C'")
    await refuses(url, "TID-501", f"of encoding {encoding}", "ENCODING 'UTF8'")
    store = PostgresStore(url)
    with refusal("TID-501", f"of encoding {encoding}"):
        store.migrate(store.schema().pending[0])


@pytest.mark.bad_input(35)
@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
async def test_whatever_encoding_others_ask_for_text_is_kept_as_it_is(
    postgres_servers: PostgresServers, url: str, encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    postgres_servers.shared().execute(f"ALTER DATABASE shop SET client_encoding = '{encoding}'")
    monkeypatch.setenv("PGCLIENTENCODING", encoding)
    key = "\u043a\u043b\u044e\u0447"
    async with App(url, name="shop") as app:
        await app.publish(Order(key))
        assert [each.key for each in await app.store.read(0, 1, 1)] == [key]
    assert postgres_servers.shared().execute("SELECT convert_to(key, 'UTF8') FROM tidings_log", database="shop") == [
        (key.encode(),)
    ]


PGBOUNCER = """
[databases]
* = host=127.0.0.1 port={server} user=tidings password=password
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = trust
auth_file = {folder}/users
pool_mode = {mode}
{more}
"""


@pytest.mark.bad_input(35)
@pytest.mark.skipif(shutil.which("pgbouncer") is None, reason="there is no PgBouncer on this machine")
@pytest.mark.parametrize("more", ["", "ignore_startup_parameters = options, extra_float_digits"])
@pytest.mark.parametrize("mode", ["session", "transaction"])
def test_pgbouncer_itself_is_refused(postgres_servers: PostgresServers, url: str, mode: str, more: str) -> None:
    server = postgres_servers.shared()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder = server.folder / f"bouncer-{port}"
    folder.mkdir(0o755)
    (folder / "users").write_text('"tidings" "password"')
    (folder / "ini").write_text(PGBOUNCER.format(server=server.port, port=port, folder=folder, mode=mode, more=more))
    bouncer = subprocess.Popen(["pgbouncer", "-q", folder / "ini"], **identity())
    try:
        while True:
            with contextlib.suppress(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", port)).close()
                break
            time.sleep(0.01)
        through = App(url.replace(str(server.port), str(port)), name="shop")
        with refusal("TID-501", "PgBouncer?", "connect to PostgreSQL itself"), through.blocking():
            pass
    finally:
        bouncer.kill()
        bouncer.wait()


@pytest.mark.bad_input(35)
def test_settings_that_void_a_promise_fail_the_doctor_and_name_it(
    durable_postgres: PostgresServer, durable_postgres_url: str, url: str, tmp_path: Path
) -> None:
    for each in (durable_postgres_url, url):
        with App(each).blocking():
            pass

    def failing(url: str) -> dict[str, str]:
        done = tidings("doctor", "--store", url, "-o", "json", cwd=tmp_path)
        assert done.code == (5 if any(row["verdict"] == "fail" for row in done.data) else 0)
        return {row["check"]: row["found"] + row["fix"] for row in done.data if row["verdict"] == "fail"}

    assert failing(durable_postgres_url) == {}
    database = durable_postgres_url.rpartition("/")[2]
    durable_postgres.execute(f"ALTER DATABASE {database} SET synchronous_commit = off")
    [told] = failing(durable_postgres_url).values()
    assert "survives a crash (G1)" in told
    cure = f"ALTER DATABASE {database} RESET synchronous_commit"  # the server's own setting would change nothing
    assert cure in told
    durable_postgres.execute(cure)
    assert failing(durable_postgres_url) == {}
    assert set(failing(url)) == {"fsync", "full_page_writes"}, "the servers that the tests share are quick, not safe"


@pytest.mark.bad_input(41)
def test_a_file_of_secrets_that_others_can_read_is_a_warning(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passwords = tmp_path / "passwords"
    passwords.write_text(f"*:*:*:*:{SECRET}\n")
    monkeypatch.setenv("PGPASSFILE", str(passwords))
    passwords.chmod(0o644)
    found = {each.name: each for each in PostgresStore(url).look()}["secrets"]
    assert (found.verdict, found.fix) == ("warn", f"chmod 600 {passwords}, and change what others may have read")
    assert SECRET not in str(found)
    passwords.chmod(0o600)
    assert {each.name: each for each in PostgresStore(url).look()}["secrets"].verdict == "ok"


@pytest.mark.bad_input(41)
async def test_no_password_is_shown_by_any_command_log_error_or_dead_letter(
    postgres_servers: PostgresServers, url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server = postgres_servers.shared()
    server.execute("DROP ROLE IF EXISTS canary")
    server.execute(f"CREATE ROLE canary LOGIN PASSWORD '{SECRET}'")
    server.execute("GRANT ALL ON SCHEMA public TO canary", database="shop")
    url = url.replace("tidings:password", f"canary:{SECRET}")
    app = App(url, name="shop")

    @app.on(Order)
    async def fail(order: Order, tx: Transaction) -> None:
        await tx.execute("SELECT nothing\nFROM nowhere WHERE x = ?", order.order_id)

    caplog.set_level("DEBUG")
    async with app:
        await app.publish(Order("a"))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(app.run(until_idle=True), 2)
    async with app:
        server.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'canary'")
        await app.publish(Order("b"))
        shown = f"{app!r} {app.store!r} {app.store.look()}"
    shown += caplog.text
    wrong = url.replace("/shop", "/shp")
    commands = (
        "status", "doctor", "doctor --deep", "events ls", "events show 1", "tail", "dead ls", "projection ls",
        "migrate status", "migrate sql", "migrate up", "dead redrive --all --yes",
    )  # fmt: skip
    for command in commands:
        for target in (url, wrong, f"{url}?sslmode=require"):
            done: Done = tidings(*command.split(), "--store", target, cwd=tmp_path, TIDINGS_DEBUG="1")
            shown += done.out + done.err
    assert SECRET not in shown
    assert "UndefinedTable: relation" in caplog.text
    assert "LINE 1" not in caplog.text


# ---- behind the back of a running app --------------------------------------------------------------------------------


@pytest.fixture
async def seen(url: str) -> AsyncIterator[tuple[App, list[str]]]:
    """A running app that has handled one order."""
    got: list[str] = []
    app = App(url, name="shop")

    @app.on(Order)
    async def note(order: Order) -> None:
        got.append(order.order_id)

    async with running(app) as task:
        app.task = task  # type: ignore[attr-defined]
        await app.publish(Order("a"), Order("b"))

        async def handled() -> bool:
            return len(got) == 2

        await until(handled)
        yield app, got


def without_tables(connection: psycopg.Connection) -> None:
    for (name,) in connection.execute("SELECT tablename FROM pg_tables WHERE starts_with(tablename, 'tidings_')"):
        connection.execute(f"DROP TABLE {name} CASCADE")


def older(connection: psycopg.Connection) -> None:
    connection.execute("DELETE FROM tidings_log WHERE position > 1")


@pytest.mark.bad_input(69, 70)
@pytest.mark.parametrize("harm", [without_tables, older])
async def test_a_store_taken_from_under_a_running_app_stops_it_loudly(
    url: str, seen: tuple[App, list[str]], harm: Callable[[psycopg.Connection], None]
) -> None:
    app, got = seen
    with psycopg.connect(url, autocommit=True) as connection:
        harm(connection)
    async with asyncio.timeout(20):
        with refusal("TID-504", "stop every process"):
            await app.task  # type: ignore[attr-defined]
    assert got == ["a", "b"]


@pytest.mark.bad_input(71)
async def test_a_group_that_is_ahead_of_the_log_is_refused_with_the_remedy(url: str) -> None:
    app = App(url, name="shop")

    @app.on(Order)
    async def note(_order: Order) -> None: ...

    async with app:
        await app.publish(Order("a"), Order("b"), Order("c"))
        await app.run(until_idle=True)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DELETE FROM tidings_log WHERE position > 1")
    async with app:
        with refusal("TID-503", "shop.note", "finished position 3, but the log ends at 1", "backup"):
            await app.run(until_idle=True)


@pytest.mark.bad_input(69)
async def test_a_backup_put_back_is_whole_and_work_goes_on_from_there(
    postgres_servers: PostgresServers, url: str
) -> None:
    got: list[str] = []
    server, app = postgres_servers.shared(), App(url, name="shop")

    @app.on(Order)
    async def note(order: Order) -> None:
        got.append(order.order_id)

    async with app:
        await app.publish(Order("a"))
        await app.run(until_idle=True)
    backup = server.create_database(template="shop")
    async with app:
        await app.publish(Order("b"), Order("c"))
        await app.run(until_idle=True)
    server.drop_database("shop")
    server.create_database(template=backup, name="shop")
    server.drop_database(backup)
    async with app:
        assert await app.store.head() == 1
        assert await app.publish(Order("d")) == 2
        await app.run(until_idle=True)
    assert sorted(got) == ["a", "b", "c", "d"]


@pytest.mark.bad_input(72)
async def test_what_nobody_handles_for_long_is_kept_and_told(url: str, tmp_path: Path) -> None:
    app = App(url, name="shop")

    @app.on(Order)
    async def note(_order: Order) -> None: ...

    async with app:
        await app.publish(Order("a"))
        await app.run(until_idle=True)
        await app.publish(*(Order(f"o-{number}") for number in range(500)))
    with psycopg.connect(url, autocommit=True) as connection:  # a week ago
        connection.execute("UPDATE tidings_log SET time = time - 7 * 86400 * 1000000::bigint WHERE position > 1")
    late = tidings("status", "--max-lag", 100, "--max-age", 3600, "--store", url, "-o", "json", cwd=tmp_path)
    assert late.code == 5
    [group] = late.data["groups"]
    assert group["lag"] == 500
    assert group["oldest_seconds"] > 600_000
    found = {row["check"]: row for row in tidings("doctor", "--store", url, "-o", "json", cwd=tmp_path).data}
    assert (found["lag"]["verdict"], found["lag"]["fix"]) == ("warn", "tidings run")
    assert found["retention"]["found"] == "501 events; all are kept"


@pytest.mark.bad_input(35)
async def test_another_isolation_that_is_the_database_s_own_does_not_disturb_the_order(
    postgres_servers: PostgresServers, url: str
) -> None:
    postgres_servers.shared().execute("ALTER DATABASE shop SET default_transaction_isolation = 'serializable'")
    async with App(url, name="shop") as one, App(f"{url}?connect_timeout=5", name="shop") as other:
        assert await one.store.query("SHOW transaction_isolation") == [("read committed",)]
        found = await asyncio.gather(*(app.publish(Order("a")) for app in (one, other) for _ in range(50)))
    assert sorted(found) == list(range(1, 101))


@pytest.mark.bad_input(35)
async def test_settings_that_are_the_database_s_own_do_not_change_what_is_kept(
    postgres_servers: PostgresServers, url: str
) -> None:
    for setting in ("array_nulls = off", "bytea_output = escape", "search_path = nowhere", "timezone = Japan"):
        postgres_servers.shared().execute(f"ALTER DATABASE shop SET {setting}")
    async with App(url, name="shop") as app:
        await app.publish(Order("a"), Order("b"))
        assert await app.store.query("SELECT DISTINCT correlation, traceparent FROM tidings_log") == [(None, None)]
