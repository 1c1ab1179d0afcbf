"""Leases: which worker may handle which slots of a group, and who lives.

Times come from the machine's monotonic clock, which all its processes share and nobody can set. It starts anew with
the machine, so a lease that ends later than its own length from now is from before a restart, and over.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from tidings.core.operations import Beat, Claim, Lease
from tidings.stores.sqlite.changes import Changes
from tidings.stores.sqlite.forgetting import forget
from tidings.stores.sqlite.held import group_row


def over(expires: float, lease: float, now: float) -> bool:
    """True when a lease has ended."""
    return expires <= now or expires > now + lease


def claim(changes: Changes, op: Claim) -> Mapping[int, Lease]:
    """Renew, hand back and take slots of a group; every change of owner raises the slot's epoch."""
    group_row(changes, op.group, "name")
    changes.presence.hold(op.member)
    connection = changes.connection
    now = changes.now()
    rows = connection.execute(
        "SELECT slot, epoch, owner, expires, lease, checkpoint, started FROM tidings_slot WHERE name = ? ORDER BY slot",
        (op.group,),
    ).fetchall()
    others = {row[2] for row in rows} - {op.member, None}
    gone = {other for other in others if changes.presence.gone(other)}
    held: dict[int, Lease] = {}
    free: list[tuple[int, Lease]] = []
    for slot, epoch, owner, expires, lease, checkpoint, started in rows:
        if owner == op.member:
            if slot not in op.give:
                held[slot] = Lease(epoch, checkpoint, started)
        elif (owner is None or owner in gone or over(expires, lease, now)) and slot not in op.give:
            free.append((slot, Lease(epoch + 1, checkpoint, started)))
    held.update(free[: max(0, op.want - len(held))])
    connection.executemany(
        "UPDATE tidings_slot SET owner = NULL, expires = 0 WHERE name = ? AND slot = ? AND owner = ?",
        [(op.group, slot, op.member) for slot in op.give],
    )
    connection.executemany(
        "UPDATE tidings_slot SET epoch = ?, owner = ?, expires = ?, lease = ? WHERE name = ? AND slot = ?",
        [(lease.epoch, op.member, now + op.lease, op.lease, op.group, slot) for slot, lease in held.items()],
    )
    if op.give:
        changes.grew = True
    return held


def owner_of(changes: Changes, group: str) -> str | None:
    """A worker that lives and holds a slot of the group, or None."""
    now = changes.now()
    rows = changes.connection.execute(
        "SELECT DISTINCT owner, expires, lease FROM tidings_slot WHERE name = ? AND owner IS NOT NULL", (group,)
    )
    for owner, expires, lease in rows.fetchall():
        if not over(expires, lease, now) and not changes.presence.gone(owner):
            return str(owner)
    return None


def beat(changes: Changes, op: Beat) -> Mapping[str, Sequence[str]]:
    """Note that a worker lives and renew its leases, or that it leaves; returns the members of its app that live."""
    connection = changes.connection
    now = changes.now()
    if op.leaving:
        _leave(changes, op.member)
        changes.presence.drop(op.member)
        changes.grew = True
    else:
        changes.presence.hold(op.member)
        connection.execute(
            "INSERT INTO tidings_member VALUES (?1, ?2, ?3, ?4, ?5) "
            "ON CONFLICT (app, member) DO UPDATE SET expires = ?3, lease = ?4, groups = ?5",
            (op.app, op.member, now + op.lease, op.lease, json.dumps(list(op.groups))),
        )
        connection.execute(
            "UPDATE tidings_slot SET expires = ?, lease = ? WHERE owner = ?", (now + op.lease, op.lease, op.member)
        )
    alive: dict[str, Sequence[str]] = {}
    rows = connection.execute(
        "SELECT member, expires, lease, groups FROM tidings_member WHERE app = ? ORDER BY member", (op.app,)
    ).fetchall()
    for member, expires, lease, groups in rows:
        if member != op.member and changes.presence.gone(member):
            _leave(changes, member)
            changes.presence.clear(member)
            changes.grew = True
        elif member != op.member and over(expires, lease, now):
            connection.execute("DELETE FROM tidings_member WHERE member = ?", (member,))
        else:
            alive[member] = json.loads(groups)
    forget(changes)
    return alive


def _leave(changes: Changes, member: str) -> None:
    changes.connection.execute("DELETE FROM tidings_member WHERE member = ?", (member,))
    changes.connection.execute("UPDATE tidings_slot SET owner = NULL, expires = 0 WHERE owner = ?", (member,))
