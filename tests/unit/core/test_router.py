"""Routers find out at start-up whether each handler can be called, and say where it is if not."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import pytest

from tidings.core.envelope import Envelope
from tidings.core.guarantees import Needs
from tidings.core.message import Gone, Key, command, event, state
from tidings.core.retry import Retry
from tidings.core.router import Router, check_together
from tidings.core.transaction import Transaction
from tidings.errors import BadDeclaration, BadHandler, NotAMessage
from tidings.patterns.projection import Projection
from tidings.patterns.replica import Replica

if TYPE_CHECKING:
    from tidings.core.message import Gone as TypeOnly


@event(topic="orders")
class OrderPlaced:
    order_id: Key[str]


@event(topic="orders")
class OrderPaid:
    order_id: Key[str]


@state(topic="customers")
class Customer:
    customer_id: Key[str]


@command
class Charge:
    order_id: Key[str]


def refused(router: Router, *words: str) -> BadHandler:
    with pytest.raises(BadHandler) as caught:
        router.subscriptions()
    for word in words:
        assert word in str(caught.value)
    assert caught.value.cure
    return caught.value


def test_a_handler_is_its_own_group_and_stays_what_it_was() -> None:
    router = Router()

    @router.on(OrderPlaced)
    async def send_receipt(order: OrderPlaced) -> None: ...

    (found,) = router.subscriptions()
    assert found.handler is send_receipt
    assert found.group == "send_receipt"
    assert [kind.name for kind in found.types] == ["OrderPlaced"]
    assert (found.takes, found.is_async, found.slots, found.tombstones) == ((), True, 16, False)
    assert found.where.startswith(f"{__name__}:")
    assert "send_receipt (" in found.where
    assert "test_router.py:" in found.where


def test_parameters_are_told_by_annotation_in_any_order() -> None:
    router = Router()

    @router.on(OrderPlaced)
    async def one(order: OrderPlaced, tx: Transaction, sent: Envelope) -> None: ...
    @router.on(OrderPlaced)
    async def two(order: OrderPlaced, sent: Envelope, tx: Transaction) -> None: ...
    @router.on(OrderPlaced)
    async def three(order, tx: Transaction) -> None: ...
    @router.on(OrderPlaced)
    def four(order: OrderPlaced, attempts: int = 3) -> None: ...

    found = [(each.takes, each.is_async) for each in router.subscriptions()]
    assert found == [(("tx", "envelope"), True), (("envelope", "tx"), True), (("tx",), True), ((), False)]


def test_a_union_an_alias_and_a_wider_annotation_are_fine() -> None:
    router = Router()
    either = OrderPlaced | OrderPaid

    @router.on(OrderPlaced | OrderPaid)
    async def one(order: OrderPlaced | OrderPaid) -> None: ...
    @router.on(either)
    async def two(order: object) -> None: ...
    @router.on(OrderPlaced)
    async def three(order: OrderPlaced | OrderPaid) -> None: ...
    @router.on(OrderPlaced)
    async def four(order: Any) -> None: ...

    names = [[kind.name for kind in each.types] for each in router.subscriptions()]
    assert names == [["OrderPlaced", "OrderPaid"]] * 2 + [["OrderPlaced"]] * 2
    assert [kind.name for kind in router.message_types()] == ["OrderPlaced", "OrderPaid"]


forward = Router("forward")


@forward.on(OrderPlaced | OrderPaid)
async def early(order: AnyOrder, tx: Later) -> None: ...


AnyOrder = OrderPlaced | OrderPaid
Later = Transaction


def test_annotations_may_name_what_is_defined_further_down() -> None:
    assert forward.subscriptions()[0].takes == ("tx",)


def test_an_import_for_the_type_checker_only_is_found() -> None:
    router = Router()

    @router.on(Customer | Gone)
    async def follow(record: Customer | TypeOnly, tx: Transaction) -> None: ...

    (found,) = router.subscriptions()
    assert found.tombstones
    assert [kind.name for kind in found.types] == ["Customer"]


def test_gone_needs_a_state_and_a_handler_that_takes_it() -> None:
    with pytest.raises(BadHandler, match="Gone stands without a state"):
        Router().on(OrderPlaced | Gone)
    router = Router()
    router.on(Customer | Gone)(takes_customer)  # type: ignore[arg-type]
    refused(router, "subscribed to Customer | Gone but takes Customer")


async def takes_customer(record: Customer) -> None: ...


def test_what_fetch_returns_is_the_second_argument() -> None:
    router = Router()

    async def load(order: OrderPlaced) -> dict[str, int]:
        return {"total": 3}

    @router.on(OrderPlaced, fetch=load)
    async def show(order: OrderPlaced, full: dict[str, int], envelope: Envelope) -> None: ...

    (found,) = router.subscriptions()
    assert found.takes == ("fetched", "envelope")
    assert found.fetch is load


def test_partials_methods_callable_objects_and_wrapped_functions_are_handlers() -> None:
    router = Router()

    async def mail(order: OrderPlaced, tx: Transaction, gateway: str = "none") -> None: ...

    class Office:
        async def file(self, order: OrderPlaced, envelope: Envelope) -> None: ...

        async def __call__(self, order: OrderPlaced) -> None: ...

    def logged(function: Any) -> Any:
        @functools.wraps(function)
        def call(*arguments: Any) -> Any:
            return function(*arguments)

        return call

    router.on(OrderPlaced)(functools.partial(mail, gateway="smtp"))
    router.on(OrderPlaced)(Office().file)
    router.on(OrderPlaced, group="office")(Office())
    router.on(OrderPlaced, group="logged")(logged(mail))
    found = [(each.group, each.takes, each.is_async) for each in router.subscriptions()]
    assert found == [
        ("mail", ("tx",), True),
        ("file", ("envelope",), True),
        ("office", (), True),
        ("logged", ("tx",), True),
    ]


async def generates(order: OrderPlaced):
    yield order


def yields(order: OrderPlaced):
    yield order


async def nothing() -> None: ...
async def two_messages(order: OrderPlaced, other: OrderPaid) -> None: ...
async def unannotated(order: OrderPlaced, tx) -> None: ...
async def keyword(order: OrderPlaced, *, tx: Transaction) -> None: ...
async def twice(order: OrderPlaced, tx: Transaction, ty: Transaction) -> None: ...
async def behind(order: OrderPlaced, attempts: int = 1, *, tx: Transaction | None = None) -> None: ...
async def late(order: OrderPlaced, attempts: int = 1, tx: Transaction = None) -> None: ...  # type: ignore[assignment]
async def other_event(order: OrderPaid) -> None: ...
async def misspelt(order: OrderPlaced, tx: Transactoin) -> None: ...  # type: ignore[name-defined]  # noqa: F821
def plain(order: OrderPlaced, tx: Transaction) -> None: ...
async def broken(order: OrderPlaced, tx: 3 + None) -> None: ...  # type: ignore[valid-type]


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (generates, ["yields", "return a list"]),
        (yields, ["yields", "return a list"]),
        (nothing, ["takes 0 parameters", "message as the first"]),
        (two_messages, ["'other' is annotated OrderPaid", "tx: Transaction"]),
        (unannotated, ["'tx' has no annotation"]),
        (keyword, ["'tx' is keyword-only"]),
        (twice, ["takes tx twice"]),
        (late, ["'tx' comes after 'attempts'"]),
        (other_event, ["subscribed to OrderPlaced but takes OrderPaid"]),
        (misspelt, ["is annotated Transactoin"]),
        (plain, ["plain function", "async def"]),
        (broken, ["annotation of 'tx' cannot be read"]),
    ],
)
def test_a_function_that_cannot_be_called_is_refused_with_its_place(function: Any, words: list[str]) -> None:
    router = Router()
    router.on(OrderPlaced)(function)
    refused(router, *words, f"{__name__}:{function.__name__}", "test_router.py:")


def test_parameters_with_defaults_keep_them() -> None:
    router = Router()
    router.on(OrderPlaced)(behind)
    assert router.subscriptions()[0].takes == ()


@pytest.mark.parametrize("value", [None, 3, "send_receipt", OrderPlaced])
def test_what_is_no_function_is_refused_at_once(value: Any) -> None:
    with pytest.raises(BadHandler):
        Router().on(OrderPlaced)(value)


def test_a_nameless_function_needs_a_group() -> None:
    with pytest.raises(BadHandler, match="group"):
        Router().on(OrderPlaced)(lambda order: None)
    router = Router()
    router.on(OrderPlaced, group="short")(lambda order: None)
    assert [(each.group, each.is_async) for each in router.subscriptions()] == [("short", False)]


def test_two_handlers_of_one_name_are_refused_with_both_places() -> None:
    router = Router()

    def declare() -> None:
        @router.on(OrderPaid)
        async def follow(order: OrderPaid) -> None: ...

    @router.on(OrderPlaced)
    async def follow(order: OrderPlaced) -> None: ...

    declare()
    error = refused(router, "two handlers share the group 'follow'")
    assert error.what.count("test_router.py:") == 2


def test_a_function_subscribed_twice_is_told_to_use_a_union() -> None:
    router = Router()

    @router.on(OrderPlaced)
    @router.on(OrderPaid)
    async def follow(order: OrderPlaced | OrderPaid) -> None: ...

    assert "on(A | B)" in refused(router).cure


def test_a_command_has_one_handler() -> None:
    router = Router()

    @router.on(Charge)
    async def first(order: Charge) -> None: ...
    @router.on(Charge | OrderPaid)
    async def second(order: Charge | OrderPaid) -> None: ...

    refused(router, "the command Charge is handled twice", "first", "second")


def test_parts_of_one_app_do_not_share_tables() -> None:
    balances = Projection("customers_by_name", schema="CREATE TABLE Customers (name TEXT)")

    @balances.on(Customer)
    async def note(record: Customer, tx: Transaction) -> None: ...

    with pytest.raises(BadDeclaration, match="two parts create the table customers"):
        check_together([*balances.subscriptions(), *Replica(Customer).subscriptions()])


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"concurrency": 0}, "concurrency=0"),
        ({"concurrency": True}, "concurrency=True"),
        ({"concurrency": 1.5}, "concurrency=1.5"),
        ({"start": "now"}, "start='now'"),
        ({"start": -1}, "start=-1"),
        ({"start": True}, "start=True"),
        ({"on_dead": "drop"}, "on_dead='drop'"),
        ({"retry": 3}, "Retry(...)"),
        ({"needs": {"ordered": True}}, "Needs(...)"),
        ({"fetch": 3}, "fetch=3"),
    ],
)
def test_options_outside_their_range_are_refused(options: dict[str, Any], word: str) -> None:
    with pytest.raises(BadHandler) as caught:
        Router().on(OrderPlaced, **options)(other_event)
    assert word in str(caught.value)
    assert "test_router.py:" in str(caught.value)


def test_options_reach_the_subscription() -> None:
    router = Router("billing")
    retry, needs = Retry(attempts=2), Needs(ordered=True)
    options: dict[str, Any] = {"concurrency": 1, "start": 7, "on_dead": "skip", "newest": True}
    router.on(OrderPaid, group="billing.paid", retry=retry, needs=needs, **options)(other_event)
    (found,) = router.subscriptions()
    assert (found.group, found.retry, found.needs) == ("billing.paid", retry, needs)
    assert (found.concurrency, found.start, found.on_dead, found.newest) == (1, 7, "skip", True)


@pytest.mark.parametrize("group", ["", "a b", "tidings.own", "x" * 201])
def test_a_group_has_a_stable_name(group: str) -> None:
    with pytest.raises(BadDeclaration, match="the group of"):
        Router().on(OrderPaid, group=group)(other_event)


@pytest.mark.parametrize("form", [3, str, "OrderPlaced", OrderPlaced("a"), OrderPlaced | str])
def test_only_messages_can_be_subscribed_to(form: Any) -> None:
    with pytest.raises(NotAMessage):
        Router().on(form)


def test_on_without_parentheses_says_how_to_write_it() -> None:
    with pytest.raises(BadHandler, match=r"without parentheses.*@app\.on\(OrderPlaced\)"):
        Router().on(other_event)  # type: ignore[arg-type, type-var]
