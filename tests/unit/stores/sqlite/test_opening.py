"""What may be opened, and what is said about the rest."""

# ruff: noqa: ASYNC240, ASYNC222, PTH208 - the files are what is looked at

import contextlib
import os
import shutil
import sqlite3
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.stores.sqlite.processes import end, start, tell, told
from tidings.core.operations import Append
from tidings.errors import BadUrl, NotOpen, StoreUnavailable, TidingsError, WrongStore
from tidings.stores.sqlite import SqliteStore
from tidings.stores.sqlite.connection import network_of
from tidings.testing.conformance.store.making import envelope


async def refusal(path: Path) -> TidingsError:
    store = SqliteStore(f"sqlite://{path}")
    with pytest.raises(TidingsError) as caught:
        await store.open()
    assert str(path.name) in str(caught.value)
    assert caught.value.cure
    with pytest.raises(NotOpen):
        await store.head()
    return caught.value


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def test_only_the_user_may_read_the_files(store: SqliteStore, path: Path) -> None:
    await store.write(Append([envelope()]))
    files = {name: mode(path.with_name(name)) for name in os.listdir(path.parent)}
    assert files == {
        "shop.db": 0o600,
        "shop.db-wal": 0o600,
        "shop.db-shm": 0o600,
        "shop.db-lock": 0o600,
        "shop.db-bells": 0o700,
    }


async def test_the_file_says_whose_it_is(store: SqliteStore, path: Path) -> None:
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA application_id").fetchone() == (int.from_bytes(b"tidi"),)
    assert connection.execute("PRAGMA user_version").fetchone() == (1,)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


async def test_a_relative_url_is_relative_to_where_the_process_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = SqliteStore("sqlite:a b.db")
    await store.open()
    await store.close()
    assert (tmp_path / "a b.db").exists()


async def test_a_link_leads_to_the_same_turnstile_as_the_file_itself(store: SqliteStore, path: Path) -> None:
    link = path.parent / "elsewhere" / "link.db"
    link.parent.mkdir()
    link.symlink_to(path)
    other = SqliteStore(f"sqlite://{link}")
    await other.open()
    await store.write(Append([envelope()]))
    assert await other.head() == 1
    await other.close()
    assert os.listdir(link.parent) == ["link.db"]


@pytest.mark.parametrize("url", ["postgresql://localhost/shop", "sqlite://host/shop.db", "shop.db"])
def test_other_urls_are_refused(url: str) -> None:
    with pytest.raises(BadUrl):
        SqliteStore(url)


async def test_a_directory_is_refused(path: Path) -> None:
    path.mkdir()
    error = await refusal(path)
    assert type(error) is StoreUnavailable
    assert "directory" in error.what


async def test_a_missing_directory_is_named(path: Path) -> None:
    error = await refusal(path / "deeper" / "shop.db")
    assert type(error) is StoreUnavailable
    assert f"mkdir -p {path / 'deeper'}" in error.cure


async def test_a_link_to_nothing_names_where_it_leads(path: Path) -> None:
    path.symlink_to(path.with_name("missing") / "x.db")
    with pytest.raises(StoreUnavailable, match=r"missing/x\.db"):
        await SqliteStore(f"sqlite://{path}").open()


async def test_another_kind_of_file_is_refused_and_left_alone(path: Path) -> None:
    path.write_text("name,amount\n" * 1000)
    error = await refusal(path)
    assert type(error) is WrongStore
    assert path.read_text() == "name,amount\n" * 1000
    assert sorted(os.listdir(path.parent)) == ["shop.db", "shop.db-lock"]


@pytest.mark.parametrize(
    "sql", ["CREATE TABLE orders (id)", "PRAGMA application_id = 77", "PRAGMA user_version = 3; CREATE TABLE a (b)"]
)
async def test_the_database_of_another_program_is_refused_and_left_alone(path: Path, sql: str) -> None:
    connection = sqlite3.connect(path)
    connection.executescript(f"{sql}; VACUUM")
    connection.close()
    before = path.read_bytes()
    assert type(await refusal(path)) is WrongStore
    assert path.read_bytes() == before


async def test_a_newer_schema_asks_for_a_newer_tidings(path: Path) -> None:
    store = SqliteStore(f"sqlite://{path}")
    await store.open()
    await store.close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 2")
    connection.close()
    error = await refusal(path)
    assert type(error) is WrongStore
    assert "upgrade" in error.cure


