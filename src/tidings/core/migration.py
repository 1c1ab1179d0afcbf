"""The schema of a store: which version it is, and the steps that lead to the newest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Migration(NamedTuple):
    """One step, taken in one transaction.

    Attributes:
        since: Version that the store has before; 0 where there is none yet.
        version: Version that it has afterwards.
        name: What it does.
        statements: SQL, in order; the last one notes the version.
    """

    since: int
    version: int
    name: str
    statements: Sequence[str]


class Schema(NamedTuple):
    """How the schema of a store stands.

    Attributes:
        version: 0 where there is no store yet.
        newest: The one that this tidings works with.
        pending: What leads there, in order.
    """

    version: int
    newest: int
    pending: Sequence[Migration]
