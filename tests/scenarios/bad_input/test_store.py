"""Stores that cannot be opened, or not like this: one message each, with path, owner or mode, and the remedy."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.scenarios.bad_input.telling import SECRET, Order, Ship, refusal, running
from tidings import App
from tidings.core.check import Check
from tidings.runtime.connect import make_store

NOBODY = 65_534


async def refuses(url: str, code: str, *words: str) -> None:
    """The store is not opened, neither by `async with` nor by the blocking face, with this message."""

    def blocking() -> None:
        with refusal(code, *words), App(url).blocking():
            pass

    with refusal(code, *words):
        async with App(url):
            pass
    await asyncio.to_thread(blocking)


@contextlib.contextmanager
def as_nobody() -> Iterator[None]:
    """A user without rights of its own, where the tests run as root."""
    user = os.geteuid()
    if user:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(user)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder that nobody may enter, too."""
    for folder in (tmp_path, *tmp_path.parents):
        if not folder.stat().st_mode & 0o001:
            folder.chmod(0o755)
    return tmp_path


@pytest.mark.bad_input(33)
async def test_three_slashes_are_absolute_and_none_are_relative_to_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    async with App("sqlite:shop.db"):
        assert (tmp_path / "shop.db").exists()
    await refuses("sqlite:///no-such-folder/shop.db", "TID-501", "/no-such-folder/shop.db", "mkdir -p /no-such-folder")
    (tmp_path / "file").touch()
    await refuses("sqlite:file/shop.db", "TID-501", f"{tmp_path}/file/shop.db", f"{tmp_path}/file is a file")
    await refuses("sqlite:missing/shop.db", "TID-501", f"{tmp_path}/missing/shop.db", f"mkdir -p {tmp_path}/missing")


@pytest.mark.bad_input(33)
async def test_a_directory_is_no_store(tmp_path: Path) -> None:
    await refuses(f"sqlite:{tmp_path}", "TID-501", f"{tmp_path} is a directory", "owner", "not of a directory")
    os.mkfifo(tmp_path / "pipe")
    await refuses(f"sqlite:{tmp_path}/pipe", "TID-501", f"{tmp_path}/pipe is no file", "owner", "path of a file")
    assert not (tmp_path / "pipe-lock").exists(), "nothing is put beside it"


@pytest.mark.bad_input(33)
async def test_what_may_not_be_written_is_told_with_mode_and_owner(place: Path) -> None:
    closed = place / "closed"
    closed.mkdir(mode=0o555)
    file = place / "open" / "shop.db"
    file.parent.mkdir()
    async with App(f"sqlite:{file}"):
        pass
    file.parent.chmod(0o777)
    file.chmod(0o444)
    with as_nobody():
        with refusal("TID-501", str(closed), "mode dr-xr-xr-x", "owner", "make the directory", "writable"):
            async with App(f"sqlite:{closed}/shop.db"):
                pass
        with refusal("TID-501", str(file), "mode -r--r--r--", "owner", "make the file writable"):
            async with App(f"sqlite:{file}"):
                pass


@pytest.mark.bad_input(33)
async def test_another_kind_of_file_and_another_program_s_database_are_left_as_they_are(tmp_path: Path) -> None:
    notes, other = tmp_path / "notes.txt", tmp_path / "other.db"
    notes.write_text("milk, bread\n" * 100)
    with contextlib.closing(sqlite3.connect(other)) as connection:
        connection.execute("CREATE TABLE orders (id)")
        connection.commit()
    before = other.read_bytes()
    await refuses(f"sqlite:{notes}", "TID-503", "notes.txt is not an SQLite database", "path of a new file")
    await refuses(f"sqlite:{other}", "TID-503", "database of another program", "1 tables", "a file of its own")
    assert notes.read_text() == "milk, bread\n" * 100
    assert other.read_bytes() == before


