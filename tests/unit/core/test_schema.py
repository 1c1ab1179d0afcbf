"""A schema is taken apart into tables and statements; what a rebuild could not undo is refused."""

import sqlite3

import pytest

from tidings.core.schema import parse_schema
from tidings.errors import BadDeclaration


def test_tables_and_statements_are_found_whatever_the_layout() -> None:
    found = parse_schema(
        """
        -- balances; one row each
        create table balance (account_id TEXT PRIMARY KEY, note TEXT DEFAULT 'it''s; fine' /* ; */, x INT CHECK (x<=3));
        CREATE UNIQUE INDEX by_note ON balance (note);
        CREATE TABLE "log book" (x)
        """.replace('"log book"', '"log_book"'),
        "projection p",
    )
    assert found.tables == ("balance", "log_book")
    assert len(found.statements) == 3
    with sqlite3.connect(":memory:") as connection:
        for statement in found.statements:
            connection.execute(statement)
        connection.execute("INSERT INTO balance (account_id, x) VALUES ('a', 3)")
        assert connection.execute("SELECT note FROM balance").fetchone() == ("it's; fine",)


def test_layout_and_comments_do_not_change_the_statements() -> None:
    one = parse_schema("CREATE TABLE a (x TEXT,y BLOB DEFAULT x'00', z REAL DEFAULT 1.5);", "p")
    two = parse_schema("CREATE TABLE a(\n x TEXT, -- the x\n y BLOB DEFAULT x'00',z REAL DEFAULT 1.5\n)", "p")
    assert one == two


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        ("", "creates no table"),
        (" -- nothing\n;;", "creates no table"),
        ("CREATE INDEX i ON a (x)", "an index on a"),
        ("CREATE INDEX i", "an index on nothing"),
        ("CREATE TABLE a (x); DROP TABLE b", "holds DROP TABLE b"),
        ("INSERT INTO a VALUES (1)", "holds INSERT INTO a"),
        ("CREATE TABLE IF NOT EXISTS a (x)", "IF NOT EXISTS"),
        ("CREATE TEMP TABLE a (x)", "holds CREATE TEMP TABLE"),
        ("CREATE VIEW a AS SELECT 1", "holds CREATE VIEW a"),
        ("CREATE TABLE a AS SELECT 1", "lists no columns"),
        ("CREATE TABLE main.a (x)", "lists no columns"),
        ("CREATE TABLE", "lists no columns"),
        ("CREATE TABLE a (x); CREATE TABLE A (y)", "the table A twice"),
        ('CREATE TABLE "a b" (x)', "'a b' cannot name a table"),
        ("CREATE TABLE sqlite_a (x)", "cannot name a table"),
        ("CREATE TABLE tidings_a (x)", "cannot name a table"),
        ("CREATE TABLE 'a' (x)", "cannot name a table"),
        ("CREATE TABLE é (x)", "cannot name a table"),
        ("CREATE TABLE a (x DEFAULT 'y)", "never closed"),
    ],
)
def test_what_cannot_be_dropped_and_created_again_is_refused(sql: str, words: str) -> None:
    with pytest.raises(BadDeclaration) as caught:
        parse_schema(sql, "projection p")
    assert words in str(caught.value)
    assert "projection p" in caught.value.what
    assert caught.value.cure


def test_a_schema_is_text() -> None:
    with pytest.raises(BadDeclaration, match="is a NoneType"):
        parse_schema(None, "projection p")  # type: ignore[arg-type]
