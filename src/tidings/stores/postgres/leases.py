"""Leases: which worker may handle which slots of a group, and who lives.

Times come from the database's clock alone, so that no worker's own clock matters.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from tidings.core.operations import Beat, Claim, Lease
from tidings.stores.postgres.held import group_row
from tidings.stores.postgres.steps import Statement, Steps, rows

NOW = "extract(epoch FROM clock_timestamp())::double precision"
OVER = f"(expires <= {NOW} OR expires > {NOW} + lease)"
"""True of a lease that has ended. One that ends later than its own length from now is from before a restored backup."""


def claim(op: Claim) -> Steps[Mapping[int, Lease]]:
    """Renew, hand back and take slots of a group; every change of owner raises the slot's epoch."""
    yield from group_row(op.group, "name", lock="FOR UPDATE")  # one claim of a group at a time
    found = yield from rows(
        f"SELECT slot, epoch, owner, {OVER}, checkpoint, started FROM tidings_slot WHERE name = $1 ORDER BY slot",
        op.group,
    )
    held: dict[int, Lease] = {}
    free: list[tuple[int, Lease]] = []
    for slot, epoch, owner, over, checkpoint, started in found:
        if owner == op.member:
            if slot not in op.give:
                held[slot] = Lease(epoch, checkpoint, started)
        elif (owner is None or over) and slot not in op.give:
            free.append((slot, Lease(epoch + 1, checkpoint, started)))
    held.update(free[: max(0, op.want - len(held))])
    statements: list[Statement] = []
    if op.give:
        sql = "UPDATE tidings_slot SET owner = NULL, expires = 0 WHERE name = $1 AND slot = ANY ($2) AND owner = $3"
        statements.append((sql, (op.group, sorted(op.give), op.member)))
    if held:
        slots = sorted(held)
        sql = (
            f"UPDATE tidings_slot AS known SET epoch = taken.epoch, owner = $1, expires = {NOW} + $2, lease = $2 "
            "FROM unnest($3::integer[], $4::bigint[]) AS taken (slot, epoch) "
            "WHERE known.name = $5 AND known.slot = taken.slot RETURNING known.slot, known.checkpoint, known.started"
        )
        statements.append((sql, (op.member, op.lease, slots, [held[slot].epoch for slot in slots], op.group)))
    if not statements:
        return held
    results = yield statements
    for slot, checkpoint, started in results[-1].rows:  # what its last owner committed while we waited for its row
        held[slot] = Lease(held[slot].epoch, checkpoint, started)
    return dict(sorted(held.items()))


def owner_of(group: str) -> Steps[str | None]:
    """A worker that lives and holds a slot of the group, or None."""
    found = yield from rows(
        f"SELECT owner FROM tidings_slot WHERE name = $1 AND owner IS NOT NULL AND NOT {OVER} LIMIT 1", group
    )
    return str(found[0][0]) if found else None


def beat(op: Beat) -> Steps[Mapping[str, Sequence[str]]]:
    """Note that a worker lives and renew its leases, or that it leaves; returns the members of its app that live."""
    mine = "SELECT FROM tidings_slot WHERE owner = $1 ORDER BY name, slot FOR NO KEY UPDATE"
    statements: list[Statement] = [(mine, (op.member,))]  # in the order in which everybody takes them
    if op.leaving:
        statements += [
            ("DELETE FROM tidings_member WHERE member = $1", (op.member,)),
            ("UPDATE tidings_slot SET owner = NULL, expires = 0 WHERE owner = $1", (op.member,)),
        ]
    else:
        renew = (
            f"INSERT INTO tidings_member VALUES ($1, $2, {NOW} + $3, $3, $4) ON CONFLICT (app, member) "
            "DO UPDATE SET expires = excluded.expires, lease = excluded.lease, groups = excluded.groups"
        )
        statements += [
            (renew, (op.app, op.member, op.lease, json.dumps(list(op.groups)))),
            (f"UPDATE tidings_slot SET expires = {NOW} + $1, lease = $1 WHERE owner = $2", (op.lease, op.member)),
        ]
    statements += [
        (f"DELETE FROM tidings_member WHERE app = $1 AND member <> $2 AND {OVER}", (op.app, op.member)),
        ("SELECT member, groups FROM tidings_member WHERE app = $1 ORDER BY member", (op.app,)),
    ]
    results = yield statements
    return {member: json.loads(groups) for member, groups in results[-1].rows}