@pytest.mark.bad_input(33)
async def test_a_newer_schema_asks_for_a_newer_tidings(tmp_path: Path) -> None:
    async with App(f"sqlite:{tmp_path}/shop.db") as app:
        await app.publish(Order("a"))
    with contextlib.closing(sqlite3.connect(tmp_path / "shop.db")) as connection:
        connection.execute("PRAGMA user_version = 99")
    await refuses(f"sqlite:{tmp_path}/shop.db", "TID-503", "schema 99, this one knows", "pip install --upgrade tidings")


@pytest.mark.bad_input(33)
@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("", ["is empty", "environment variable"]),
        (" sqlite:shop.db", ["blanks"]),
        ("'sqlite:shop.db'", ["quotation marks"]),
        ("sqlite:~/shop.db", ["~ is not expanded"]),
        ("sqlite:shop.db?mode=rw", ["the option 'mode' is not known"]),
        (f"kafak://ada:{SECRET}@localhost", ["kafak:", "did you mean kafka:"]),
        (None, ["a URL is text, not NoneType"]),
    ],
)
async def test_a_url_that_cannot_be_used_is_told_without_its_password(url: Any, words: list[str]) -> None:
    with refusal("TID-104", *words):
        async with App(url, name="shop"):
            pass


@pytest.mark.bad_input(34)
def test_an_sqlite_with_the_wal_reset_bug_is_a_warning_of_the_doctor(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with App(url).blocking():
        pass

    def found(version: tuple[int, int, int]) -> Check:
        monkeypatch.setattr(sqlite3, "sqlite_version_info", version)
        return next(check for check in make_store(url).look() if check.name == "sqlite")

    assert (found((3, 51, 3)).verdict, found((3, 51, 2)).verdict) == ("ok", "warn")
    assert "3.51.2" in found((3, 51, 2)).found
    assert "3.51.3" in found((3, 51, 2)).fix


@pytest.mark.bad_input(34)
async def test_whatever_the_sqlite_nobody_checkpoints_outside_the_turnstile(url: str, tmp_path: Path) -> None:
    async with App(url) as app:
        await app.publish(Order("a"))
        assert (tmp_path / "shop.db-lock").exists(), "commits and checkpoints take turns at it"
        assert await app.store.query("PRAGMA wal_autocheckpoint") == [(0,)]


@pytest.mark.bad_input(36)
async def test_one_group_name_with_two_handlers_is_refused_with_both_identities(any_url: str) -> None:
    first, second = App(any_url, name="shop"), App(any_url, name="shop")

    @first.on(Order, group="mail")
    async def send_receipt(_order: Order) -> None: ...

    @second.on(Order, group="mail")
    async def write_invoice(_order: Order) -> None: ...

    async with running(first) as task, second:
        while not (await first.store.backlog()):
            await asyncio.sleep(0.01)
        while not (await first.store.backlog())[0].owners:
            await asyncio.sleep(0.01)
        with refusal("TID-304", "shop.mail", "send_receipt", "write_invoice", "runs now", "`group=`"):
            await second.run(until_idle=True)
        assert not task.done(), "the one that runs goes on"


@pytest.mark.bad_input(36)
async def test_two_groups_that_handle_one_command_are_refused_with_both_identities(any_url: str) -> None:
    first, second = App(any_url, name="shop"), App(any_url, name="depot")

    @first.on(Ship)
    async def by_lorry(_ship: Ship) -> None: ...

    @second.on(Ship)
    async def by_train(_ship: Ship) -> None: ...

    async with first, second:
        await first.run(until_idle=True)
        with refusal("TID-304", "Ship", "shop.by_lorry", "depot.by_train"):
            await second.run(until_idle=True)


@pytest.mark.bad_input(36)
async def test_apps_of_other_names_share_a_store_and_never_a_group(any_url: str) -> None:
    got: list[str] = []
    apps = [App(any_url, name=name) for name in ("shop", "depot")]
    for app in apps:

        @app.on(Order, group="mail")
        async def note(_order: Order) -> None:
            got.append("mail")

    async with apps[0], apps[1]:
        await apps[0].publish(Order("a"))
        for app in apps:
            await app.run(until_idle=True)
        assert {each.group for each in await apps[0].store.backlog()} == {"shop.mail", "depot.mail"}
    assert len(got) == 2
