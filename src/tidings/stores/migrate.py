"""Versions of a store's schema. `schema.sql` makes the newest one; files in `migrations/` lead there from older ones.

A file is called `0002-what-it-does.sql` after the version that it leads to, from the one before. `schema.sql` makes the
same tables at once, for a store that is new.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.resources import files
from importlib.resources.abc import Traversable

from tidings.core.migration import Migration, Schema
from tidings.errors import WrongStore

SQL: Traversable = files("tidings.stores") / "sql"
"""A folder for each kind of store."""
_SCRIPTS = ("schema.sql", "functions.sql")


def schema_of(kind: str, version: int, note: str, before: Sequence[str] = ()) -> Schema:
    """How a schema stands, and what is pending.

    Args:
        kind: "sqlite", "postgres".
        version: What the store says; 0 where there is none.
        note: The statement that notes a version, with {} for it.
        before: Statements that begin each step.
    """
    later = sorted(_later(kind))
    newest = later[-1][0] if later else 1
    if version == 0:
        whole = "\n".join(each.read_text("utf-8") for name in _SCRIPTS if (each := SQL / kind / name).is_file())
        steps = [(0, newest, "create", whole)]
    else:
        steps = [(number - 1, number, name, text) for number, name, text in later if number > version]
    pending = [
        Migration(since, number, name, [*before, *statements(text), note.format(number)])
        for since, number, name, text in steps
    ]
    return Schema(version, newest, pending)


def _later(kind: str) -> Iterator[tuple[int, str, str]]:
    folder = SQL / kind / "migrations"
    for each in folder.iterdir() if folder.is_dir() else ():
        number, _, name = each.name.removesuffix(".sql").partition("-")
        if each.name.endswith(".sql"):
            yield int(number), name.replace("-", " "), each.read_text("utf-8")


def check(schema: Schema, place: str) -> None:
    """Refuse a store of another version than this tidings works with.

    Raises:
        WrongStore: Says which one has to be upgraded: the store or tidings.
    """
    if schema.version > schema.newest:
        raise WrongStore(
            f"{place} was written by a newer tidings (schema {schema.version}, this one knows {schema.newest})",
            "upgrade tidings: pip install --upgrade tidings",
            schema=schema.version,
        )
    if schema.pending:
        raise WrongStore(
            f"{place} was written by an older tidings (schema {schema.version}, this one needs {schema.newest})",
            "stop its processes, then run `tidings migrate up`",
            schema=schema.version,
        )


def statements(script: str) -> Sequence[str]:
    """The statements of a script of ours: each ends with a semicolon at the end of a line, outside $$."""
    found: list[str] = []
    current: list[str] = []
    inside = False
    for line in script.splitlines():
        code = line.partition("--")[0].rstrip()
        inside ^= code.count("$$") % 2 == 1
        current.append(line)
        if code.endswith(";") and not inside:
            found.append("\n".join(current).strip())
            current = []
    return found
