"""Replicas: a local table of another service's state, so that its records are at hand while it is down."""

# ruff: noqa: S608 - table and column names are checked identifiers; values are always bound

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Generic, TypeVar

from tidings.core.envelope import TOMBSTONES, Envelope
from tidings.core.fingerprint import fingerprint
from tidings.core.message import Gone, MessageType, check_name, message_type
from tidings.core.operations import CurrentState
from tidings.core.retry import Retry
from tidings.core.schema import check_table
from tidings.core.signature import location
from tidings.core.subscription import Subscription
from tidings.core.transaction import Transaction
from tidings.errors import BadDeclaration, Unreadable
from tidings.patterns.columns import Columns

S = TypeVar("S")


class Replica(Generic[S]):
    """A local copy of the states of one type, one row for each key, kept up to date from the owner's messages.

    Versions come from the owner: an older one never overwrites a newer one, nor brings back a record that is gone.
    Read it with `tx.get(replica, key)`, `app.get(replica, key)` or plain SQL. Columns are the fields: str, datetime,
    Decimal, UUID and enums of str as TEXT; int and bool as INTEGER; float as REAL; bytes as BLOB; everything else as
    JSON in TEXT.

    Args:
        state: The state class of the owner (declared with `@state`).
        table: Name of the table; the state's topic if not given ("crm.customers" becomes crm_customers).
        name: Names the group; the table if not given.
        retry: How failures are tried again.

    Raises:
        NotAMessage: The class is no message.
        BadDeclaration: It is no state, or a name cannot be used.
    """

    def __init__(
        self, state: type[S], *, table: str | None = None, name: str | None = None, retry: Retry | None = None
    ) -> None:
        self.state = message_type(state)
        if self.state.kind != "state":
            msg = f"Replica({self.state.name}): the class is declared with @{self.state.kind}"
            raise BadDeclaration(msg, "replicas keep states; for events write a Projection")
        self.table = table or re.sub(r"\W", "_", str(self.state.topic))
        check_table(f"{self.table}_gone", f"Replica({self.state.name}, table=...)")
        self.name = check_name(name or self.table, f"Replica({self.state.name})")
        self._retry = retry or Retry()

    def __repr__(self) -> str:
        return f"Replica({self.state.name}, table={self.table!r})"

    @cached_property
    def columns(self) -> Columns:
        """The columns of its table, without the ones that keep order.

        Raises:
            BadDeclaration: A field cannot be a column.
        """
        return Columns(self.state, f"replica {self.name}")

    @cached_property
    def schema(self) -> str:
        """The SQL of its two tables: records, and the versions at which records went."""
        columns, key = self.columns, self.columns.key
        lines = [column.sql + (" PRIMARY KEY" if column is key else "") for column in columns.columns]
        lines += ["_version INTEGER NOT NULL", "_time INTEGER NOT NULL", "_position INTEGER NOT NULL"]
        records = f'CREATE TABLE "{self.table}" (\n  {f",{chr(10)}  ".join(lines)}\n)'
        return f'{records};\nCREATE TABLE "{self.table}_gone" (key TEXT PRIMARY KEY, version INTEGER NOT NULL)'

    async def apply(self, message: S | Gone, tx: Transaction, envelope: Envelope) -> None:
        """Take over one state, or that it is gone. Doing it again, or later than a newer one, changes nothing."""
        version = envelope.version if envelope.version is not None else envelope.position
        if isinstance(message, Gone):
            await self._bury([(str(message.key), version)], tx)
        else:
            await tx.execute(self._put, *self._values(message, version, envelope.time, envelope.position))

    async def seed(self, states: Sequence[CurrentState], tx: Transaction) -> None:
        """Take over a page of the owner's current states, tombstones included, in one go.

        Raises:
            Unreadable: One of them cannot be read.
        """
        decode = self.columns.decode
        gone = [(each.key, each.version) for each in states if each.data in TOMBSTONES]
        there = [each for each in states if each.data not in TOMBSTONES]
        live = [self._values(decode(each.data), each.version, each.time, each.position) for each in there]
        if live:
            await tx.executemany(self._put, live)
        await self._bury(gone, tx)

    async def read(self, key: str, tx: Transaction) -> S | None:
        """The record of a key, or None."""
        try:
            value = self.columns.key_of(key)
        except ValueError:
            return None  # no number names no record
        row = (await tx.execute(self._get, value)).fetchone()
        return None if row is None else self.columns.record(row)

    def subscriptions(self) -> Sequence[Subscription]:
        """One group, seeded from the owner's current states when it is new."""
        return (
            Subscription(
                group=self.name,
                types=(self.state,),
                handler=self.apply,
                where=f"{self!r} of {location(self.state.cls)}",
                takes=("tx", "envelope"),
                retry=self._retry,
                schema=self.schema,
                fingerprint=fingerprint((self.schema,), ()),
                tombstones=True,
                bootstrap=self.state,
            ),
        )

    def message_types(self) -> tuple[MessageType, ...]:
        """The state."""
        return (self.state,)

    @cached_property
    def _put(self) -> str:
        names = [f'"{column.name}"' for column in self.columns.columns] + ["_version", "_time", "_position"]
        key = f'"{self.columns.key.name}"'
        updates = ", ".join(f"{name} = excluded.{name}" for name in names if name != key)
        return (
            f'INSERT INTO "{self.table}" ({", ".join(names)}) SELECT {", ".join("?" * len(names))} '
            f'WHERE NOT EXISTS (SELECT 1 FROM "{self.table}_gone" WHERE key = ? AND version >= ?) '
            f'ON CONFLICT ({key}) DO UPDATE SET {updates} WHERE excluded._version > "{self.table}"._version'
        )

    @cached_property
    def _get(self) -> str:
        names = ", ".join(f'"{column.name}"' for column in self.columns.columns)
        return f'SELECT {names} FROM "{self.table}" WHERE "{self.columns.key.name}" = ?'

    def _values(self, record: Any, version: int, time: int, position: int) -> list[Any]:
        return [*self.columns.row(record), version, time, position, self.state.key_of(record), version]

    async def _bury(self, gone: Sequence[tuple[str, int]], tx: Transaction) -> None:
        if not gone:
            return
        keep = (
            f'INSERT INTO "{self.table}_gone" (key, version) VALUES (?, ?) ON CONFLICT (key) DO UPDATE '
            f'SET version = excluded.version WHERE excluded.version > "{self.table}_gone".version'
        )
        await tx.executemany(keep, gone)
        drop = f'DELETE FROM "{self.table}" WHERE "{self.columns.key.name}" = ? AND _version <= ?'
        await tx.executemany(drop, [(self._key(key), version) for key, version in gone])

    def _key(self, key: str) -> str | int:
        try:
            return self.columns.key_of(key)
        except ValueError as error:
            msg = f"{self.state.name} has no record {key!r}: its keys are whole numbers"
            raise Unreadable(msg, "have its owner send it with such a key") from error
