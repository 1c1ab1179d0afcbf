"""A shop with a history: three orders, one of which nobody could mail a receipt for."""

import contextlib
import re
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.scenarios.cli.terminal import settings
from tests.servers.postgres import PostgresServer

SHOP = Path(__file__).parent / "shop"
PLACE = """
import asyncio, sys
from app import app, OrderPlaced
async def main():
    async with app:
        for name in sys.argv[1:]:
            await app.publish(OrderPlaced(name, f"{name}@example.com", 10))
asyncio.run(main())
"""
WORK = "import asyncio, app; asyncio.run(app.app.run(until_idle=True))"


def python(code: str, *arguments: str, cwd: Path) -> None:
    """Run some code of the shop's owner."""
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, cwd=cwd, env=settings(), check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def place(*names: str, cwd: Path) -> None:
    """Place orders."""
    python(PLACE, *names, cwd=cwd)


def work(cwd: Path) -> None:
    """Handle all that can be handled."""
    python(WORK, cwd=cwd)


_NOT_COPIED = shutil.ignore_patterns("__pycache__")
"""Compiled code of another folder is taken for this one's, where both were written in the same second."""


class Market:
    """Where shops keep their stores: in a file of their own folder."""

    def open(self, folder: Path) -> Path:
        """A shop that has not sold anything yet, in a folder of this name."""
        return shutil.copytree(SHOP, folder, ignore=_NOT_COPIED)

    def copy(self, shop: Path, folder: Path) -> Path:
        """The same shop once more."""
        return shutil.copytree(shop, folder, ignore=_NOT_COPIED)


class PostgresMarket(Market):
    """Shops whose stores are databases."""

    def __init__(self, server: PostgresServer) -> None:
        self._server = server

    def open(self, folder: Path) -> Path:
        return self._move(super().open(folder), self._server.create_database())

    def copy(self, shop: Path, folder: Path) -> Path:
        database = self._server.create_database(template=store_of(shop).rpartition("/")[2])
        return self._move(super().copy(shop, folder), database)

    def _move(self, shop: Path, database: str) -> Path:
        source = shop / "app.py"
        source.write_text(source.read_text().replace(store_of(shop), self._server.url(database)))
        return shop


everywhere = pytest.mark.parametrize("market", ["sqlite", "postgresql"], indirect=True, scope="session")
"""For tests of what does not depend on the kind of store."""


def open_shop(folder: Path) -> Path:
    """A shop that has not sold anything yet, in a folder of this name."""
    return Market().open(folder)


def store_of(shop: Path) -> str:
    """The URL of its store."""
    found = re.search(r'App\("(.+?)"', (shop / "app.py").read_text())
    assert found is not None
    return found[1]


def sql(shop: Path, statement: str) -> list[Any]:
    """Do something in its store behind its back."""
    url = store_of(shop)
    if url.startswith("sqlite:"):
        with contextlib.closing(sqlite3.connect(shop / "shop.db", isolation_level=None)) as connection:
            return connection.execute(statement).fetchall()
    with psycopg.connect(url, autocommit=True) as server:
        cursor = server.execute(statement)
        return cursor.fetchall() if cursor.description else []


@pytest.fixture(scope="session")
def market(request: pytest.FixtureRequest) -> Market:
    """Where the shops of a test are: on files, if it does not say otherwise."""
    if getattr(request, "param", "sqlite") == "sqlite":
        return Market()
    return PostgresMarket(request.getfixturevalue("postgres_servers").shared())


@pytest.fixture
def new_shop(market: Market, tmp_path: Path) -> Path:
    """A shop that has not sold anything yet."""
    return market.open(tmp_path / "shop")


@pytest.fixture(scope="session")
def grown_shop(market: Market, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = market.open(tmp_path_factory.mktemp("grown") / "shop")
    (folder / "broken").touch()
    place("ada", "bad", "bob", cwd=folder)
    work(folder)
    (folder / "broken").unlink()
    return folder


@pytest.fixture
def shop(market: Market, grown_shop: Path, tmp_path: Path) -> Path:
    """A shop whose events 1 to 3 are orders; delivery 1, of the second, is a dead letter. Its handler is mended."""
    return market.copy(grown_shop, tmp_path / "shop")
