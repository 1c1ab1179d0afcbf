"""What happens to a store behind the back of those who use it: killed while it is made, taken away, put back older."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.scenarios.bad_input.telling import Order, refusal, running, until
from tidings import App
from tidings.stores import migrate


def dies_at(statement: int, url: str) -> bool:
    """Whether a process that makes the store and is killed before this statement of the schema got that far."""
    child = os.fork()
    if child == 0:
        whole = migrate.statements

        def cut(script: str) -> Iterator[str]:
            for number, each in enumerate(whole(script)):
                if number == statement:
                    os.kill(os.getpid(), signal.SIGKILL)
                yield each
            if statement < 0:  # everything is written, nothing is committed
                os.kill(os.getpid(), signal.SIGKILL)

        migrate.statements = cut
        with App(url).blocking():
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


@pytest.mark.bad_input(69)
def test_a_kill_while_the_store_is_made_leaves_one_that_the_next_one_makes(tmp_path: Path) -> None:
    statement = -1
    while dies_at(statement, url := f"sqlite:{tmp_path}/shop{statement + 1}.db"):
        with App(url).blocking() as b:
            assert b.publish(Order("a")) == 1
        statement += 1
    assert statement > 5, "there is a schema to be killed in"
    with App(url).blocking() as b:
        assert b.publish(Order("a")) == 1, "and this one was not killed"


@pytest.mark.bad_input(69)
async def test_an_old_backup_put_back_is_whole_and_work_goes_on_from_there(url: str, tmp_path: Path) -> None:
    got: list[str] = []
    app, path, backup = App(url), tmp_path / "shop.db", tmp_path / "backup.db"

    @app.on(Order)
    async def note(order: Order) -> None:
        got.append(order.order_id)

    async with app:
        await app.publish(Order("a"))
        await app.run(until_idle=True)
    shutil.copy(path, backup)
    async with app:
        await app.publish(Order("b"), Order("c"))
        await app.run(until_idle=True)
    backup.replace(path)
    async with app:
        assert await app.store.head() == 1
        assert await app.publish(Order("d")) == 2
        await app.run(until_idle=True)
    assert sorted(got) == ["a", "b", "c", "d"]


def deleted(path: Path) -> None:
    path.unlink()


def renamed(path: Path) -> None:
    path.rename(path.with_name("old.db"))


def replaced(path: Path) -> None:
    shutil.copy(path, path.with_name("copy.db"))
    path.with_name("copy.db").replace(path)


def truncated(path: Path) -> None:
    os.truncate(path, 0)


def without_wal(path: Path) -> None:
    path.with_name("shop.db-wal").unlink()


@pytest.mark.bad_input(70)
@pytest.mark.parametrize("harm", [deleted, renamed, replaced, truncated, without_wal])
async def test_a_file_taken_from_under_a_running_app_stops_it_loudly_and_nothing_more_is_acknowledged(
    url: str, tmp_path: Path, harm: Callable[[Path], None]
) -> None:
    path, got = tmp_path / "shop.db", list[str]()
    app = App(url)

    @app.on(Order)
    async def note(order: Order) -> None:
        got.append(order.order_id)

    async with App(url) as before:
        await before.publish(Order("a"))
    async with running(app) as task:

        async def handled() -> bool:
            return bool(got)

        await until(handled)
        harm(path)
        with refusal("TID-504", "shop.db", "stop every process"):
            await app.publish(Order("b"))
        async with asyncio.timeout(10):
            with refusal("TID-504", "shop.db"):
                await task
    assert "b" not in got


@pytest.mark.bad_input(71)
@pytest.mark.parametrize(("more", "handled"), [([], ["e"]), (["--to", "1"], ["d", "e"])])
async def test_a_group_that_is_ahead_of_the_log_is_refused_with_the_remedy(
    url: str, tmp_path: Path, more: list[str], handled: list[str]
) -> None:
    app, got = App(url), list[str]()

    @app.on(Order)
    async def note(order: Order) -> None:
        got.append(order.order_id)

    async with app:
        await app.publish(Order("a"), Order("b"), Order("c"))
        await app.run(until_idle=True)
    with contextlib.closing(sqlite3.connect(tmp_path / "shop.db")) as database:
        database.execute("DELETE FROM tidings_log WHERE position > 1")
        database.commit()
    async with app:
        with refusal("TID-503", "shop.note", "finished position 3, but the log ends at 1", "tidings groups repair"):
            await app.run(until_idle=True)
        await app.publish(Order("d"))  # behind what is left
    repair = [sys.executable, "-m", "tidings", "groups", "repair", "--store", app.url, "-o", "ids", *more]

    async def told(*options: str) -> tuple[int, str]:
        command = [*repair, *options]
        done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False)
        assert not done.stdout or "has finished position 3, and the log ends at 2" in done.stderr
        return done.returncode, done.stdout

    assert await told() == (2, "")
    assert await told("--dry-run") == (0, "shop.note\n")
    assert await told("--yes") == (0, "shop.note\n")
    assert await told("--yes") == (0, "")
    async with app:
        await app.publish(Order("e"))
        await app.run(until_idle=True)
    assert sorted(got) == sorted(["a", "b", "c", *handled])
