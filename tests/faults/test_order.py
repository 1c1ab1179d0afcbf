"""Subscribers of a log on PostgreSQL pass no late commit and see every stream in order; positions have no holes."""

import contextlib
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.crowd import Crowd
from tests.faults.sizes import WRITING
from tests.servers.binaries import installations
from tests.servers.postgres import PostgresServer, PostgresServers
from tidings.brokers import embedded
from tidings.core.envelope import Envelope
from tidings.stores.postgres import PostgresStore
from tidings.stores.postgres.steps import Steps


@pytest.fixture
def make_crowd() -> Iterator[Callable[[str], Crowd]]:
    crowds: list[Crowd] = []

    def make(url: str) -> Crowd:
        crowds.append(Crowd(url))
        return crowds[-1]

    yield make
    for crowd in crowds:
        crowd.close()


@pytest.fixture
def crowd(make_crowd: Callable[[str], Crowd], newest_postgres_url: str) -> Crowd:
    return make_crowd(newest_postgres_url)


@contextlib.contextmanager
def open_elsewhere(server: PostgresServer) -> Iterator[None]:
    """A transaction that has written stays open in another database of the same server."""
    with server.database() as url, contextlib.closing(Crowd(url).connect()) as connection:
        connection.execute("BEGIN")
        connection.execute("CREATE TABLE elsewhere (n INTEGER)")
        yield
        connection.execute("ROLLBACK")


@pytest.mark.proves("G1", "G2", "G6", "G7", "G9", "G14")
def test_sixteen_writers_with_long_transactions_and_rollbacks_are_all_seen_and_in_order(
    crowd: Crowd, postgres_servers: PostgresServers
) -> None:
    crowd.prepare()
    with open_elsewhere(postgres_servers.shared()):
        crowd.workers()
        crowd.write(WRITING)
        found = crowd.found()
    print(f"{found.published} messages")
    assert found.published > 100
    assert found.broken == set(), found


@pytest.mark.proves("G1", "G2", "G6", "G7", "G9", "G14")
def test_writers_that_append_behind_what_they_appended_last_are_all_seen_and_in_order(crowd: Crowd) -> None:
    """Each of them finds the next place taken now and then, or is the only one for a while."""
    crowd.plainly = True
    crowd.prepare()
    crowd.workers()
    crowd.write(WRITING, writers=4)
    found = crowd.found()
    print(f"{found.published} messages")
    assert found.published > 100
    assert found.broken == set(), found


# ---- a dump, restored into a cluster that has seen fewer transactions ------------------------------------------------


def age(server: PostgresServer, transactions: int) -> int:
    """Let a server use up numbers of transactions; returns the next one."""
    server.execute(
        f"DO $$ BEGIN FOR i IN 1..{transactions} LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$"
    )
    return int(server.execute("SELECT pg_current_xact_id()")[0][0])


def move(crowd: Crowd, old: PostgresServer, new: PostgresServer, dump: Path) -> None:
    """Move a store as docs/postgresql.md says."""
    place = f"--host={old.folder}", f"--port={old.port}", "--username=postgres"
    taken = ["--schema=billing", "--format=custom", f"--file={dump}", "shop"]
    subprocess.run([old.bin / "pg_dump", *place, *taken], check=True)
    new.create_database(name="shop")
    place = f"--host={new.folder}", f"--port={new.port}", "--username=postgres", "--dbname=shop"
    subprocess.run([new.bin / "pg_restore", *place, "--clean", "--if-exists", dump], check=True)
    crowd.url = f"{new.url('shop')}?schema=billing"


def moved(crowd: Crowd, servers: PostgresServers, folder: Path, plant: str = "") -> set[str]:
    """Write, dump behind the checkpoint, restore into a younger server, go on there; what is broken then."""
    old, new = servers.make(installations()[-1].major, durable=False), servers.make(durable=False)
    try:
        old.start()
        new.start()
        assert age(old, 20_000) > age(new, 1) + 15_000
        crowd.url = f"{old.url(old.create_database(name='shop'))}?schema=billing"
        crowd.prepare(plant)
        workers = crowd.workers()
        crowd.write(0.5, writers=4)
        for worker in workers:
            assert worker.terminate() == 0
        crowd.write(0.2, writers=4)  # what nobody has seen yet
        move(crowd, old, new, folder / "billing.dump")
        crowd.workers()
        crowd.write(0.5, writers=4)
        found = crowd.found()
        print(f"from {old.major} to {new.major}: {found.published} messages")
        return found.broken
    finally:
        crowd.close()
        old.kill()
        new.kill()


