"""Words of SQL that stores look for."""

from __future__ import annotations

from functools import lru_cache


@lru_cache(maxsize=10_000)
def first_word(sql: str) -> str:
    """The first word of a statement in capitals, comments left out."""
    rest = sql.lstrip(" \t\r\n;")
    while rest.startswith(("--", "/*")):
        end = "\n" if rest.startswith("--") else "*/"
        rest = rest.partition(end)[2].lstrip(" \t\r\n;")
    word = ""
    for letter in rest:
        if not letter.isalpha():
            break
        word += letter
    return word.upper()
