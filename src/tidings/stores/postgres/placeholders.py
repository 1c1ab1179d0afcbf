"""Placeholders: `?` in the SQL of handlers, $1, $2... for PostgreSQL."""

from __future__ import annotations

import re
from functools import lru_cache

_TOKEN = re.compile(
    r"""\b[eE]'(?:[^'\\]|''|\\.)*'|'(?:[^']|'')*'|"(?:[^"]|"")*"|--[^\n]*|/\*.*?\*/|\$(\w*)\$.*?\$\1\$|\?\?|\?""",
    re.DOTALL,
)


@lru_cache(maxsize=10_000)
def numbered(sql: str) -> str:
    """The statement with its placeholders numbered; `??` stands for an operator with a question mark."""
    count = 0

    def number(found: re.Match[str]) -> str:
        nonlocal count
        match found.group():
            case "?":
                count += 1
                return f"${count}"
            case "??":
                return "?"
            case other:
                return other

    return _TOKEN.sub(number, sql)