@pytest.mark.proves("G6", "G14")
def test_a_subscriber_goes_on_after_a_restore_into_a_younger_cluster(
    make_crowd: Callable[[str], Crowd], postgres_servers: PostgresServers, tmp_path: Path
) -> None:
    assert moved(make_crowd(""), postgres_servers, tmp_path) == set()


# ---- the proof can fail: planted bugs --------------------------------------------------------------------------------

NO_LOCK = """
DROP INDEX tidings_log_stream;
CREATE FUNCTION pg_advisory_xact_lock(integer, integer) RETURNS void LANGUAGE sql AS '';
DO $$
DECLARE
    one regprocedure;
BEGIN
    FOR one IN SELECT oid FROM pg_proc WHERE pronamespace = current_schema()::regnamespace LOOP
        EXECUTE format('ALTER FUNCTION %s SET search_path = %I, pg_catalog', one, current_schema());
    END LOOP;
END $$;
"""
"""Appends wait for nobody: the functions find a lock that is none."""

NUMBERED = """
CREATE SEQUENCE planted CACHE {cache};
CREATE FUNCTION planted() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN NEW.position := {position}; RETURN NEW; END $$;
CREATE TRIGGER planted BEFORE INSERT ON tidings_log FOR EACH ROW EXECUTE FUNCTION planted();
"""
"""Positions come from a sequence when a row is inserted, whatever the function meant."""

COLUMNS = ", ".join(Envelope.__struct_fields__)
OLDEST = "pg_snapshot_xmin(pg_current_snapshot())"

BY_SEQUENCE = NO_LOCK + NUMBERED.format(cache=1, position="nextval('planted')")
"""M3: positions are given out when a row is inserted, and read by `position > last`."""

BELOW_THE_OLDEST = f"""
ALTER TABLE tidings_log ADD COLUMN writer xid8 DEFAULT pg_current_xact_id();
CREATE VIEW settled AS SELECT {COLUMNS} FROM tidings_log WHERE writer < {OLDEST};
{BY_SEQUENCE}
"""
"""M4: the same, and only rows of transactions older than the oldest that is open are read."""

BY_TRANSACTION = f"""
CREATE VIEW settled AS SELECT {COLUMNS} FROM tidings_log WHERE position < {OLDEST}::text::bigint << 20;
{NUMBERED.format(cache=1, position="(pg_current_xact_id()::text::bigint << 20) + nextval('planted')")}
"""
"""M5: rows are read by (number of the transaction, place), below the oldest transaction that is open."""

CACHED = NUMBERED.format(cache=50, position="nextval('planted')")
"""M21: under the lock, but each connection takes fifty numbers at a time."""


def look_at_what_is_settled() -> None:
    """Subscribers read the view `settled` in place of the log, however far apart its positions are."""
    embedded.SCAN = 1 << 62
    read = PostgresStore._read

    def instead(steps: Steps[object]) -> Steps[object]:
        try:
            wanted = next(steps)
            while True:
                results = yield [(sql.replace("FROM tidings_log", "FROM settled"), params) for sql, params in wanted]
                wanted = steps.send(results)
        except StopIteration as stop:
            return stop.value

    PostgresStore._read = lambda self, steps: read(self, instead(steps))


@pytest.mark.parametrize(
    ("plant", "mutant", "check"),
    [
        pytest.param(BY_SEQUENCE, None, "passed", id="M3"),
        pytest.param(BELOW_THE_OLDEST, look_at_what_is_settled, "passed", id="M4"),
        pytest.param(BY_TRANSACTION, look_at_what_is_settled, "inverted", id="M5"),
        pytest.param(CACHED, None, "holes", id="M21"),
    ],
)
def test_another_order_is_caught(crowd: Crowd, plant: str, mutant: Callable[[], None] | None, check: str) -> None:
    crowd.mutant = mutant
    crowd.linger = 0.05
    crowd.prepare(plant)
    crowd.workers()
    crowd.write(1.5)
    found = crowd.found()
    print(f"{found.published} messages; {found.broken}")
    assert check in found.broken


def test_waiting_for_the_oldest_transaction_is_caught_where_one_stays_open_in_another_database(
    crowd: Crowd, postgres_servers: PostgresServers
) -> None:
    crowd.mutant = look_at_what_is_settled
    crowd.prepare(BY_TRANSACTION)
    with open_elsewhere(postgres_servers.shared()):
        crowd.write(0.3, writers=4)
        assert "passed" in crowd.found().broken


def test_an_order_by_transactions_is_caught_after_a_restore(
    make_crowd: Callable[[str], Crowd], postgres_servers: PostgresServers, tmp_path: Path
) -> None:
    crowd = make_crowd("")
    crowd.mutant = look_at_what_is_settled
    assert "passed" in moved(crowd, postgres_servers, tmp_path, BY_TRANSACTION)
