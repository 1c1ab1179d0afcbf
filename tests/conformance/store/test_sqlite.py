"""The SQLite store keeps what a store promises: in a file, in memory, and without threads."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from tidings.core.ports import Store
from tidings.stores.sqlite import SqliteStore
from tidings.testing.conformance.store import OneWriterSuite


class Clock:
    """Lease time that passes when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def pass_time(clock: Clock) -> Callable[[float], Awaitable[None]]:
    async def pass_time(seconds: float) -> None:
        clock.now += seconds

    return pass_time


class TestFile(OneWriterSuite):
    @pytest.fixture
    async def store(self, tmp_path: Path, clock: Clock) -> AsyncIterator[Store]:
        store = SqliteStore(f"sqlite://{tmp_path}/shop.db", clock=clock)
        await store.open()
        yield store
        await store.close()

    @pytest.fixture
    async def other(self, store: Store, clock: Clock) -> AsyncIterator[Store]:
        other = SqliteStore(store.url, clock=clock)
        await other.open()
        yield other
        await other.close()


class TestWithoutThreads(OneWriterSuite):
    @pytest.fixture
    async def store(self, tmp_path: Path, clock: Clock) -> AsyncIterator[Store]:
        store = SqliteStore(f"sqlite://{tmp_path}/shop.db", threads=False, clock=clock)
        await store.open()
        yield store
        await store.close()

    @pytest.fixture
    async def other(self, store: Store, clock: Clock) -> AsyncIterator[Store]:
        other = SqliteStore(store.url, threads=False, clock=clock)
        await other.open()
        yield other
        await other.close()

    async def test_a_blocking_caller_is_never_suspended(self) -> None:
        pytest.skip("everything happens on the thread of the event loop")


class TestMemory(OneWriterSuite):
    @pytest.fixture
    async def store(self, clock: Clock) -> AsyncIterator[Store]:
        store = SqliteStore("sqlite::memory:", clock=clock)
        await store.open()
        yield store
        await store.close()

    @pytest.fixture
    async def other(self, store: Store) -> Store:
        return store
