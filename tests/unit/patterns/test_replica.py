"""A replica keeps one row for each key; versions of the owner decide what is newer."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from pathlib import Path
from typing import Any, Literal, NewType
from uuid import UUID

import attrs
import msgspec
import pydantic
import pytest

from tidings.core.codec import Codec
from tidings.core.envelope import Envelope
from tidings.core.message import Gone, Key, event, message_type, state
from tidings.core.operations import CurrentState
from tidings.errors import BadDeclaration, NotAMessage, Unreadable
from tidings.patterns.replica import Replica
from tidings.testing.given import TableTransaction, given


@state(topic="crm.customers")
class Customer:
    customer_id: Key[str]
    name: str
    age: int | None = None


customers = Replica(Customer)


class Tables:
    """The tables of a replica in a file, and a transaction on them."""

    def __init__(self, replica: Replica[Any], path: Path) -> None:
        self.replica = replica
        self.connection = sqlite3.connect(path)
        self.connection.executescript(replica.schema)
        self.tx = TableTransaction(self.connection)

    async def apply(self, message: Any, version: int | None, *, position: int = 1, time: int = 1) -> None:
        gone = isinstance(message, Gone)
        key = str(message.key) if gone else self.replica.state.key_of(message)
        envelope = Envelope(
            position=position,
            id="e",
            source="crm",
            type=self.replica.state.name,
            schema=1,
            topic=self.replica.state.topic,
            key=key,
            slot=0,
            stream=None,
            version=version,
            time=time,
            correlation=None,
            causation=None,
            traceparent=None,
            headers=None,
            data=b"",
        )
        await self.replica.apply(message, self.tx, envelope)

    def rows(self, sql: str = "SELECT * FROM crm_customers ORDER BY 1") -> list[tuple[Any, ...]]:
        return self.connection.execute(sql).fetchall()


@pytest.fixture
def tables(tmp_path: Path) -> Iterator[Tables]:
    found = Tables(customers, tmp_path / "replica.db")
    yield found
    found.connection.close()


def current(key: str, version: int, record: Customer | None, position: int = 1) -> CurrentState:
    data = Codec(customers.state).encode(record) if record else b""
    return CurrentState(key, version, position, 5, data)


# ---- what it declares ------------------------------------------------------------------------------------------------


def test_one_group_follows_the_state_and_is_seeded_first() -> None:
    (found,) = customers.subscriptions()
    assert (found.group, found.slots, found.takes, found.tombstones) == ("crm_customers", 16, ("tx", "envelope"), True)
    assert found.bootstrap is customers.state
    assert found.types == (customers.state,)
    assert found.schema == customers.schema
    assert found.fingerprint
    assert customers.message_types() == (customers.state,)


def test_table_and_name_can_be_chosen() -> None:
    replica = Replica(Customer, table="buyers", name="crm.buyers")
    assert (replica.table, replica.name) == ("buyers", "crm.buyers")
    assert Replica(Customer, table="buyers").name == "buyers"
    assert 'CREATE TABLE "buyers" (' in replica.schema


@pytest.mark.parametrize("table", ["a b", 'x"; DROP TABLE log', "1a", "sqlite_a", "é", "a" * 59, "a.b"])
def test_a_table_name_is_an_identifier(table: str) -> None:
    with pytest.raises(BadDeclaration, match="cannot name a table"):
        Replica(Customer, table=table)


def test_only_states_are_replicated() -> None:
    @event
    class Renamed:
        customer_id: Key[str]

    with pytest.raises(BadDeclaration, match="declared with @event"):
        Replica(Renamed)
    with pytest.raises(NotAMessage):
        Replica(str)


# ---- newer and older -------------------------------------------------------------------------------------------------


async def test_a_record_is_inserted_changed_and_removed(tables: Tables) -> None:
    await tables.apply(Customer("c", "Ada", 3), 1, position=7, time=9)
    assert tables.rows() == [("c", "Ada", 3, 1, 9, 7)]
    await tables.apply(Customer("c", "Eva"), 2, position=8, time=10)
    assert tables.rows() == [("c", "Eva", None, 2, 10, 8)]
    assert await tables.tx.get(customers, "c") == Customer("c", "Eva")
    await tables.apply(Gone(Customer, "c"), 3)
    assert tables.rows() == []
    assert await tables.tx.get(customers, "c") is None


async def test_an_older_version_changes_nothing(tables: Tables) -> None:
    await tables.apply(Customer("c", "new"), 2)
    await tables.apply(Customer("c", "old"), 1)
    await tables.apply(Customer("c", "other"), 2)
    await tables.apply(Gone(Customer, "c"), 1)
    assert await customers.read("c", tables.tx) == Customer("c", "new")


async def test_what_is_gone_does_not_come_back_but_may_be_created_anew(tables: Tables) -> None:
    await tables.apply(Gone(Customer, "c"), 3)
    await tables.apply(Customer("c", "old"), 2)
    await tables.apply(Customer("c", "same"), 3)
    await tables.apply(Gone(Customer, "c"), 1)
    await tables.apply(Customer("c", "old"), 2)
    assert tables.rows() == []
    await tables.apply(Customer("c", "anew"), 4)
    assert await customers.read("c", tables.tx) == Customer("c", "anew")


@pytest.mark.proves("G18")
async def test_any_order_with_repeats_ends_with_the_newest(tables: Tables) -> None:
    draw = random.Random(7)
    history = [
        (Customer("c", str(version)) if version % 3 else Gone(Customer, "c"), version) for version in range(1, 12)
    ]
    for _ in range(50):
        tables.connection.executescript("DELETE FROM crm_customers; DELETE FROM crm_customers_gone")
        for message, version in draw.sample(history, len(history)) + draw.choices(history, k=5):
            await tables.apply(message, version)
        assert await customers.read("c", tables.tx) == Customer("c", "11")


async def test_without_a_version_the_place_in_the_log_counts(tables: Tables) -> None:
    await tables.apply(Customer("c", "new"), None, position=5)
    await tables.apply(Customer("c", "old"), None, position=4)
    assert await customers.read("c", tables.tx) == Customer("c", "new")


# ---- seeding ---------------------------------------------------------------------------------------------------------


async def test_a_page_of_current_states_seeds_it_and_never_undoes_newer_messages(tables: Tables) -> None:
    await tables.apply(Customer("b", "live"), 5, position=50)
    await tables.apply(Gone(Customer, "d"), 6, position=60)
    page = [
        current("a", 1, Customer("a", "Ada")),
        current("b", 4, Customer("b", "stale")),
        current("c", 2, None),
        current("d", 5, Customer("d", "stale")),
    ]
    for _ in range(2):
        await customers.seed(page, tables.tx)
    await customers.seed([], tables.tx)
    await tables.apply(Customer("c", "stale"), 1)
    assert tables.rows("SELECT customer_id, name, _version FROM crm_customers ORDER BY 1") == [
        ("a", "Ada", 1),
        ("b", "live", 5),
    ]


async def test_a_damaged_current_state_is_unreadable(tables: Tables) -> None:
    with pytest.raises(Unreadable):
        await customers.seed([CurrentState("a", 1, 1, 1, b"{}")], tables.tx)


async def test_a_number_as_key_is_a_number_in_the_table(tmp_path: Path) -> None:
    @state(topic="flights")
    class Flight:
        number: Key[int]
        gate: str = ""

    flights = Tables(Replica(Flight), tmp_path / "flights.db")
    for number in (9, 10, 11):
        await flights.apply(Flight(number), 1)
    assert await flights.tx.get(flights.replica, 10) == Flight(10)
    assert await flights.tx.get(flights.replica, "10") == Flight(10)
    assert await flights.tx.get(flights.replica, "ten") is None
    await flights.apply(Gone(Flight, "10"), 2)
    assert flights.rows("SELECT number, typeof(number) FROM flights ORDER BY 1") == [(9, "integer"), (11, "integer")]
    flights.connection.close()


# ---- columns ---------------------------------------------------------------------------------------------------------


class Colour(Enum):
    RED = "red"


class Size(IntEnum):
    SMALL = 1


class Grade(StrEnum):
    A = "a"


class Address(msgspec.Struct):
    street: str


CustomerId = NewType("CustomerId", str)


@state(topic="everything")
@dataclass(frozen=True)
class Everything:
    everything_id: Key[CustomerId]
    text: str
    number: int
    big: int
    flag: bool
    ratio: float
    blob: bytes
    when: datetime
    day: date
    price: Decimal
    uuid: UUID
    colour: Colour
    size: Size
    grade: Grade
    literal: Literal["x", "y"]
    either: int | str
    names: list[str]
    nested: Address
    by_number: dict[int, Address]
    anything: Any
    maybe_flag: bool | None = None
    maybe_price: Decimal | None = None
    maybe_names: list[str] | None = None
    order: str = "a keyword"


def everything(**changes: Any) -> Everything:
    values: dict[str, Any] = {
        "everything_id": CustomerId("e"),
        "text": 'quote " and ☃ \0',
        "number": -3,
        "big": 2**62,
        "flag": True,
        "ratio": 2.0,
        "blob": b"\x00\xff",
        "when": datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC),
        "day": date(2026, 1, 2),
        "price": Decimal("1.10"),
        "uuid": UUID(int=7),
        "colour": Colour.RED,
        "size": Size.SMALL,
        "grade": Grade.A,
        "literal": "y",
        "either": "3",
        "names": ["a", "b"],
        "nested": Address("x"),
        "by_number": {1: Address("y")},
        "anything": {"a": [1, None, True]},
    }
    return Everything(**(values | changes))


@pytest.mark.parametrize(
    "record",
    [
        everything(),
        everything(maybe_flag=False, maybe_price=Decimal("2.0"), maybe_names=[], flag=False, either=3),
        everything(anything=None, names=[], text=""),
    ],
)
async def test_every_kind_of_field_comes_back_as_it_was(record: Everything, tmp_path: Path) -> None:
    tables = Tables(Replica(Everything), tmp_path / "replica.db")
    await tables.apply(record, 1)
    assert await tables.replica.read("e", tables.tx) == record
    tables.connection.close()


async def test_plain_sql_finds_plain_values() -> None:
    columns = 'flag, ratio, blob, "when", price, uuid, colour, size, grade, literal, either, names, nested'
    (row,) = await given(Replica(Everything), everything()).rows(f"SELECT {columns} FROM everything")
    assert row == (
        1,
        2.0,
        b"\x00\xff",
        "2026-01-02T03:04:05.678901Z",
        "1.10",
        "00000000-0000-0000-0000-000000000007",
        "red",
        1,
        "a",
        "y",
        '"3"',
        '["a","b"]',
        '{"street":"x"}',
    )


@state(topic="plain")
class Plain:
    id: Key[str]
    value: list[int]
    note: str | None = None


@state(topic="attrs")
@attrs.frozen
class Attrs:
    id: Key[str]
    value: list[int]
    note: str | None = None


@state(topic="struct")
class Struct(msgspec.Struct, frozen=True, rename="camel", tag=True):
    id: Key[str]
    value: list[int]
    long_note: str | None = None


@state(topic="model")
class Model(pydantic.BaseModel):
    id: Key[str]
    value: list[int]
    note: str | None = None
    when: datetime = datetime(2026, 1, 1, tzinfo=UTC)


class Link(pydantic.BaseModel):
    target: pydantic.HttpUrl = pydantic.Field(alias="href")


@state(topic="renamed")
class Renamed(pydantic.BaseModel):
    id: Key[str] = pydantic.Field(alias="theId")
    home: pydantic.HttpUrl
    links: list[Link]
    hidden: str = pydantic.Field("", exclude=True)


@attrs.frozen
class Private:
    _value: int


@state(topic="private")
@attrs.frozen
class Holder:
    id: Key[str]
    parts: list[Private]


@pytest.mark.parametrize(
    "record",
    [
        Plain("p", [1], "n"),
        Attrs("a", [1], "n"),
        Struct("s", [1], "n"),
        Struct("s", [1]),
        Model(id="m", value=[1], note="n"),
        Renamed(theId="r", home="https://example.org/", links=[Link(href="https://example.org/a")]),
        Holder("h", [Private(1)]),
    ],
)
async def test_every_kind_of_class_comes_back_as_it_was(record: Any, tmp_path: Path) -> None:
    replica = Replica(type(record))
    tables = Tables(replica, tmp_path / "replica.db")
    await tables.apply(record, 1)
    await replica.seed([CurrentState("x", 1, 1, 1, Codec(replica.state).encode(record))], tables.tx)
    assert await tables.tx.get(replica, record.id) == record
    tables.connection.close()


async def test_a_row_damaged_by_hand_is_unreadable(tables: Tables) -> None:
    await tables.apply(Customer("c", "Ada"), 1)
    tables.connection.execute("UPDATE crm_customers SET age = 'old'")
    with pytest.raises(Unreadable, match="age"):
        await customers.read("c", tables.tx)


def test_a_key_that_may_be_missing_is_refused() -> None:
    @state(topic="days")
    class Day:
        day: Key[str | None]

    with pytest.raises(BadDeclaration, match="cannot be a primary key"):
        _ = Replica(Day).schema


def test_columns_are_told_apart_without_regard_to_case() -> None:
    @state(topic="names")
    class Names:
        id: Key[str]
        name: str
        Name: str

    @state(topic="versions")
    class Versions:
        id: Key[str]
        _version: int

    for cls in (Names, Versions):
        with pytest.raises(BadDeclaration, match="exists twice"):
            _ = Replica(cls).schema


def test_another_column_is_another_fingerprint() -> None:
    @state(topic="crm.customers", name="Customer2")
    class Wider:
        customer_id: Key[str]
        name: str
        age: int | None = None
        email: str = ""

    one, two = Replica(Customer).subscriptions()[0], Replica(Wider).subscriptions()[0]
    assert one.fingerprint != two.fingerprint
    assert one.fingerprint == customers.subscriptions()[0].fingerprint
    assert message_type(Wider).name == "Customer2"
