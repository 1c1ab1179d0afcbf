"""The PostgreSQL store keeps what a store promises."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import psycopg
import pytest

from tidings.core.operations import Append
from tidings.core.ports import Store
from tidings.errors import OutcomeUnknown, StoreFull
from tidings.stores.postgres import PostgresStore
from tidings.testing.conformance.store import StoreSuite
from tidings.testing.conformance.store.making import envelope

AT_THE_COMMIT = """
CREATE FUNCTION too_late() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {}; RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER too_late AFTER INSERT ON tidings_log DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (NEW.key = 'bad') EXECUTE FUNCTION too_late();
"""
"""Makes what is appended for one key fail where it commits, when the statement has given its rows already."""
FULL = "RAISE EXCEPTION 'no space' USING ERRCODE = 'disk_full'"
ENDED = "PERFORM pg_terminate_backend(pg_backend_pid())"


Plant = Callable[[str], object]


@pytest.fixture
def pass_time(store: PostgresStore) -> Callable[[float], Awaitable[None]]:
    """Lease time passes in the database alone, so it is the leases that are moved."""

    async def pass_time(seconds: float) -> None:
        tx = await store.begin()
        for table in ("tidings_slot", "tidings_member"):
            await tx.execute(f"UPDATE {table} SET expires = expires - ? WHERE expires > 0", (float(seconds),))
        await tx.commit()

    return pass_time


class TestPostgres(StoreSuite):
    async def test_a_store_is_fit_by_its_own_account(self, store: Store) -> None:
        """It says what is wrong with the servers that tests share: they are quick, not safe."""
        found = [*store.look(), *await store.inspect(deep=True)]
        assert [each.name for each in found if each.verdict == "fail"] == ["fsync", "full_page_writes"]
        assert all(each.fix for each in found if each.verdict != "ok")

    @pytest.mark.parametrize("count", [1, 2])
    @pytest.mark.parametrize("before", [0, 3], ids=["not prepared", "prepared"])
    @pytest.mark.parametrize(("happens", "error"), [(FULL, StoreFull), (ENDED, OutcomeUnknown)])
    async def test_what_fails_at_the_commit_itself_is_not_acknowledged(
        self, store: PostgresStore, plant: Plant, happens: str, error: type[Exception], before: int, count: int
    ) -> None:
        plant(AT_THE_COMMIT.format(happens))
        for _ in range(before):
            await store.write(Append([envelope("good") for _ in range(count)]))
        for _ in range(2):
            with pytest.raises(error):
                await store.write(Append([envelope("bad") for _ in range(count)]))
        await store.write(Append([envelope("good")]))
        assert await store.query("SELECT key, count(*) FROM tidings_log GROUP BY key") == [("good", before * count + 1)]

    @pytest.fixture
    def plant(self, store: PostgresStore) -> Iterator[Plant]:
        """Runs statements as the owner of the store; what `AT_THE_COMMIT` made is taken away in the end."""
        with psycopg.connect(store.url, autocommit=True) as connection:
            yield connection.execute
            connection.execute("DROP FUNCTION IF EXISTS too_late CASCADE")

    @pytest.fixture
    async def store(self, postgres_store_url: str) -> AsyncIterator[Store]:
        store = PostgresStore(postgres_store_url)
        await store.open()
        yield store
        await store.close()

    @pytest.fixture
    async def other(self, store: Store) -> AsyncIterator[Store]:
        other = PostgresStore(store.url)
        await other.open()
        yield other
        await other.close()
