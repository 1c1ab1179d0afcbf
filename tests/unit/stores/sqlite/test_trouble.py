"""Disks that fill up or fail, and files that go away: nothing is acknowledged that is not there."""

# ruff: noqa: ASYNC240 - the files are what is looked at

import asyncio
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.unit.stores.sqlite.processes import end, ids, start, told
from tidings.core.operations import Append, Settle
from tidings.errors import OutcomeUnknown, StoreFull, StoreGone, WrongStore
from tidings.stores.sqlite import SqliteStore, originals
from tidings.testing.conformance.store.making import GROUP, claimed, envelope, joining

LARGE = b'"' + b"x" * 50_000 + b'"'


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tidings-test", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("a small file system can be mounted by root only")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


async def fill(store: SqliteStore) -> tuple[int, StoreFull]:
    """Append until the disk is full; returns how many were acknowledged."""
    for count in range(1000):
        try:
            await store.write(Append([envelope(data=LARGE)]))
        except StoreFull as error:
            return count, error
    pytest.fail("it never filled up")


async def test_g31_a_full_disk_is_named_loses_nothing_and_writing_goes_on_when_there_is_space(small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(500_000))
    path = small_disk / "shop.db"
    store = SqliteStore(f"sqlite://{path}")
    await store.open()
    await claimed(store)
    count, error = await fill(store)
    assert count > 0
    assert str(path) in error.what
    assert error.transient
    assert isinstance(error.data["free"], int)
    refused = await asyncio.gather(
        *(store.write(Append([envelope(data=LARGE)])) for _ in range(5)), return_exceptions=True
    )
    assert {type(one) for one in refused} == {StoreFull}
    assert await store.head() == count
    ballast.unlink()
    assert (await store.write(Append([envelope(data=LARGE)]))).position == count + 1
    await store.write(Settle(GROUP, {0: 1}, checkpoint=count))
    await store.close()
    assert [(n,) for n in range(1, count + 2)] == positions(path)


async def test_g31_a_transaction_on_a_full_disk_fails_whole(small_disk: Path) -> None:
    store = SqliteStore(f"sqlite://{small_disk}/shop.db")
    await store.open()
    tx = await store.begin()
    await tx.execute("CREATE TABLE effect (data BLOB)")
    await tx.commit()
    tx = await store.begin()

    async def overfill() -> None:
        for _ in range(100):
            await tx.execute("INSERT INTO effect VALUES (?)", (LARGE,))
        await tx.commit()

    with pytest.raises(StoreFull):
        await overfill()
    await tx.rollback()
    assert await store.query("SELECT count(*) FROM effect") == [(0,)]
    await store.write(Append([envelope()]))
    await store.close()


def positions(path: Path) -> list[tuple[int]]:
    connection = sqlite3.connect(path)
    try:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return connection.execute("SELECT position FROM tidings_log ORDER BY position").fetchall()
    finally:
        connection.close()


def test_g4_a_disk_that_fails_during_a_commit_leaves_the_outcome_open_and_the_store_usable(path: Path) -> None:
    process = start("write_against_a_limit", path)
    said = [told(process) for _ in range(3)]
    end(process)
    assert said[0] == said[1] == OutcomeUnknown.__name__
    assert said[2] == "3"
    assert sorted(ids(str(path))) == [("before",), ("first",), ("second",)]


def removed(path: Path) -> None:
    path.unlink()


def renamed(path: Path) -> None:
    path.rename(path.with_name("old.db"))


def replaced(path: Path) -> None:
    copy = path.with_name("copy.db")
    shutil.copy(path, copy)
    copy.replace(path)


def without_wal(path: Path) -> None:
    path.with_name("shop.db-wal").unlink()


def with_the_time_of_before(path: Path) -> None:
    before = path.parent.stat()
    replaced(path)
    os.utime(path.parent, ns=(before.st_atime_ns, before.st_mtime_ns))


def folder_renamed(path: Path) -> None:
    path.parent.rename(f"{path.parent}-elsewhere")


