"""The disk of the database is full: callers are told so, and work goes on once there is space."""

import asyncio
import os
import random
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest

from tests.faults.processes import Scene, crew, dismiss, resumed
from tests.faults.sizes import ROUNDS
from tests.faults.test_postgres import PROMISES
from tests.faults.workload import Publisher
from tests.servers.binaries import user
from tests.servers.postgres import PostgresServer, PostgresServers
from tidings import App, Transaction
from tidings.errors import StoreFull
from tidings.testing.faults import Ready

NOISE = random.Random(1).randbytes(4000).hex()
"""Text that does not shrink when it is stored."""
SPARE = 2 << 20
"""Bytes that are left when the disk begins to fill up."""


@pytest.fixture
def disk(make_disk: Callable[[Path, str], Path], postgres_servers: PostgresServers) -> Path:
    """A small disk, for a server's tables or for all it has."""
    folder = postgres_servers.folder / "disk"
    folder.mkdir(exist_ok=True)
    make_disk(folder, f"{160 + 8 * ROUNDS}m")  # recovery writes more than it found
    folder.chmod(0o755)
    return folder


@pytest.fixture
def tables(disk: Path, durable_postgres: PostgresServer) -> Iterator[str]:
    """A database whose tables are there, and the server's log elsewhere."""
    folder = disk / "tables"
    folder.mkdir()
    if (other := user()) is not None:
        os.chown(folder, other.pw_uid, other.pw_gid)
    durable_postgres.execute(f"CREATE TABLESPACE small LOCATION '{folder}'")
    with durable_postgres.database() as url:
        durable_postgres.execute(f"ALTER DATABASE {url.rpartition('/')[2]} SET TABLESPACE small")
        yield url
    durable_postgres.execute("DROP TABLESPACE small")


def obstruct(disk: Path) -> Path:
    """Leave nearly no space; returns the file that is in the way."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(1 << 16))
    with ballast.open("r+b") as file:
        file.truncate(ballast.stat().st_size - SPARE)
    return ballast


def fill(scene: Scene, disk: Path) -> Path:
    """Fill the disk until a caller is told so; returns the file that is in the way."""
    ballast = obstruct(disk)
    number = next(scene.serial)

    async def main(_ready: Ready) -> None:
        shop = scene.shop()
        async with shop.app:
            publisher = Publisher(shop, f"p{number}", random.Random(number))
            publisher.padding, publisher.wishes, publisher.ways = NOISE, [""], ["publish"]
            with pytest.raises(StoreFull) as told:
                await publisher.run(1000)
        assert "No space left on device" in told.value.what
        assert "free space on the database server" in told.value.cure

    assert scene.child(lambda ready: asyncio.run(main(ready))).wait() == 0, scene.log()
    scene.history.note("fault", "invoke", target=0, reason="the disk is full")
    return ballast


def judge(scene: Scene, children: list, took: float) -> None:
    dismiss(scene, children)
    report = scene.report()
    print(f"work went on {took:.1f} s after there was space\n{report}")
    report.require(*PROMISES)


@pytest.mark.proves("G31")
def test_tables_on_a_full_disk_lose_nothing_and_work_goes_on_when_there_is_space(
    make_scene, disk: Path, tables: str
) -> None:
    scene = make_scene(tables)
    scene.prepare()
    children = crew(scene)
    for _ in range(ROUNDS):
        ballast = fill(scene, disk)
        time.sleep(1.0)
        ballast.unlink()
        took = resumed(scene)
    judge(scene, children, took)


@pytest.mark.proves("G31")
async def test_a_statement_of_ones_own_that_finds_no_space_is_told_as_any_other_write(disk: Path, tables: str) -> None:
    rows = [(NOISE,)] * (SPARE // 4000)

    async def one_by_one(tx: Transaction) -> None:
        for row in rows:
            await tx.execute("INSERT INTO mine VALUES (?)", *row)

    async def all_at_once(tx: Transaction) -> None:
        await tx.executemany("INSERT INTO mine VALUES (?)", rows)

    async def write(way: Callable[[Transaction], Awaitable[None]]) -> None:
        async with app.transaction() as tx:
            await way(tx)

    async with App(tables, name="shop") as app:
        async with app.transaction() as tx:
            await tx.execute("CREATE TABLE mine (text TEXT)")
        ballast = obstruct(disk)
        for way in (one_by_one, all_at_once):
            with pytest.raises(StoreFull, match="No space left on device"):
                await write(way)
        ballast.unlink()
        await write(all_at_once)
        assert await app.store.query("SELECT count(*) FROM mine") == [(len(rows),)]


def test_a_server_that_ended_for_want_of_space_has_lost_nothing_when_it_is_back(make_scene, disk: Path) -> None:
    servers = PostgresServers(disk)
    try:
        server = servers.make(settings={"max_wal_size": "32MB", "min_wal_size": "32MB"})
        server.start()
        scene = make_scene(server.url(server.create_database()))
        scene.prepare()
        children = crew(scene)
        ballast = fill(scene, disk)
        with suppress(psycopg.Error):
            server.execute("SELECT pg_switch_wal()")  # the next part of its log does not fit
        end = time.monotonic() + 30.0
        while server.running:  # it recovers first, for which there is no space either
            assert time.monotonic() < end, server.log.read_text()[-2000:]
            time.sleep(0.1)
        ballast.unlink()
        server.start()
        judge(scene, children, resumed(scene))
    finally:
        for child in scene.children:
            child.end()
        servers.close()
