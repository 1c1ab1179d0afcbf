"""Moving the outbox to the log."""

from __future__ import annotations

from tidings.core.operations import Append, Appended, Held, Settle, Ship
from tidings.core.outbox import MOST_BYTES, envelope_of, refused
from tidings.errors import TidingsError
from tidings.stores.postgres.held import settling
from tidings.stores.postgres.log import NOTHING, appended, appending
from tidings.stores.postgres.steps import Steps

# A statement of its own, before the one that takes: that one then sees what the last holder of the lock has removed.
_LOCK = "SELECT pg_try_advisory_xact_lock(1953063785, 'tidings_outbox'::regclass::oid::integer)"  # "tidi"
_TAKE = f"""
    SELECT number, envelope FROM (
        SELECT number, envelope, sum(octet_length(envelope)) OVER (ORDER BY number) - octet_length(envelope) AS before
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
    numbers = [number for number, _ in found.rows]
    appends = [Append((envelope_of(data),)) for _, data in found.rows]
    _, stored = yield [
        ("DELETE FROM tidings_outbox WHERE number = ANY ($1)", (numbers,)),
        appending(appends, strict=False),
    ]
    outcomes = appended(appends, stored.rows)
    dead: list[Held] = [
        refused(one.envelopes[0], number, outcome.what)
        for number, one, outcome in zip(numbers, appends, outcomes, strict=True)
        if isinstance(outcome, TidingsError)
    ]
    for held in dead:
        yield settling(Settle(held.group, {}, hold=(held,)))
    return Appended(tuple(0 if isinstance(outcome, TidingsError) else outcome.position for outcome in outcomes))
