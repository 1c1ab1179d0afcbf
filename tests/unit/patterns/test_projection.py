"""A projection is one group in strict log order that fills tables of its own."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tidings.core.envelope import Envelope
from tidings.core.message import Gone, Key, event, state
from tidings.core.retry import Retry
from tidings.core.transaction import Transaction
from tidings.errors import BadDeclaration, BadHandler, NotAMessage
from tidings.patterns.projection import Projection
from tidings.testing.given import given

SCHEMA = "CREATE TABLE seen (what TEXT, who TEXT)"


@event
class Deposited:
    account_id: Key[str]


@event
class Withdrawn:
    account_id: Key[str]


@state(topic="customers")
class Customer:
    customer_id: Key[str]


@state(topic="carriers")
class Carrier:
    code: Key[str]


def seen() -> Projection:
    return Projection("seen", schema=SCHEMA)


def test_one_group_with_one_slot_calls_the_only_handler_itself() -> None:
    retry = Retry(attempts=3)
    projection = Projection("seen", schema=SCHEMA, retry=retry, start="latest")

    @projection.on(Deposited | Withdrawn)
    async def note(event: Deposited | Withdrawn, tx: Transaction) -> None: ...

    (found,) = projection.subscriptions()
    assert found.handler is note
    assert (found.group, found.slots, found.concurrency, found.takes) == ("seen", 1, 1, ("tx",))
    assert (found.retry, found.start, found.is_async, found.tombstones) == (retry, "latest", True, False)
    assert [kind.name for kind in found.types] == ["Deposited", "Withdrawn"]
    assert found.schema is not None
    assert projection.schema.tables == ("seen",)


def test_with_several_types_each_event_reaches_its_own_handler_directly() -> None:
    projection = seen()

    @projection.on(Deposited)
    async def paid_in(event: Deposited, tx: Transaction) -> None: ...
    @projection.on(Withdrawn)
    async def paid_out(event: Withdrawn, tx: Transaction) -> None: ...

    handler = projection.subscriptions()[0].handler
    coroutine = handler(Withdrawn("a"), None)
    assert coroutine.cr_code is paid_out.__code__  # type: ignore[attr-defined]
    coroutine.close()


async def test_several_handlers_of_one_type_run_in_the_order_of_declaration() -> None:
    projection = seen()

    @projection.on(Deposited)
    async def first(event: Deposited, tx: Transaction) -> None:
        await tx.execute("INSERT INTO seen VALUES ('first', ?)", event.account_id)

    @projection.on(Deposited | Withdrawn)
    async def second(event: Deposited | Withdrawn, tx: Transaction) -> None:
        await tx.execute("INSERT INTO seen VALUES ('second', ?)", event.account_id)

    rows = await given(projection, Deposited("a"), Withdrawn("b")).rows("SELECT * FROM seen ORDER BY rowid")
    assert rows == [("first", "a"), ("second", "a"), ("second", "b")]


async def test_handlers_that_want_the_envelope_mix_with_those_that_do_not() -> None:
    projection = seen()

    @projection.on(Deposited)
    async def bare(event: Deposited, tx: Transaction) -> None:
        await tx.execute("INSERT INTO seen VALUES ('bare', ?)", event.account_id)

    @projection.on(Deposited)
    async def swapped(event: Deposited, envelope: Envelope, tx: Transaction) -> None:
        await tx.execute("INSERT INTO seen VALUES ('swapped', ?)", envelope.id)

    @projection.on(Deposited)
    async def straight(event: Deposited, tx: Transaction, envelope: Envelope) -> None:
        await tx.execute("INSERT INTO seen VALUES ('straight', ?)", envelope.id)

    assert projection.subscriptions()[0].takes == ("tx", "envelope")
    rows = await given(projection, Deposited("a")).rows("SELECT * FROM seen ORDER BY rowid")
    assert rows == [("bare", "a"), ("swapped", "given-1"), ("straight", "given-1")]


async def test_tombstones_reach_only_the_handlers_that_ask_for_them() -> None:
    projection = seen()

    @projection.on(Customer | Gone)
    async def follow(record: Customer | Gone, tx: Transaction) -> None:
        await tx.execute("INSERT INTO seen VALUES (?, 'customer')", type(record).__name__)

    @projection.on(Customer | Carrier)
    async def count(record: Customer | Carrier, tx: Transaction) -> None:
        await tx.execute("INSERT INTO seen VALUES (?, 'any')", type(record).__name__)

    assert projection.subscriptions()[0].tombstones
    messages = [Customer("c"), Gone(Customer, "c"), Carrier("UA"), Gone(Carrier, "UA")]
    rows = await given(projection, *messages).rows("SELECT * FROM seen ORDER BY rowid")
    assert rows == [("Customer", "customer"), ("Customer", "any"), ("Gone", "customer"), ("Carrier", "any")]


def test_a_handler_is_async_and_takes_tx() -> None:
    projection = seen()

    @projection.on(Deposited)
    async def note(event: Deposited) -> None: ...

    with pytest.raises(BadHandler, match=r"note .*test_projection.py:.* of projection seen takes no tx"):
        projection.subscriptions()


def test_a_projection_without_handlers_is_refused_at_start_up() -> None:
    with pytest.raises(BadDeclaration, match="projection seen has no handlers"):
        seen().subscriptions()


@pytest.mark.parametrize("value", [None, 3])
def test_what_is_no_function_is_refused_at_once(value: Any) -> None:
    with pytest.raises(BadHandler, match="is not callable"):
        seen().on(Deposited)(value)
    with pytest.raises(NotAMessage):
        seen().on(value)


@pytest.mark.parametrize(
    ("name", "schema", "words"),
    [
        ("a b", SCHEMA, "a projection is named"),
        ("seen", "", "projection seen: its schema creates no table"),
        ("seen", "DROP TABLE x", "holds DROP TABLE x"),
    ],
)
def test_name_and_schema_are_checked_at_once(name: str, schema: str, words: str) -> None:
    with pytest.raises(BadDeclaration, match=words):
        Projection(name, schema=schema)


BODY = """
@projection.on(Deposited)
async def note(event: Deposited, tx: Transaction) -> None:
    await tx.execute("INSERT INTO seen VALUES (?, ?)", "in", event.account_id)
