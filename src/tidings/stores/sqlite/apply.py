"""Operations to SQL, by type."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tidings.core.operations import Append, Beat, Claim, Fire, Join, Op, Redrive, Repair, Rewind, Seed, Settle, Ship
from tidings.errors import TidingsError
from tidings.stores.sqlite import groups, held, leases, log, outbox
from tidings.stores.sqlite.changes import Changes
from tidings.stores.sqlite.failures import explain, is_the_store_s

Outcome = tuple[Any, BaseException | None]
"""Result and error of an operation."""

APPLY: dict[type, Callable[[Changes, Any], Any]] = {
    Append: log.append,
    Fire: log.fire,
    Ship: outbox.ship,
    Settle: held.settle,
    Redrive: held.redrive,
    Join: groups.join,
    Seed: groups.seed,
    Rewind: groups.rewind,
    Repair: groups.repair,
    Claim: leases.claim,
    Beat: leases.beat,
}
"""Each checks first and writes then, so that a refusal leaves nothing behind; except those that are risky."""


def is_risky(op: Op) -> bool:
    """True where an operation may be refused half-way, so that it needs a savepoint.

    Schemas are SQL of others; a later append is checked against the timers set before it.
    """
    kind = type(op)
    return kind is Join or kind is Rewind or (kind is Settle and bool(op.later))  # type: ignore[union-attr]


def is_durable(op: Op) -> bool:
    """False where the operation must survive the process but not the machine.

    Leases need not: a machine that lost power has no worker left that could hold one.
    """
    kind = type(op)
    if kind is Settle:
        return bool(op.durable)  # type: ignore[union-attr]
    return kind is not Claim and kind is not Beat


def apply_alone(changes: Changes, op: Op) -> Any:
    """Apply an operation in a savepoint of its own: at once, and whatever fails leaves nothing behind."""
    changes.flush()
    connection = changes.connection
    function = APPLY[type(op)]
    careful = changes.careful
    connection.execute("SAVEPOINT tidings_op")
    try:
        try:
            result = function(changes, op)
            changes.flush()
        except Exception as error:
            if careful or isinstance(error, TidingsError) or is_the_store_s(error):
                raise
            connection.execute("ROLLBACK TO tidings_op")
            changes.forget()
            changes.careful = True
            result = function(changes, op)
            changes.flush()
    except BaseException:
        if connection.in_transaction:  # a full disk ends the transaction by itself
            connection.execute("ROLLBACK TO tidings_op")
            connection.execute("RELEASE tidings_op")
        changes.forget()
        raise
    finally:
        changes.careful = careful
    connection.execute("RELEASE tidings_op")
    return result


def apply_all(changes: Changes, ops: Sequence[Op]) -> list[Outcome]:
    """Apply operations in order, as many as possible at once; on an error nothing is known of any."""
    outcomes: list[Outcome] = []
    for op in ops:
        try:
            if type(op) is Append:  # most of what comes many at a time
                outcomes.append((log.append(changes, op), None))
            else:
                apply = apply_alone if is_risky(op) else APPLY[type(op)]
                outcomes.append((apply(changes, op), None))
        except TidingsError as error:
            outcomes.append((None, error))
    changes.flush()
    return outcomes


def apply_carefully(changes: Changes, ops: Sequence[Op], path: str) -> list[Outcome]:
    """Apply each operation in a savepoint of its own, looking ids up before inserting them.

    Args: path: of the store, for errors.
    """
    changes.careful = True
    outcomes: list[Outcome] = []
    for op in ops:
        try:
            outcomes.append((apply_alone(changes, op), None))
        except TidingsError as error:
            outcomes.append((None, error))
        except Exception as error:
            if is_the_store_s(error):
                raise
            outcomes.append((None, explain(error, path)))
    return outcomes
