"""The servers that the other tests stand on do what their names say."""

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import psycopg
import pytest

from tests.servers.binaries import VARIABLE, Installation, installations, user
from tests.servers.postgres import PostgresServer, copied
from tests.servers.server import ended
from tests.shape.tree import ROOT
from tidings.testing.proxy import LOST_REPLIES


def committed(url, table="t"):
    with psycopg.connect(url) as connection:
        return connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]


def exists(url, table="t"):
    with psycopg.connect(url) as connection:
        return connection.execute("SELECT to_regclass(%s) IS NOT NULL", [table]).fetchone()[0]


def within(seconds, true):
    deadline = time.monotonic() + seconds
    while not true() and time.monotonic() < deadline:
        time.sleep(0.01)
    return true()


def test_each_test_has_an_empty_database_of_its_own(postgres, postgres_url):
    with psycopg.connect(postgres_url) as connection:
        assert connection.info.server_version // 10_000 == postgres.major
        assert connection.execute("SELECT rolsuper FROM pg_roles WHERE rolname = current_user").fetchone() == (False,)
        assert connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone() == (0,)
        connection.execute("CREATE TABLE t (n int)")
    assert committed(postgres_url) == 0


def test_a_database_can_begin_with_the_tables_of_another(postgres):
    original = postgres.create_database()
    with psycopg.connect(postgres.url(original)) as connection:
        connection.execute("CREATE TABLE t AS SELECT 1 AS n")
    with postgres.database(template=original) as url:
        assert committed(url) == 1
    postgres.drop_database(original)


def test_a_wrong_password_is_refused(postgres, postgres_url):
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(postgres_url.replace(":password@", ":wrong@"))


@pytest.mark.parametrize(("durable", "fsync"), [(True, "on"), (False, "off")])
def test_a_server_says_whether_it_flushes(postgres_servers, durable, fsync):
    server = postgres_servers.shared(durable=durable)
    assert server.execute("SHOW fsync") == [(fsync,)]
    assert server.execute("SHOW full_page_writes") == [(fsync,)]
    assert server.execute("SHOW synchronous_commit") == [("on",)]


def test_what_was_committed_survives_a_crash_and_nobody_stays_connected(durable_postgres, durable_postgres_url):
    with psycopg.connect(durable_postgres_url, autocommit=True) as connection:
        connection.execute("CREATE TABLE t AS SELECT 1 AS n")
        before = durable_postgres.processes()
        durable_postgres.crash()
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
    assert all(map(ended, before))
    assert committed(durable_postgres_url) == 1


def test_a_server_stops_and_comes_back_where_it_was(durable_postgres, durable_postgres_url):
    durable_postgres.stop()
    with pytest.raises(psycopg.OperationalError, match="refused"):
        psycopg.connect(durable_postgres_url)
    durable_postgres.start()
    psycopg.connect(durable_postgres_url).close()


def test_a_suspended_server_answers_nothing_until_it_goes_on(durable_postgres, durable_postgres_url):
    with psycopg.connect(durable_postgres_url, autocommit=True) as connection:
        durable_postgres.suspend()
        try:
            connection.pgconn.send_query(b"SELECT 1")
            time.sleep(0.1)
            connection.pgconn.consume_input()
            assert connection.pgconn.is_busy()
        finally:
            durable_postgres.resume()
        while connection.pgconn.get_result() is not None:
            pass


def test_a_commit_whose_reply_is_lost_has_happened(durable_postgres_url, postgres_proxy):
    with psycopg.connect(postgres_proxy.url(durable_postgres_url)) as connection, ThreadPoolExecutor(1) as pool:
        connection.execute("CREATE TABLE t AS SELECT 1 AS n")
        postgres_proxy.suffer_at(b"COMMIT", LOST_REPLIES)
        committing = pool.submit(connection.commit)
        assert within(5, lambda: exists(durable_postgres_url))
        assert not committing.done()
        postgres_proxy.heal()
        with pytest.raises(psycopg.OperationalError):
            committing.result(5)


def test_a_server_of_ones_own_has_the_settings_it_was_given(postgres_servers):
    server = postgres_servers.make(settings={"idle_in_transaction_session_timeout": "1234ms"})
    server.start()
    assert server.execute("SHOW idle_in_transaction_session_timeout") == [("1234ms",)]
    server.kill()


ORPHANS = """
from tests.servers.postgres import PostgresServers
import time
servers = PostgresServers()
server = servers.make()
server.start()
print(servers.folder, *(process.pid for process in server.processes()), flush=True)
time.sleep(60)
"""


def test_nothing_is_left_when_the_tests_are_killed(postgres_servers):
    with subprocess.Popen([sys.executable, "-c", ORPHANS], cwd=ROOT, stdout=subprocess.PIPE, text=True) as tests:
        folder, *pids = tests.stdout.readline().split()
        processes = [psutil.Process(int(pid)) for pid in pids]
        tests.kill()
        assert within(10, lambda: all(map(ended, processes)))
    assert within(10, lambda: not Path(folder).exists())


@pytest.mark.skipif(user() is None, reason="whoever may read the programs may run them")
def test_programs_that_their_user_cannot_reach_are_copied(postgres_servers, tmp_path):
    private = tmp_path / "private"
    private.mkdir(0o700)
    newest = installations()[0]
    hidden = Installation(copied(newest.bin, private), newest.major)
    server = PostgresServer(hidden, postgres_servers.folder / "hidden", durable=False)
    try:
        server.start()
        assert server.execute("SELECT 1") == [(1,)]
    finally:
        server.kill()


def test_a_folder_may_be_named_that_is_then_the_only_one(postgres_servers):
    oldest = installations()[-1]
    show = "from tests.servers.binaries import installations; print(*(each.major for each in installations()))"
    done = subprocess.run(
        [sys.executable, "-c", show],
        cwd=ROOT,
        env={**os.environ, VARIABLE: str(oldest.bin)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [str(oldest.major)]
