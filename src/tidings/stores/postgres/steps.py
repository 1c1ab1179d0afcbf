"""Steps: what an operation says to the database, without saying it.

An operation is a generator. It yields statements that go out together, in one round trip, gets their results and in the
end returns its own. So it is written once for connections that suspend and for those that block.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")


class Encoded(msgspec.Struct, frozen=True, gc=False):
    """Values as they are sent, where finding out their types would take longer than sending them.

    Attributes:
        values: In PostgreSQL's own forms; of which types, the statement tells.
        formats: Of each: 0 for its text form, 1 for its binary form.
    """

    values: Sequence[bytes | None]
    formats: Sequence[int]


Statement = tuple[str, Sequence[Any] | Encoded | None]
"""SQL with $1, $2... and its values; None for one or more statements without, of which the last one's result counts."""


class Result(msgspec.Struct, frozen=True, gc=False):
    """What one statement gave.

    Attributes:
        rows: All of them.
        changed: Rows that it changed or returned.
        tag: PostgreSQL's own summary, such as "COMMIT".
    """

    rows: list[tuple[Any, ...]]
    changed: int
    tag: str | None


Steps = Generator[Sequence[Statement], Sequence[Result], T]


def rows(sql: str, *params: Any) -> Steps[list[tuple[Any, ...]]]:
    """The rows of one statement."""
    [result] = yield [(sql, params)]
    return result.rows


def value(sql: str, *params: Any) -> Steps[Any]:
    """The first value of the first row, None without a row."""
    found = yield from rows(sql, *params)
    return found[0][0] if found else None
