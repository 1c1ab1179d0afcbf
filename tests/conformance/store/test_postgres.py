"""The PostgreSQL store keeps what a store promises."""

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from tidings.core.ports import Store
from tidings.stores.postgres import PostgresStore
from tidings.testing.conformance.store import StoreSuite


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
