"""How a store stands: what the status of an app and the doctor both look at.

The tables have the same names in every store; the SQL is what every database understands.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from tidings.core.operations import Backlog
from tidings.core.ports import Store


async def timers(store: Store) -> tuple[int, int | None]:
    """How many messages wait for their time, and when the first is due (microseconds since 1970 UTC, or None)."""
    rows = await store.query("SELECT count(*), min(due) FROM tidings_timer")
    return rows[0][0], rows[0][1]


async def outgoing(store: Store, now: float) -> tuple[int, float]:
    """How many messages are in the outbox, and the seconds that the oldest has been; `now` is seconds since 1970."""
    [(count, oldest)] = await store.query("SELECT count(*), min(time) FROM tidings_outbox")
    return count, max(0.0, now - oldest / 1e6) if count else 0.0


async def dead_ids(store: Store, group: str | None, key: str | None) -> list[int]:
    """Ids of dead letters, of a group and a key or of all, oldest first."""
    sql, params = _dead(group, key)
    return [id_ for (id_,) in await store.query(f"SELECT id {sql} ORDER BY id", params)]


async def dead_by_group(store: Store, group: str | None, key: str | None) -> dict[str, int]:
    """Number of dead letters of each group that has some."""
    sql, params = _dead(group, key)
    return dict(await store.query(f"SELECT name, count(*) {sql} GROUP BY name ORDER BY name", params))


async def dead_up_to(store: Store, last: int, group: str | None, key: str | None) -> int:
    """Number of dead letters with an id up to `last`."""
    sql, params = _dead(group, key)
    return int((await store.query(f"SELECT count(*) {sql} AND id <= ?", [*params, last]))[0][0])


def _dead(group: str | None, key: str | None) -> tuple[str, list[Any]]:
    sql = "FROM tidings_held WHERE state = 'dead'"
    params: list[Any] = []
    if group is not None:
        sql, params = f"{sql} AND name = ?", [*params, group]
    if key is not None:
        sql, params = f"{sql} AND key = ?", [*params, key]
    return sql, params


async def held_at(store: Store, positions: Sequence[int]) -> list[int]:
    """Ids of the held deliveries of the events at these places in the log."""
    found: list[int] = []
    for start in range(0, len(positions), 500):
        some = positions[start : start + 500]
        marks = ",".join("?" * len(some))
        rows = await store.query(f"SELECT id FROM tidings_held WHERE position IN ({marks}) ORDER BY id", some)  # noqa: S608
        found.extend(id_ for (id_,) in rows)
    return found


async def views(store: Store) -> dict[str, tuple[str | None, str]]:
    """Groups that fill tables of their own -> fingerprint of the code that filled them, and the tables as JSON."""
    rows = await store.query("SELECT name, fingerprint, tables FROM tidings_group WHERE tables <> '[]' ORDER BY name")
    return {name: (fingerprint, tables) for name, fingerprint, tables in rows}


def group_row(backlog: Backlog, alive: Collection[str] | None = None) -> dict[str, Any]:
    """How a group stands, as a row of output; of its owners those alive, where that is known."""
    owners = slots_by_owner(backlog.owners)
    return {
        "group": backlog.group,
        "handler": backlog.where,
        "checkpoint": backlog.checkpoint,
        "lag": backlog.lag,
        "oldest_seconds": round(backlog.oldest, 3),
        "retrying": backlog.retrying,
        "parked": backlog.parked,
        "dead": backlog.dead,
        "owners": {member: slots for member, slots in owners.items() if alive is None or member in alive},
    }


def slots_by_owner(owners: Mapping[int, str]) -> dict[str, list[int]]:
    """Member -> the slots whose lease it holds."""
    found: dict[str, list[int]] = {}
    for slot, member in sorted(owners.items()):
        found.setdefault(member, []).append(slot)
    return found
