"""Values that cannot be published: each is refused by name, before any write, on every face of the app."""

from __future__ import annotations

import math
import sys
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import pytest

from tests.scenarios.bad_input.telling import (
    Customer,
    Item,
    Order,
    counting,
    option_refused,
    refusal,
    refused_on_every_face,
)
from tidings import App, Gone, Key, event


class Plain:
    """No message."""


@pytest.mark.bad_input(1)
async def test_what_is_no_message_is_named_with_the_decorator_it_lacks(url: str) -> None:
    async with App(url) as app:
        await refused_on_every_face(app, Plain(), "TID-101", "Plain is not a message", "`@event(topic=...)`")
        for other in (Order, "text", {"a": 1}, None):
            await refused_on_every_face(app, other, "TID-101", "is not a message", "@event")
        with pytest.raises(TypeError, match="Plain"):
            await app.publish(Plain())
        await refused_on_every_face(app, Gone(Order, "a"), "TID-101", "Order is no state")
        with refusal("TID-101", "Order is sent", "@command"):
            await app.send(Order("a"))


@pytest.mark.bad_input(2)
async def test_a_value_that_json_cannot_hold_is_named_by_its_path(url: str) -> None:
    async with App(url) as app:
        items = [Item(1), Item(2), Item(3), Item({1, 2})]
        await refused_on_every_face(app, Order("a", items), "TID-201", "data.items[3].x is a set")
        await refused_on_every_face(app, Order("a", extra={"file": sys.stdout}), "TID-201", "data.extra.file")
        await refused_on_every_face(app, Order("a", extra=[lambda: 1]), "TID-201", "data.extra[0] is a function")


@pytest.mark.bad_input(3)
async def test_nan_and_infinity_are_refused(url: str) -> None:
    async with App(url) as app:
        await refused_on_every_face(app, Order("a", weight=math.nan), "TID-201", "data.weight is nan")
        await refused_on_every_face(app, Order("a", extra=[{"x": math.inf}]), "TID-201", "data.extra[0].x is inf")


@pytest.mark.bad_input(4)
async def test_nul_comes_back_in_data_and_is_refused_in_keys_types_and_headers(url: str) -> None:
    got: list[Order] = []
    app = App(url)

    @app.on(Order)
    async def note(order: Order) -> None:
        got.append(order)

    async with app:
        await refused_on_every_face(app, Order("a\0b"), "TID-107", "'a\\x00b'", "without NUL")
        await option_refused(app, "TID-107", "'tenant'", headers={"tenant": "a\0b"})
        await app.publish(Order("a", extra="a\0b"))
        await app.run(until_idle=True)
        assert [len(order.extra) for order in got] == [3]
        assert await app.store.query("SELECT length(data) > 20, instr(data, char(0)) FROM tidings_log") == [(1, 0)]


@pytest.mark.bad_input(5)
async def test_a_lone_surrogate_is_named_by_its_path(url: str) -> None:
    async with App(url) as app:
        await refused_on_every_face(app, Order("a", extra={"k": ["\ud800"]}), "TID-201", "data.extra.k[0]", "surrogate")
        await refused_on_every_face(app, Order("\udfff"), "TID-201", "surrogate")
        await refused_on_every_face(app, Gone(Customer, "\ud800"), "TID-107", "surrogate")


@pytest.mark.bad_input(6)
async def test_whole_numbers_in_data_are_exact_and_in_places_have_a_range(url: str) -> None:
    got: list[Order] = []
    accounts = counting()
    app = App(url, accounts)

    @app.on(Order)
    async def note(order: Order) -> None:
        got.append(order)

    numbers = [2**53 + 1, 2**63 - 1, -(2**63)]
    async with app:
        await app.publish(*(Order("a", number=number) for number in numbers))
        await app.run(until_idle=True)
        for too_large in (2**63, 2**64, 10**30):
            with refusal("TID-107", "expected="):
                await app.append(accounts, "a", Order("a"), expected=too_large)
            with refusal("TID-107", "after="):
                await app.query(accounts, "SELECT 1", after=too_large)
    assert [order.number for order in got] == numbers


@pytest.mark.bad_input(7)
async def test_a_number_of_five_thousand_digits_is_refused(url: str) -> None:
    async with App(url) as app:
        await refused_on_every_face(app, Order("a", number=10**5000), "TID-201", "data.number", "as text")


@pytest.mark.bad_input(8)
async def test_nesting_has_a_limit(url: str) -> None:
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    async with App(url) as app:
        await refused_on_every_face(app, Order("a", extra=deep), "TID-201", "100 levels", "flatten")


@pytest.mark.bad_input(10)
async def test_a_datetime_has_a_time_zone_and_a_year_that_others_can_read(url: str) -> None:
    naive = datetime(2026, 1, 1)  # noqa: DTZ001 - the point of the test
    early = datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14)))
    late = datetime(9999, 12, 31, 23, tzinfo=timezone(timedelta(hours=-10)))
    async with App(url) as app:
        await refused_on_every_face(
            app, Order("a", when=naive), "TID-201", "data.when", "time zone", "datetime.now(UTC)"
        )
        for far in (early, late):
            await refused_on_every_face(app, Order("a", when=far), "TID-201", "data.when", "year")
        await option_refused(app, "TID-107", "time zone", at=naive)
        await option_refused(app, "TID-107", "time zone", at="tomorrow")
        tokyo = datetime(2026, 1, 1, 9, tzinfo=timezone(timedelta(hours=9)))
        await app.publish(Order("a", when=tokyo))
        (stored,) = await app.store.read(0, 1, 1)
        assert b'"when":"2026-01-01T00:00:00Z"' in stored.data
        assert tokyo == datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.bad_input(11)
