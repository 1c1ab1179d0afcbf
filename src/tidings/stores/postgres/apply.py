"""Operations to steps, by type; and which of them share a commit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tidings.core.operations import (
    Append,
    Appended,
    Beat,
    Claim,
    Fire,
    Join,
    Op,
    Redrive,
    Repair,
    Rewind,
    Seed,
    Settle,
    Ship,
)
from tidings.errors import TidingsError
from tidings.stores.postgres import groups, held, leases, log, outbox
from tidings.stores.postgres.steps import Statement, Steps

BEGIN: Statement = ("BEGIN", ())
COMMIT: Statement = ("COMMIT", ())
_QUICKLY: Statement = ("SET LOCAL synchronous_commit = off", ())

APPLY: dict[type, Callable[[Any], Steps[Any]]] = {
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


def is_shared(op: Op) -> bool:
    """True where an operation can share a commit and its round trip with others, and be sent again."""
    if type(op) is Append:
        return op.due is None
    return type(op) is Settle and not op.later


def is_durable(op: Op) -> bool:
    """False where the operation must survive the process but not the machine.

    Leases need not: a server that lost power comes back with older ones, which are as good.
    """
    if type(op) is Settle:
        return op.durable
    return type(op) is not Claim and type(op) is not Beat


def alone(op: Op) -> Steps[Any]:
    """Apply one operation in a transaction of its own."""
    yield [BEGIN] if is_durable(op) else [BEGIN, _QUICKLY]
    result = yield from APPLY[type(op)](op)
    yield [COMMIT]
    return result


def together(ops: Sequence[Op]) -> Steps[list[Any]]:
    """Apply operations that share a commit, in one round trip.

    Returns:
        The result of each; an append that was refused has its error there, and the others are kept. What a settlement
        is refused for is raised, and nothing is kept.
    """
    if len(ops) == 1 and type(ops[0]) is Append and log.is_plain(ops[0]):
        return [(yield from log.append_plain(ops[0]))]
    settling: list[Statement] = []
    appends: list[Append] = []
    strict = False
    for op in ops:
        if type(op) is Append:
            log.check(op)
            if op.envelopes:
                appends.append(op)
        elif type(op) is Settle:
            settling += held.settling(op)
            if op.append:
                appends.append(Append(op.append))
                strict = True
    # The log first: everybody takes its lock before those of slots, so that nobody waits for each other.
    appending = [log.appending(appends, strict=strict)] if appends else []
    begin: list[Statement] = []
    if settling:  # a lone append is a transaction by itself
        begin = [BEGIN] if any(map(is_durable, ops)) else [BEGIN, _QUICKLY]
    results = yield [*begin, *appending, *settling, *([COMMIT] if begin else ())]
    found = iter(log.appended(appends, results[len(begin)].rows)) if appends else iter(())
    return [_outcome(op, found) for op in ops]


def _outcome(op: Op, found: Any) -> Appended | TidingsError:
    messages = op.envelopes if type(op) is Append else op.append if type(op) is Settle else ()
    result: Appended | TidingsError = next(found) if messages else log.NOTHING
    return result