"""


@pytest.fixture
def fingerprint(tmp_path: Path) -> Callable[..., str | None]:
    """The fingerprint of a projection whose handlers stand in a file with this text."""
    count = iter(range(100))

    def build(body: str = BODY, schema: str = SCHEMA) -> str | None:
        path = tmp_path / f"handlers_{next(count)}.py"
        path.write_text(body)
        projection = Projection("seen", schema=schema)
        module = ModuleType(path.stem)
        module.__dict__.update(globals(), projection=projection)
        exec(compile(body, str(path), "exec"), module.__dict__)
        return projection.fingerprint

    return build


@pytest.mark.parametrize(
    "body",
    [
        BODY.replace("(?, ?)", "(?, 'x' || ?)"),
        BODY.replace('"in"', '"out"'),
        BODY.replace("on(Deposited)", "on(Withdrawn | Deposited)"),
        BODY + BODY.replace("note", "again"),
    ],
)
def test_another_effect_is_another_fingerprint(body: str, fingerprint: Callable[..., str | None]) -> None:
    assert fingerprint(body) != fingerprint()


def test_another_schema_is_another_fingerprint(fingerprint: Callable[..., str | None]) -> None:
    assert fingerprint(BODY, SCHEMA.replace("who TEXT", "who BLOB")) != fingerprint()


@pytest.mark.parametrize(
    "body",
    [
        "# moved down\n\n" + BODY,
        BODY.replace("    await", "    # why\n    await"),
        BODY.replace("    await", '    """What it does."""\n    await'),
        BODY.replace('"in", event.account_id)', "\n        'in',\n        event.account_id,\n    )"),
    ],
)
def test_comments_docstrings_and_layout_leave_it_as_it_is(body: str, fingerprint: Callable[..., str | None]) -> None:
    assert body != BODY
    assert fingerprint(body) == fingerprint() is not None
    assert fingerprint(BODY, f"  {SCHEMA};\n-- the log") == fingerprint()


def test_without_source_there_is_no_fingerprint() -> None:
    projection = seen()
    scope = {**globals(), "projection": projection}
    exec(BODY, scope)
    with pytest.raises(OSError, match="could not get source"):
        inspect.getsource(scope["note"])
    assert projection.subscriptions()[0].fingerprint is None