async def test_an_empty_file_becomes_a_store(path: Path) -> None:
    path.touch()
    store = SqliteStore(f"sqlite://{path}")
    await store.open()
    assert await store.head() == 0
    await store.close()


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that others may look into; what happens meanwhile is done by a user without rights."""
    folder = Path(tempfile.mkdtemp(prefix="tidings-"))
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder)


@contextlib.contextmanager
def as_somebody_else() -> Iterator[None]:
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


async def test_a_directory_or_file_that_may_not_be_written_is_named(place: Path) -> None:
    path = place / "shop.db"
    place.chmod(0o555)
    with as_somebody_else():
        error = await refusal(path)
    assert "mode dr-xr-xr-x" in error.what
    assert f"make the directory {place} writable" in error.cure
    place.chmod(0o777)
    path.touch()
    path.chmod(0o444)
    with as_somebody_else():
        error = await refusal(path)
    assert "mode -r--r--r--" in error.what
    assert "make the file writable" in error.cure


async def test_opening_and_closing_twice_is_harmless(path: Path) -> None:
    store = SqliteStore(f"sqlite://{path}")
    await store.close()
    for _ in range(2):
        await store.open()
        await store.open()
        await store.write(Append([envelope()]))
        await store.close()
        await store.close()
    await store.open()
    assert await store.head() == 2
    await store.close()


async def test_before_opening_and_after_closing_nothing_works(path: Path) -> None:
    store = SqliteStore(f"sqlite://{path}")
    for _ in range(2):
        for use in (store.head, store.begin, lambda: store.write(Append([])), lambda: store.grown(0, 1)):
            with pytest.raises(NotOpen):
                await use()
        with pytest.raises(NotOpen):
            store.write_now(Append([]))
        with pytest.raises(NotOpen):
            store.begin_now()
        await store.open()
        await store.close()


async def test_a_store_in_memory_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, other = SqliteStore("sqlite::memory:"), SqliteStore("sqlite::memory:")
    await store.open()
    await other.open()
    await store.write(Append([envelope()]))
    assert (await store.head(), await other.head()) == (1, 0)
    folder = store._folder
    assert folder is not None
    assert mode(folder) == 0o700
    await store.close()
    await other.close()
    assert not folder.exists()


async def test_a_forked_child_cannot_use_the_store_and_harms_nothing(store: SqliteStore, path: Path) -> None:
    await store.write(Append([envelope()]))
    child = os.fork()
    if child == 0:
        refused = 0
        try:
            store.write_now(Append([envelope()]))
        except NotOpen:
            refused = 1
        own = SqliteStore(store.url)
        own.open_now()
        refused += own.write_now(Append([envelope()])).position
        own.close_now()
        os._exit(refused)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 1 + 2
    assert (await store.write(Append([envelope()]))).position == 3
    assert path.with_name("shop.db-wal").exists()


@pytest.mark.bad_input(69)
def test_eight_processes_may_create_one_store_at_once(path: Path) -> None:
    processes = [start("open_and_append", path) for _ in range(8)]
    assert [told(process) for process in processes] == ["ready"] * 8
    for process in processes:
        tell(process, "go")
    positions = sorted(int(told(process)) for process in processes)
    end(*processes)
    assert positions == list(range(1, 9))


async def test_a_lock_file_that_is_a_link_is_not_followed(path: Path) -> None:
    victim = path.with_name("victim")
    path.with_name("shop.db-lock").symlink_to(victim)
    assert type(await refusal(path)) is StoreUnavailable
    assert not victim.exists()


@pytest.mark.bad_input(33)
def test_network_file_systems_are_told_from_local_ones(tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(
        "/dev/vda / ext4 rw 0 0\n"
        f"server:/export {tmp_path}/shared nfs4 rw 0 0\n"
        f"tmpfs {tmp_path}/shared/fast tmpfs rw 0 0\n"
        f"server:/b {tmp_path}/with\\040blank cifs rw 0 0\n"
    )
    found = {
        name: network_of(tmp_path / name, mounts)
        for name in ("local", "shared", "shared/deeper", "shared/fast", "shared2", "with blank")
    }
    assert found == {
        "local": None,
        "shared": "nfs4",
        "shared/deeper": "nfs4",
        "shared/fast": None,
        "shared2": None,
        "with blank": "cifs",
    }
    assert network_of(tmp_path, tmp_path / "nothing") is None
