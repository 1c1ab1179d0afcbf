"""What leads a store to a newer schema, tried with a second version that is not there yet."""

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tidings.core.migration import Schema
from tidings.core.operations import Append
from tidings.core.ports import Store
from tidings.errors import WrongStore
from tidings.runtime.connect import make_store
from tidings.stores import migrate
from tidings.testing.conformance.store.making import envelope

OURS = Path(str(migrate.SQL))
SECOND = """
-- A column more, and a table.
ALTER TABLE tidings_group ADD COLUMN note text;
CREATE TABLE tidings_note (id bigint PRIMARY KEY);    -- with a remark; that ends no statement
INSERT INTO tidings_note VALUES (7);
"""


def with_second_version(folder: Path) -> Path:
    """The statements of a tidings that knows two versions of the schema."""
    shutil.copytree(OURS, folder)
    for kind in ("sqlite", "postgres"):
        (folder / kind / "migrations").mkdir(exist_ok=True)
        (folder / kind / "migrations" / "0002-take-notes.sql").write_text(SECOND)
        with (folder / kind / "schema.sql").open("a") as schema:
            schema.write(SECOND)
    return folder


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of a store that does not exist yet, of each kind in turn."""
    if request.param == "sqlite":
        return f"sqlite:{tmp_path}/shop.db"
    found: str = request.getfixturevalue("newest_postgres_url")
    return f"{found}?schema=order"  # a word of SQL, so that quotes are not forgotten


@pytest.fixture
def upgrade(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Become the tidings that knows the second version."""
    folder = with_second_version(tmp_path / "sql")
    return lambda: monkeypatch.setattr(migrate, "SQL", folder)


def opened(url: str) -> Store:
    store = make_store(url)
    store.open_now()
    return store


def old(url: str) -> None:
    """A store of the first version with one event."""
    store = opened(url)
    store.write_now(Append([envelope()]))
    store.close_now()


def standing(url: str) -> tuple[int, int, list[str]]:
    schema = make_store(url).schema()
    return schema.version, schema.newest, [step.name for step in schema.pending]


def up(url: str) -> None:
    store = make_store(url)
    for step in store.schema().pending:
        store.migrate(step)


def notes(url: str) -> list[tuple[int]]:
    store = opened(url)
    try:
        tx = store.begin_now()
        rows = run(tx.execute("SELECT id FROM tidings_note")).fetchall()
        run(tx.execute("SELECT note FROM tidings_group"))
        run(tx.rollback())
        return rows
    finally:
        store.close_now()


def run(never_suspended):
    """The result of an awaitable of a transaction that blocks."""
    try:
        never_suspended.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("it was suspended")


def test_a_new_store_has_the_newest_schema_and_nothing_pending(url: str, upgrade) -> None:
    assert standing(url) == (0, 1, ["create"])
    upgrade()
    assert standing(url) == (0, 2, ["create"])
    opened(url).close_now()
    assert standing(url) == (2, 2, [])
    assert notes(url) == [(7,)]


@pytest.mark.proves("G32")
def test_an_older_store_is_refused_until_it_is_led_up_and_keeps_what_it_has(url: str, upgrade) -> None:
    old(url)
    upgrade()
    assert standing(url) == (1, 2, ["take notes"])
    with pytest.raises(WrongStore, match=r"older tidings.*`tidings migrate up`"):
        opened(url)
    up(url)
    assert standing(url) == (2, 2, [])
    assert notes(url) == [(7,)]
    store = opened(url)
    assert store.write_now(Append([envelope()])).position == 2
    store.close_now()


@pytest.mark.proves("G32")
def test_a_newer_store_is_refused(url: str, upgrade, monkeypatch: pytest.MonkeyPatch) -> None:
    upgrade()
    opened(url).close_now()
    monkeypatch.setattr(migrate, "SQL", OURS)
    assert standing(url) == (2, 1, [])
    with pytest.raises(WrongStore, match=r"newer tidings.*schema 2, this one knows 1.*upgrade tidings"):
        opened(url)


def test_a_step_that_somebody_else_took_is_not_taken_twice(url: str, upgrade) -> None:
    old(url)
    upgrade()
    [step] = make_store(url).schema().pending
    up(url)
    make_store(url).migrate(step)
    assert notes(url) == [(7,)]


class Deadly(list):
    """Statements whose reader is killed before the one at a place, or behind the last."""

    def __init__(self, statements, at: int) -> None:
        super().__init__(statements)
        self._at = at

    def __iter__(self) -> Iterator[str]:
        for number, each in enumerate([*super().__iter__(), None]):
            if number == self._at:
                os.kill(os.getpid(), signal.SIGKILL)
            if each is not None:
                yield each


def dies_at(at: int, work: Callable[[], None]) -> bool:
    """Whether a process that is killed before this statement of a step got that far."""
    child = os.fork()
    if child == 0:
        whole = migrate.schema_of

        def deadly(*arguments) -> Schema:
            schema = whole(*arguments)
            return schema._replace(
                pending=[step._replace(statements=Deadly(step.statements, at)) for step in schema.pending]
            )

        migrate.schema_of = deadly
        work()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


@pytest.mark.bad_input(69)
@pytest.mark.proves("G32")
def test_killed_at_any_statement_of_a_migration_the_same_command_goes_on(url: str, upgrade) -> None:
    old(url)
    upgrade()
    at = 0
    while dies_at(at, lambda: up(url)):
        assert standing(url) == (1, 2, ["take notes"]), "all of it was undone"
        at += 1
    assert at >= 5, "before each of three statements and the note, and before the commit"
    assert standing(url) == (2, 2, [])
    assert notes(url) == [(7,)]


def test_the_newest_schema_and_the_steps_to_it_make_the_same_tables(url: str, upgrade) -> None:
    old(url)
    upgrade()
    up(url)
    other = f"{url.partition('?')[0]}?schema=other" if url.startswith("postgresql") else url.replace("shop", "other")
    opened(other).close_now()
    assert columns(url) == columns(other)
    assert len(columns(url)) > 60


def columns(url: str) -> list[tuple[str, ...]]:
    """Table, column and type of all there is in a store."""
    store = opened(url)
    try:
        if url.startswith("sqlite"):
            ask = "SELECT t.name, c.name, c.type FROM sqlite_schema AS t, pragma_table_info(t.name) AS c ORDER BY 1, 2"
        else:
            ask = (
                "SELECT table_name, column_name, data_type FROM information_schema.columns "
                "WHERE table_schema = current_schema() ORDER BY 1, 2"
            )
        tx = store.begin_now()
        rows = run(tx.execute(ask)).fetchall()
        run(tx.rollback())
        return rows
    finally:
        store.close_now()


@pytest.mark.bad_input(69)
def test_killed_at_any_statement_while_the_store_is_made_the_next_one_makes_it(url: str) -> None:
    at = 0
    while dies_at(at, lambda: opened(url).close_now()):
        assert standing(url) == (0, 1, ["create"])
        at += 1 if at < 2 else 9  # they are many, and alike
    assert at > 5, "there is a schema to be killed in"
    assert standing(url) == (1, 1, [])
    old(url)
