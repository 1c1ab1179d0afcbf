from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tidings.stores.sqlite import SqliteStore


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "shop.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(f"sqlite://{path}")
    await store.open()
    yield store
    await store.close()


@pytest.fixture
async def other(store: SqliteStore, path: Path) -> AsyncIterator[SqliteStore]:
    """Another one on the same file, as another process has."""
    other = SqliteStore(f"sqlite://{path}")
    await other.open()
    yield other
    await other.close()
