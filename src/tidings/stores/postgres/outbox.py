"""Moving the outbox to the log."""

from __future__ import annotations

from tidings.core.operations import Append, Appended, Held, Settle, Ship
from tidings.core.outbox import COLUMNS, MOST_BYTES, refused, taken_of
from tidings.errors import TidingsError
from tidings.stores.postgres.held import settling
from tidings.stores.postgres.log import NOTHING, appended, appending
from tidings.stores.postgres.steps import Statement, Steps

# A statement of its own, before the one that takes: that one then sees what the last holder of the lock has removed.
_LOCK = "SELECT pg_try_advisory_xact_lock(1953063785, 'tidings_outbox'::regclass::oid::integer)"  # "tidi"
_TAKE = f"""
    SELECT number, {", ".join(COLUMNS)} FROM (
        SELECT *, sum(octet_length(envelope)) OVER (ORDER BY number) - octet_length(envelope) AS before
        FROM (SELECT * FROM tidings_outbox ORDER BY number LIMIT $1) AS oldest
    ) AS measured
    WHERE before < {MOST_BYTES} ORDER BY number
"""


def ship(op: Ship) -> Steps[Appended]:
    """Move rows to the log, oldest first.

    What commits late has a lower number than what was moved before it. It is still there, and so it is moved next.
    """
    locked, found = yield [(_LOCK, ()), (_TAKE, (op.limit,))]
    if not locked.rows[0][0] or not found.rows:
        return NOTHING
    numbers = [row[0] for row in found.rows]
    taken = [taken_of(*row) for row in found.rows]
    appends = [Append((each,)) for each in taken if not isinstance(each, Held)]
    removing: Statement = ("DELETE FROM tidings_outbox WHERE number = ANY ($1)", (numbers,))
    stored = yield [removing, *([appending(appends, strict=False)] if appends else ())]
    outcomes = iter(appended(appends, stored[1].rows) if appends else ())
    positions = []
    for number, each in zip(numbers, taken, strict=True):
        if isinstance(each, Held):
            held = each
        elif isinstance(outcome := next(outcomes), TidingsError):
            held = refused(each, number, outcome.what)
        else:
            positions.append(outcome.position)
            continue
        yield settling(Settle(held.group, {}, hold=(held,)))
        positions.append(0)
    return Appended(tuple(positions))
