"""The tables a part brings: its SQL taken apart, so that a rebuild knows what to drop and create."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from tidings.errors import BadDeclaration

_TOKEN = re.compile(
    r"""(?P<space>\s+|--[^\n]*|/\*.*?\*/)
      |(?P<text>(?:\b[xX])?'(?:[^']|'')*')
      |(?P<quoted>"(?:[^"]|"")+"|`[^`]+`|\[[^\]]*\])
      |(?P<word>[^\W\d]\w*)
      |(?P<number>\d[\w.]*)
      |(?P<sign><=|>=|<>|!=|==|\|\||->>|->|<<|>>|.)""",
    re.VERBOSE | re.DOTALL,
)
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
_QUOTES, _END = "'\"`", ";"
_RESERVED = ("sqlite_", "pg_", "tidings_")
_CURE = "write CREATE TABLE and CREATE INDEX statements, separated by semicolons"


@dataclass(frozen=True)
class Schema:
    """What the SQL of a projection or replica creates.

    Attributes:
        tables: Names of its tables, in order, without quotes.
        statements: One statement each, without comments and semicolon, tokens separated by single spaces: equal for
            schemas that differ in layout only.
    """

    tables: tuple[str, ...]
    statements: tuple[str, ...]


def parse_schema(sql: str, owner: str) -> Schema:
    """Take the SQL of a part apart.

    Args:
        sql: CREATE TABLE and CREATE INDEX statements.
        owner: What it belongs to, for messages: "projection balances".

    Raises:
        BadDeclaration: It creates no table, holds another statement, or names a table in a way that is not portable.
    """
    tables: list[str] = []
    statements: list[str] = []
    for tokens in _statements(sql, owner):
        words = [token.upper() for token in tokens]
        if words[:2] == ["CREATE", "TABLE"]:
            tables.append(_table(tokens, words, tables, owner))
        elif words[:2] == ["CREATE", "INDEX"] or words[:3] == ["CREATE", "UNIQUE", "INDEX"]:
            _check_index(tokens, words, tables, owner)
        else:
            raise BadDeclaration(f"{owner}: its schema holds {' '.join(tokens[:3])} ...", _CURE)
        statements.append(" ".join(tokens))
    if not tables:
        raise BadDeclaration(f"{owner}: its schema creates no table", _CURE)
    return Schema(tuple(tables), tuple(statements))


def check_table(name: str, owner: str) -> str:
    """The table name itself, when it is an identifier that needs no quotes on any store.

    Raises:
        BadDeclaration: It is not.
    """
    if not _IDENTIFIER.fullmatch(name) or name.lower().startswith(_RESERVED):
        cure = f"use letters, digits and _, at most 63, not starting with a digit or {', '.join(_RESERVED)}"
        raise BadDeclaration(f"{owner}: {name[:80]!r} cannot name a table", cure)
    return name


def _statements(sql: str, owner: str) -> Iterator[list[str]]:
    if not isinstance(sql, str):
        raise BadDeclaration(f"{owner}: its schema is a {type(sql).__name__}", _CURE)
    tokens: list[str] = []
    for match in _TOKEN.finditer(sql):
        token = match.group()
        if match.lastgroup == "space":
            continue
        if match.lastgroup == "sign" and token in _QUOTES:
            raise BadDeclaration(f"{owner}: its schema has a {token} that is never closed", "close the quote")
        if token == _END:
            if tokens:
                yield tokens
            tokens = []
        else:
            tokens.append(token)
    if tokens:
        yield tokens


def _unquoted(token: str) -> str:
    return token[1:-1] if token[0] in '"`[' else token


def _table(tokens: list[str], words: list[str], tables: list[str], owner: str) -> str:
    if words[2:5] == ["IF", "NOT", "EXISTS"]:
        cure = "drop IF NOT EXISTS: the table is created when the group is new, and dropped by a rebuild"
        raise BadDeclaration(f"{owner} might take over a table that is not its own", cure)
    name = check_table(_unquoted(tokens[2]), owner) if len(tokens) > 2 else ""  # noqa: PLR2004 - after CREATE TABLE
    if words[3:4] != ["("]:
        raise BadDeclaration(f"{owner}: {' '.join(tokens[:5])} ... lists no columns", "write CREATE TABLE name (...)")
    if name.lower() in (table.lower() for table in tables):
        raise BadDeclaration(f"{owner} creates the table {name} twice", "keep one of the statements")
    return name


def _check_index(tokens: list[str], words: list[str], tables: list[str], owner: str) -> None:
    at = words.index("ON") + 1 if "ON" in words else len(tokens)
    table = _unquoted(tokens[at]) if at < len(tokens) else ""
    if table.lower() not in (known.lower() for known in tables):
        raise BadDeclaration(f"{owner}: an index on {table or 'nothing'}, which it does not create", _CURE)
