"""`tidings migrate`: which schema a store has, what is pending, and what leads there."""

import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from tests.scenarios.cli.conftest import everywhere, sql, store_of
from tests.scenarios.cli.terminal import Done, settings, tidings
from tests.unit.stores.test_migrate import with_second_version

NEXT = """
import sys
from pathlib import Path
from tidings.stores import migrate
from tidings.ops.cli import main
migrate.SQL = Path(sys.argv[1])
main(sys.argv[2:])
"""


def next_tidings(*arguments: object, cwd: Path) -> Done:
    """Run a command of a tidings that knows a second version of the schema."""
    statements = cwd.parent / "sql"
    if not statements.exists():
        with_second_version(statements)
    command = [sys.executable, "-c", NEXT, statements, *arguments]
    done = subprocess.run(command, cwd=cwd, env=settings(), capture_output=True, text=True, check=False)
    return Done(done.returncode, done.stdout, done.stderr)


@everywhere
def test_up_makes_a_store_that_is_not_there_and_then_does_nothing(new_shop: Path) -> None:
    before = tidings("migrate", "status", cwd=new_shop)
    assert (before.code, before.out.splitlines()[0]) == (5, "no store yet; 1 pending: tidings migrate up")
    dry = tidings("migrate", "up", "--dry-run", "-o", "json", cwd=new_shop)
    assert dry.data == {"version": 0, "steps": [{"since": 0, "version": 1, "name": "create"}], "dry_run": True}
    assert tidings("status", cwd=new_shop).code == 3, "nothing was made"
    assert tidings("migrate", "up", "--store", store_of(new_shop), cwd=new_shop).code == 0
    assert tidings("migrate", "up", "-o", "json", cwd=new_shop).data["steps"] == []
    after = tidings("migrate", "status", "-o", "json", cwd=new_shop)
    assert (after.code, after.data) == (0, {"version": 1, "newest": 1, "pending": []})
    assert tidings("status", cwd=new_shop).code == 0


@everywhere
def test_an_older_store_is_refused_by_every_command_until_it_is_led_up(shop: Path) -> None:
    refused = next_tidings("status", cwd=shop)
    assert refused.code == 1
    assert "schema 1, this one needs 2" in refused.err
    assert "fix: stop its processes, then run `tidings migrate up`" in refused.err
    pending = next_tidings("migrate", "status", "-o", "json", cwd=shop)
    assert pending.code == 5
    assert pending.data["pending"] == [{"since": 1, "version": 2, "name": "take notes"}]
    done = next_tidings("migrate", "up", cwd=shop)
    assert (done.code, done.out) == (0, "schema 2: 1 migration run\n"), done.err
    assert sql(shop, "SELECT id FROM tidings_note") == [(7,)]
    assert next_tidings("status", cwd=shop).code == 0
    newer = tidings("migrate", "up", cwd=shop)
    assert newer.code == 1
    assert "pip install --upgrade tidings" in newer.err
    assert "this tidings knows 1 only" in tidings("migrate", "status", cwd=shop).out


@everywhere
def test_the_statements_can_be_run_by_somebody_else(new_shop: Path) -> None:
    script = tidings("migrate", "sql", cwd=new_shop).out
    if store_of(new_shop).startswith("sqlite:"):
        python = "import sqlite3, sys; sqlite3.connect('shop.db', isolation_level=None).executescript(sys.stdin.read())"
        subprocess.run([sys.executable, "-c", python], cwd=new_shop, input=script, text=True, check=True)
    else:
        with psycopg.connect(store_of(new_shop), autocommit=True) as connection:
            connection.execute(script)
    assert tidings("migrate", "status", "-o", "json", cwd=new_shop).data["pending"] == []
    assert tidings("migrate", "sql", cwd=new_shop).out == ""
    assert tidings("status", cwd=new_shop).code == 0


@pytest.mark.parametrize("command", ["status", "up", "sql"])
def test_a_store_in_memory_has_nothing_to_migrate(tmp_path: Path, command: str) -> None:
    done = tidings("migrate", command, "--store", "sqlite::memory:", cwd=tmp_path)
    assert done.code == 2
    assert "memory of one process" in done.err