def cut_short(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(0)


@pytest.mark.parametrize("settled", [False, True])
@pytest.mark.parametrize(
    "lose", [cut_short, removed, renamed, replaced, without_wal, with_the_time_of_before, folder_renamed]
)
async def test_a_file_that_is_taken_away_stops_everything_that_would_be_acknowledged(
    store: SqliteStore,
    path: Path,
    lose: Callable[[Path], None],
    settled: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if settled:  # as when nothing has changed in the folder for a while
        monkeypatch.setattr(originals, "_SETTLED_COARSE", 0)
        await asyncio.sleep(0.1)
    await store.write(Append([envelope()]))
    lose(path)
    for _ in range(2):
        with pytest.raises(StoreGone, match=r"shop\.db") as caught:
            await store.write(Append([envelope()]))
        assert caught.value.cure
        with pytest.raises(StoreGone):
            await store.begin()
        with pytest.raises(StoreGone):
            store.write_now(Append([envelope()]))
    assert not caught.value.transient


@pytest.mark.bad_input(70)
async def test_a_folder_above_the_file_that_is_renamed_is_noticed_soon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(originals, "_SETTLED_COARSE", 0)
    path = tmp_path / "above" / "folder" / "shop.db"
    path.parent.mkdir(parents=True)
    store = SqliteStore(f"sqlite://{path}")
    await store.open()
    await asyncio.sleep(0.1)
    await store.write(Append([envelope()]))
    (tmp_path / "above").rename(tmp_path / "elsewhere")
    await asyncio.sleep(2 * originals._LOOK_EVERY)
    with pytest.raises(StoreGone, match=r"shop\.db"):
        await store.write(Append([envelope()]))
    await store.close()


async def test_a_store_that_was_opened_and_closed_leaves_no_file_open(path: Path) -> None:
    def opened() -> list[str]:
        return sorted(str(each.readlink()) for each in Path("/proc/self/fd").iterdir() if each.is_symlink())

    before = opened()
    for _ in range(3):
        store = SqliteStore(f"sqlite://{path}")
        await store.open()
        await store.write(Append([envelope()]))
        await store.close()
    assert [each for each in opened() if str(path.parent) in each] == []
    assert len(opened()) <= len(before) + 1


async def test_closing_a_store_whose_file_was_replaced_leaves_the_new_one_alone(path: Path, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    new = SqliteStore(f"sqlite://{tmp_path}/new/shop.db")
    await new.open()
    await new.write(Append([envelope(id="new")]))
    old = SqliteStore(f"sqlite://{path}")
    await old.open()
    await old.write(Append([envelope()]))
    for name in ("shop.db", "shop.db-wal", "shop.db-shm"):  # with a WAL that was not written back
        shutil.copy(tmp_path / "new" / name, path.with_name(name + ".new"))
        path.with_name(name + ".new").replace(path.with_name(name))
    with pytest.raises(StoreGone):
        await old.write(Append([envelope()]))
    await old.close()
    await new.close()
    assert ids(str(path)) == [("new",)]


@pytest.mark.bad_input(70)
async def test_an_older_copy_put_over_the_open_file_is_noticed(store: SqliteStore, path: Path) -> None:
    await store.write(Append([envelope()]))
    await store.write(Append([envelope()]))
    connection = sqlite3.connect(path)  # the same file, with less in it
    connection.execute("DELETE FROM tidings_log WHERE position > 1")
    connection.commit()
    connection.close()
    for _ in range(3):
        with pytest.raises(StoreGone, match="position 2"):
            await store.write(Append([envelope()]))
        with pytest.raises(StoreGone, match="position 2"):
            await store.write(Append([envelope(stream="a:1")]))


@pytest.mark.bad_input(71)
async def test_a_checkpoint_beyond_the_log_is_refused_with_a_cure(store: SqliteStore, path: Path) -> None:
    await store.write(Append([envelope(), envelope()]))
    epochs = await claimed(store)
    await store.write(Settle(GROUP, epochs, checkpoint=2))
    await store.close()
    connection = sqlite3.connect(path)
    connection.execute("DELETE FROM tidings_log WHERE position > 1")
    connection.commit()
    connection.close()
    await store.open()
    with pytest.raises(WrongStore, match="finished position 2, but the log ends at 1") as caught:
        await store.write(joining())
    assert "backup" in caught.value.cure


async def test_a_damaged_file_is_named(path: Path) -> None:
    store = SqliteStore(f"sqlite://{path}")
    await store.open()
    for _ in range(20):
        await store.write(Append([envelope(data=LARGE) for _ in range(3)]))
    await store.close()
    half = path.stat().st_size // 8192 * 4096  # whole pages: half of one may still look like one
    with path.open("r+b") as file:
        file.seek(half)
        file.write(os.urandom(half))
    await store.open()
    with pytest.raises(StoreGone, match=r"shop\.db"):
        await store.read(0, 100, 100)
    with pytest.raises(StoreGone, match=r"shop\.db"):
        await store.write(Append([envelope() for _ in range(100)]))
    await store.close()
