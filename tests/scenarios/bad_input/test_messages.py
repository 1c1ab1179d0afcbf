"""Bad messages, through the front door: refused before anything is written, or kept raw when they come from outside.

Each test names the promise; nothing is acknowledged that was not handled, and nothing is lost.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import pickle
import unicodedata
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tidings import App, Decider, Envelope, Gone, Key, Replica, Retry, Tag, errors, event, state
from tidings.core.operations import Held


@event(topic="orders")
class Placed:
    order_id: Key[str] | None
    amount: Decimal = Decimal(0)
    number: int = 0
    at: datetime | None = None
    rest: Any = None


@event(topic="orders", version=2)
class Packed:
    order_id: Key[str]
    box: str


@event(topic="courses")
class Subscribed:
    course: Tag[str]


@state(topic="customers")
class Customer:
    customer_id: Key[str]
    name: str


@event
class Opened:
    account: Key[str]


def decide(_opened: int, _command: Opened) -> list[Opened]:
    return []


def evolve(opened: int, _event: Opened) -> int:
    return opened + 1


class Nothing:
    """No message."""


@pytest.fixture
def app(tmp_path: Path) -> App:
    return App(f"sqlite:{tmp_path}/shop.db")


async def log(app: App) -> list[Envelope]:
    return list(await app.store.read(0, 1000, 1000, app=app.name))


async def dead(app: App, group: str = "shop.quarantine") -> list[Held]:
    return list(await app.store.held(group=group, state="dead"))


def foreign(**attributes: Any) -> bytes:
    """A structured event from another system."""
    fine = {"specversion": "1.0", "id": "1", "source": "other", "type": "Packed", "topic": "orders", "dataversion": 2}
    return json.dumps(fine | {"subject": "o", "data": {"order_id": "o", "box": "small"}} | attributes).encode()


# -- publishing --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("thing", [Nothing(), Nothing, Placed, "text", None, {"a": 1}])
@pytest.mark.bad_input(1)
async def test_what_is_no_message_is_refused_by_name(app: App, thing: Any) -> None:
    async with app:
        with pytest.raises(TypeError, match=r"is not a message.*@event") as caught:
            await app.publish(Placed("o"), thing)
        assert isinstance(caught.value, errors.NotAMessage)
        assert await log(app) == []


BAD_VALUES = [
    (float("nan"), "data.rest"),
    ({"items": [0, 1, 2, {"x": float("inf")}]}, "data.rest.items[3].x"),
    ({"items": [0, 1, 2, {"x": {1, 2}}]}, "data.rest.items[3].x"),
    ({"items": [0, 1, 2, {"x": open}]}, "data.rest.items[3].x"),
    ([lambda: 1], "data.rest[0]"),
    ({"text": "\ud800"}, "data.rest.text"),
    ({"at": datetime(2026, 1, 1)}, "data.rest.at"),  # noqa: DTZ001 - the mistake
    (10**5000, "data.rest"),
]


@pytest.mark.parametrize(("value", "path"), BAD_VALUES, ids=range(len(BAD_VALUES)))
@pytest.mark.bad_input(2, 3, 5, 7, 10)
async def test_a_value_json_cannot_hold_is_refused_with_its_path_before_anything_is_written(
    app: App, value: Any, path: str
) -> None:
    async with app:
        with pytest.raises(errors.BadPayload) as caught:
            await app.publish(Placed("before"), Placed("o", rest=value), Placed("after"))
        assert caught.value.data["path"] == path
        assert path in str(caught.value)
        assert caught.value.code == "TID-201"
        assert await log(app) == []


@pytest.mark.bad_input(2, 3)
async def test_a_transaction_with_a_value_json_cannot_hold_leaves_nothing(app: App) -> None:
    async def two(bad: Placed) -> None:
        async with app.transaction() as tx:
            await tx.publish(Placed("before"))
            await tx.publish(bad)

    async with app:
        with pytest.raises(errors.BadPayload):
            await two(Placed("o", rest=float("nan")))
        assert await log(app) == []


async def test_a_value_json_cannot_hold_is_refused_in_a_delayed_message_and_in_a_handlers_answer(app: App) -> None:
    @app.on(Packed, retry=Retry(attempts=1))
    async def answer(_packed: Packed) -> Placed:
        return Placed("o", rest=float("nan"))

    async with app:
        with pytest.raises(errors.BadPayload, match=r"data\.rest is nan"):
            await app.publish(Placed("o", rest=float("nan")), after=5)
        await app.publish(Packed("o", "small"))
        await app.run(until_idle=True)
        (letter,) = await dead(app, "shop.answer")
        assert "data.rest is nan" in letter.reason
        assert [envelope.type for envelope in await log(app)] == ["Packed"]


@pytest.mark.bad_input(4, 6, 11)
async def test_exact_values_come_back_exact(app: App) -> None:
    exact = [
        Placed("1", Decimal("1.10")),
        Placed("2", Decimal("1e400")),
        Placed("3", number=2**53 + 1),
        Placed("4", number=2**200),
        Placed("5", number=-(2**63) - 1),
        Placed("6", at=datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)),
        Placed("7", rest="NUL \0, line\u2028, \U0001f600"),
    ]
    seen: list[Placed] = []

    @app.on(Placed)
    async def see(placed: Placed) -> None:
        seen.append(placed)

    async with app:
        await app.publish(*exact)
        await app.run(until_idle=True)
    assert sorted(seen, key=lambda placed: placed.order_id or "") == exact
    assert str(seen[0].amount) == "1.10"


@pytest.mark.bad_input(8)
async def test_a_hundred_levels_are_the_limit(app: App) -> None:
    deep: list[Any] = []
    for _ in range(98):
        deep = [deep]
    async with app:
        await app.publish(Placed("o", rest=deep))
        with pytest.raises(errors.BadPayload, match="deeper than 100 levels"):
            await app.publish(Placed("o", rest=[deep]))
        assert len(await log(app)) == 1


@pytest.mark.bad_input(15)
async def test_a_message_that_is_too_large_says_its_size_and_the_limit(app: App) -> None:
    async with app:
        with pytest.raises(errors.PayloadTooLarge, match=r"limit is 1,000,000.*reference") as caught:
            async with app.transaction() as tx:
                await tx.publish(Placed("o", rest="x" * 1_000_000))
        assert caught.value.data["limit"] == 1_000_000
        assert await log(app) == []


@pytest.mark.parametrize("key", ["", "\0", "k" * 2**20, "é" * 300, "\ud800"], ids=ascii)
@pytest.mark.bad_input(13)
async def test_a_key_that_cannot_be_stored_everywhere_is_refused(app: App, key: str) -> None:
    async with app:
        with pytest.raises((errors.BadArgument, errors.BadPayload)) as caught:
            await app.publish(Placed(key))
        assert len(str(caught.value)) < 300
        with pytest.raises(errors.BadArgument):
            await app.publish(Gone(Customer, key))
        assert await log(app) == []


@pytest.mark.bad_input(13)
async def test_keys_are_told_apart_byte_for_byte_and_none_means_unordered(app: App) -> None:
    composed, decomposed = unicodedata.normalize("NFC", "é"), unicodedata.normalize("NFD", "é")
    async with app:
        await app.publish(Placed(composed), Placed(decomposed), Placed(None))
        assert [envelope.key for envelope in await log(app)] == [composed, decomposed, None]


@pytest.mark.bad_input(14)
async def test_a_stream_may_have_any_printable_name_and_none_is_sql(app: App) -> None:
    accounts = Decider("account", initial=0, decide=decide, evolve=evolve)
    strange = ["%", "_", "'; DROP TABLE tidings_log; --", 'a"b', "../x", "{0.__class__}", "%s", "tên é"]
    async with app:
        for name in strange:
            assert await app.append(accounts, name, Opened(name)) == 1
            assert await app.append(accounts, name, Opened(name)) == 2
        assert len(await log(app)) == 2 * len(strange)


@pytest.mark.parametrize(
    "headers",
    [
        {f"x{number}": "" for number in range(65)},
        {"tenant": 5},
        {"tenant": "a\r\nb"},
        {"ce-id": "x"},
        {"id": "x"},
        {"Tenant": "x"},
        {"traceparent": "x"},
    ],
    ids=lambda headers: ",".join(list(headers)[:2]) + repr(next(iter(headers.values()))),
)
@pytest.mark.bad_input(16)
async def test_headers_that_cannot_be_sent_are_refused_by_name(app: App, headers: Any) -> None:
    async with app:
        with pytest.raises(errors.BadArgument, match="header"):
            await app.publish(Placed("o"), headers=headers)
        assert await log(app) == []


@pytest.mark.bad_input(17)
async def test_the_same_id_again_is_the_same_event_and_with_another_body_a_conflict(app: App) -> None:
    async with app:
        first = await app.publish(Placed("o"), id="one")
        assert await app.publish(Placed("o"), id="one") == first
        with pytest.raises(errors.IdConflict, match="one"):
            await app.publish(Placed("o", number=1), id="one")
        for id in ("", "x" * 10_000, "a\nb", "\ud800", 5):
            with pytest.raises(errors.BadArgument, match="id"):
                await app.publish(Placed("o"), id=id)  # type: ignore[arg-type]
        assert len(await log(app)) == 1


@pytest.mark.bad_input(18)
async def test_an_empty_batch_does_nothing(app: App) -> None:
    async with app:
        await app.publish()
        assert await log(app) == []


@pytest.mark.bad_input(50)
async def test_texts_that_look_like_code_are_only_texts(app: App) -> None:
    texts = ["__proto__", "{0.__init__}", "${jndi:ldap://x}", "%s %n", "<script>", "\x1b[31m", "\u202etxt"]
    async with app:
        await app.publish(*(Subscribed(text) for text in texts))
        assert [json.loads(envelope.data)["course"] for envelope in await log(app)] == texts


# -- what comes from outside -------------------------------------------------------------------------------------------

UNREADABLE: list[tuple[bytes, dict[str, str], str]] = [
    (b"", {}, "empty"),
    (b"\xff\xff", {}, "not UTF-8"),
    (foreign()[:-1], {}, "not JSON"),
    (b"\xef\xbb\xbf" + foreign(), {}, "byte order mark"),
    (foreign().decode().encode("utf-16"), {}, "UTF-16"),
    (gzip.compress(b"0" * 10_000_000), {}, "gzip"),
    (b"\x28\xb5\x2f\xfd\x00", {}, "zstd"),
    (foreign(), {"content-encoding": "gzip"}, "content-encoding"),
    (pickle.dumps({"a": 1}), {"content-type": "application/x-python-serialize"}, "content type"),
    (pickle.dumps({"a": 1}), {"content-type": "application/x-python-serialize", "ce-id": "1"}, "its data is"),
    (b'{"id":"1","id":"2"}', {}, "twice"),
    (b"[" * 100_000, {}, "deeper than"),
    (foreign(data="N").replace(b'"N"', b"9" * 5000), {}, "out of range"),
    (foreign(data="N").replace(b'"N"', b"NaN"), {}, "not JSON"),
    (foreign(id=""), {}, "id"),
    (foreign(id="x" * 10_000), {}, "id"),
    (foreign(source=None), {}, "source"),
    (foreign(specversion="2.0"), {}, "specversion"),
    (foreign(), {"content-type": "application/json"}, "no ce- headers"),
    (foreign(), {"content-type": "application/cloudevents+json", "ce-id": "2"}, "differ"),
    (b"[]", {"content-type": "application/cloudevents-batch+json"}, "content type"),
    (foreign(), {"tenant": "\ud800", "content-type": "text/plain"}, "content type"),
]


@pytest.mark.parametrize(("body", "headers", "says"), UNREADABLE, ids=range(len(UNREADABLE)))
@pytest.mark.bad_input(42, 44)
async def test_what_cannot_be_read_is_kept_raw_with_the_reason(
    app: App, body: bytes, headers: dict[str, str], says: str
) -> None:
    async with app:
        assert await app.receive(body, headers) == 0
        (letter,) = await dead(app)
        assert letter.envelope.data == body
        assert says in letter.reason
        assert letter.reason.isprintable()
        assert await log(app) == []
        assert await app.receive(foreign()) > 0


async def test_everything_unreadable_is_kept_even_when_it_comes_at_once(app: App) -> None:
    async with app:
        await asyncio.gather(*(app.receive(b"%d?" % number) for number in range(50)))
        assert sorted(letter.envelope.data for letter in await dead(app)) == sorted(b"%d?" % n for n in range(50))


async def test_an_event_from_outside_reaches_the_handler_of_its_type(app: App) -> None:
    seen: list[tuple[Packed, str, str]] = []

    @app.on(Packed)
    async def see(packed: Packed, envelope: Envelope) -> None:
        seen.append((packed, envelope.source, envelope.id))

    async with app:
        await app.receive(foreign())
        await app.receive(foreign(id="2", topic=None))
        await app.receive(foreign(id="2", source="third", partitionkey="p"))
        await app.run(until_idle=True)
    expected = [(Packed("o", "small"), "other", "1"), (Packed("o", "small"), "other", "2")]
    assert sorted(seen, key=str) == sorted([*expected, (Packed("o", "small"), "third", "2")], key=str)


@pytest.mark.parametrize(
    ("attributes", "says"),
    [
        ({"data": {"order_id": "o"}}, "data.box: it is missing"),
        ({"data": {"order_id": "o", "box": 5}}, "data.box: Expected `str`, got `int`"),
        ({"data": [1]}, "Expected `object`, got `array`"),
        ({"data": None}, "Expected `object`, got `null`"),
        ({"dataversion": 3}, "schema version 3; this code knows 2"),
    ],
    ids=repr,
)
@pytest.mark.bad_input(43)
async def test_a_known_type_that_does_not_fit_is_a_dead_letter_with_the_field(
    app: App, attributes: dict[str, Any], says: str
) -> None:
    seen: list[Packed] = []

    @app.on(Packed)
    async def see(packed: Packed) -> None:
        seen.append(packed)

    async with app:
        await app.receive(foreign(**attributes))
        await app.publish(Packed("another", "large"))
        await app.run(until_idle=True)
        (letter,) = await dead(app, "shop.see")
        assert says in letter.reason
        assert (letter.attempt, letter.envelope.id) == (1, "1")
        assert json.loads(letter.envelope.data or b"null") == attributes.get("data", json.loads(foreign())["data"])
    assert seen == [Packed("another", "large")]


@pytest.mark.bad_input(43)
async def test_a_field_that_is_not_known_is_passed_over(app: App) -> None:
    seen: list[Packed] = []

    @app.on(Packed)
    async def see(packed: Packed) -> None:
        seen.append(packed)

    async with app:
        await app.receive(foreign(data={"order_id": "o", "box": "s", "later": {"__class__": "x"}}))
        await app.run(until_idle=True)
    assert seen == [Packed("o", "s")]


@pytest.mark.bad_input(43)
async def test_an_event_of_an_unknown_type_is_kept_in_the_log(app: App) -> None:
    async with app:
        assert await app.receive(foreign(type="com.example.unheard.of")) == 1
        await app.run(until_idle=True)
        assert [envelope.type for envelope in await log(app)] == ["com.example.unheard.of"]


@pytest.mark.bad_input(45)
async def test_control_headers_of_others_do_nothing(app: App) -> None:
    forged = {"tidings-attempt": "1000000000", "tidings-position": "9", "epoch": "-1", "trace": "x"}
    attempts: list[int] = []

    @app.on(Packed)
    async def see(_packed: Packed, envelope: Envelope) -> None:
        attempts.append(envelope.position)

    async with app:
        headers = {"content-type": "application/cloudevents+json", **forged}
        assert await app.receive(foreign(**{"tidings-attempt": -1}), headers) == 1
        await app.run(until_idle=True)
    assert attempts == [1]


@pytest.mark.bad_input(46)
async def test_the_same_event_twice_is_handled_once_and_ids_of_other_sources_do_not_matter(app: App) -> None:
    seen: list[str] = []

    @app.on(Packed)
    async def see(_packed: Packed, envelope: Envelope) -> None:
        seen.append(f"{envelope.source} {envelope.id}")

    async with app:
        for source in ("one", "two", "one"):
            await app.receive(foreign(source=source))
        await app.run(until_idle=True)
    assert sorted(seen) == ["one 1", "two 1"]


@pytest.mark.bad_input(47)
async def test_a_time_that_is_years_off_is_stored_and_never_used_for_order(app: App) -> None:
    seen: list[str] = []

    @app.on(Packed)
    async def see(_packed: Packed, envelope: Envelope) -> None:
        seen.append(envelope.id)

    async with app:
        await app.receive(foreign(id="first", time="9999-01-01T00:00:00Z"))
        await app.receive(foreign(id="second", time="1066-10-14T09:00:00+23:00"))
        await app.run(until_idle=True)
        assert [envelope.time < 0 for envelope in await log(app)] == [False, True]
    assert seen == ["first", "second"]


@pytest.mark.bad_input(45)
async def test_a_forged_stream_does_not_get_into_a_history(app: App) -> None:
    accounts = Decider("account", initial=0, decide=decide, evolve=evolve)
    async with app:
        await app.append(accounts, "a", Opened("a"))
        stream = (await log(app))[0].stream
        await app.receive(foreign(type="Opened", data={"account": "a"}, streamid=stream, streamversion=2))
        assert await app.get(accounts, "a") == 1
        assert await app.append(accounts, "a", Opened("a"), expected=1) == 2


@pytest.mark.bad_input(51)
@pytest.mark.parametrize("nothing", [{}, {"data": None}], ids=["no data", "null"])
async def test_a_tombstone_takes_a_record_away_and_is_unreadable_where_there_is_none(
    tmp_path: Path, nothing: dict[str, None]
) -> None:
    customers = Replica(Customer)
    app = App(f"sqlite:{tmp_path}/shop.db", customers)
    seen: list[Packed] = []

    @app.on(Packed)
    async def see(packed: Packed) -> None:
        seen.append(packed)

    gone = {"specversion": "1.0", "id": "2", "source": "crm", "type": "Customer", "topic": "customers", "subject": "c"}
    async with app:
        await app.run(until_idle=True)
        await app.receive(json.dumps(gone | {"id": "1", "data": {"customer_id": "c", "name": "Ada"}}).encode())
        await app.run(until_idle=True)
        assert await app.get(customers, "c") == Customer("c", "Ada")
        await app.receive(json.dumps(gone | nothing).encode())
        await app.receive(json.dumps(gone | {"id": "3", "type": "Packed", "topic": "orders"} | nothing).encode())
        await app.run(until_idle=True)
        assert await app.get(customers, "c") is None
        (letter,) = await dead(app, "shop.see")
        assert letter.envelope.id == "3"
        await app.receive(json.dumps({**gone, "id": "4", "subject": None} | nothing).encode())  # whose record is gone?
        await app.run(until_idle=True)
        assert [each.envelope.id for each in await dead(app, "shop.customers")] == ["4"]
    assert seen == []
