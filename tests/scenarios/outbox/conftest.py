"""A store of each kind, and for each the libraries that reach it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.scenarios.outbox.libraries import WAYS, Way
from tidings import App


@pytest.fixture(params=WAYS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of a store of each kind in turn."""
    return f"sqlite:{tmp_path}/shop.db" if request.param == "sqlite" else request.getfixturevalue("newest_postgres_url")


@pytest.fixture
async def app(url: str) -> AsyncIterator[App]:
    """An app that is open, with a table of the user's own beside the store's."""
    app = App(url, name="shop")
    async with app:
        await make_shelf(app)
        yield app


async def make_shelf(app: App) -> None:
    async with app.transaction() as tx:
        await tx.execute("CREATE TABLE shelf (name TEXT)")


EACH = [pytest.param((kind, way), id=f"{kind}-{way.__name__}") for kind, ways in WAYS.items() for way in ways]


@pytest.fixture(params=EACH)
def kind_and_way(request: pytest.FixtureRequest) -> tuple[str, Way]:
    return request.param


@pytest.fixture
def way(kind_and_way: tuple[str, Way]) -> Way:
    """A library's transaction, of each library in turn."""
    return kind_and_way[1]


@pytest.fixture
async def shop(kind_and_way: tuple[str, Way], request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[App]:
    """An app that is open, on a store that the library reaches."""
    kind = kind_and_way[0]
    url = f"sqlite:{tmp_path}/shop.db" if kind == "sqlite" else request.getfixturevalue("newest_postgres_url")
    app = App(url, name="shop")
    async with app:
        await make_shelf(app)
        yield app


@pytest.fixture(autouse=True)
def _django_may_block_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its users call it from threads; here one test goes through all libraries."""
    monkeypatch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "1")