async def test_a_decimal_comes_back_digit_for_digit_or_is_refused(url: str) -> None:
    got: list[Decimal | None] = []
    app = App(url)

    @app.on(Order)
    async def note(order: Order) -> None:
        got.append(order.amount)

    async with app:
        await refused_on_every_face(app, Order("a", amount=Decimal("NaN")), "TID-201", "data.amount")
        await app.publish(Order("a", amount=Decimal("1.10")), Order("a", amount=Decimal("1e400")))
        await app.run(until_idle=True)
    assert [str(amount) for amount in got] == ["1.10", "1E+400"]


@pytest.mark.bad_input(12)
def test_a_name_that_cannot_be_stable_is_refused_with_the_grammar() -> None:
    for name in ("", "order placed", "../orders", "x" * 4096, "tidings.order", "a\0b", "a\nb"):
        with refusal("TID-102", "Placed is named", "letters, digits and _"):

            @event(topic="orders", name=name)
            class Placed:
                order_id: Key[str]

        with refusal("TID-102", "the app is named", "letters, digits and _"):
            App("sqlite::memory:", name=name)
    with refusal("TID-102", "the app is named 'north.bank'", "leave out the dot"):
        App("sqlite::memory:", name="north.bank")


@pytest.mark.bad_input(13)
async def test_a_key_is_none_or_text_of_1_to_512_bytes_compared_byte_for_byte(url: str) -> None:
    @event(topic="orders")
    class Maybe:
        order_id: Key[str | None]

    async with App(url) as app:
        for key in ("", "x" * 513, "é" * 300, "x" * 900_000):
            await refused_on_every_face(app, Order(key), "TID-107", "1 to 512 bytes", "None means unordered")
        await app.publish(Maybe(None), Order("x" * 512), Order("\u00e9"), Order("e\u0301"))
        keys = [each.key for each in await app.store.read(0, 10, 10)]
        assert keys == [None, "x" * 512, "\u00e9", "e\u0301"]


@pytest.mark.bad_input(14)
async def test_a_key_is_a_value_and_never_a_part_of_a_statement(url: str) -> None:
    accounts = counting()
    odd = ["'; DROP TABLE tidings_log; --", "100%", "a_b", "*", "новый", "x" * 512]
    async with App(url, accounts) as app:
        for key in odd:
            await app.append(accounts, key, Order(key), expected=0)
        assert [await app.get(accounts, key) for key in odd] == [1] * len(odd)
        with refusal("TID-107", "600 bytes", "1 to 512 bytes"):
            await app.append(accounts, "x" * 600, Order("a"))
        assert await app.store.head() == len(odd)


@pytest.mark.bad_input(15)
async def test_a_message_that_is_too_large_is_refused_inside_the_transaction_before_any_write(url: str) -> None:
    big = Order("a", extra="x" * 1_000_001)
    async with App(url) as app:
        cure = "publish a reference to it"
        await refused_on_every_face(app, big, "TID-202", "Order has 1,000,", "limit is 1,000,000", cure)
        with refusal("TID-202") as told:
            await app.publish(big)
        assert told.error is not None
        assert told.error.data["limit"] == 1_000_000
        assert told.error.data["size"] > 1_000_001  # type: ignore[operator] - a number


@pytest.mark.bad_input(16)
async def test_headers_that_cannot_be_sent_everywhere_are_refused_by_name(url: str) -> None:
    async with App(url) as app:
        for headers, named in (
            ({f"h{number}": "v" for number in range(65)}, "65 headers"),
            ({"tenant": 1}, "'tenant' is a int"),
            ({1: "tenant"}, "'1'"),
            ({"tenant": "a\r\nset-cookie: b"}, "'tenant' holds '\\r'"),
            ({"ce-id": "a"}, "leave out ce-"),
            ({"id": "a"}, "'id' is set by tidings"),
            ({"tidingsattempt": "1"}, "'tidingsattempt'"),
            ({"Tenant-Id": "a"}, "'Tenant-Id'"),
            ({"tenant": "x" * 20_000}, "20,"),
            ({"traceparent": "me"}, "traceparent"),
            (["tenant"], "the headers are a list"),
        ):
            await option_refused(app, "TID-107", named, headers=headers)


@pytest.mark.bad_input(17)
async def test_an_id_comes_again_with_the_same_content_only(url: str) -> None:
    app = App(url)
    async with app:
        first = await app.publish(Order("a"), id="order-1")
        assert await app.publish(Order("a"), id="order-1") == first
        with refusal("TID-302", "'order-1'", "position 1", "new id"):
            await app.publish(Order("b"), id="order-1")
        for wrong in ("", "x" * 201, "a\nb", 7):
            await option_refused(app, "TID-107", "an id is printable text", id=wrong)
        with refusal("TID-107", "2 messages"):
            await app.publish(Order("a"), Order("b"), id="order-2")
        assert await app.store.head() == 1


@pytest.mark.bad_input(18)
async def test_an_expected_version_is_a_version_and_an_empty_batch_does_nothing(url: str) -> None:
    accounts = counting()
    async with App(url, accounts) as app:
        assert await app.append(accounts, "a", Order("a"), Order("a"), expected=0) == 2
        for wrong in (-2, 1.0, "1", True, None):
            with refusal("TID-107", f"expected={wrong!r}", "0 for none yet"):
                await app.append(accounts, "a", Order("a"), expected=wrong)  # type: ignore[arg-type] - the point
        for stale in (0, 1, 3):
            with refusal("TID-301", "account", "version 2") as told:
                await app.append(accounts, "a", Order("a"), expected=stale)
            assert told.error is not None
            assert told.error.data["actual"] == 2
        assert await app.append(accounts, "a", expected=2) == 2
        assert await app.publish() == 0
        async with app.transaction() as tx:
            await tx.publish()
        assert await app.store.head() == 2
