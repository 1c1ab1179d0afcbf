"""A decider folds stored events and turns a command into events, with pure functions."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import attrs
import msgspec
import pydantic
import pytest

from tidings.core.message import Key, command, event, state
from tidings.core.outcome import Again
from tidings.core.retry import Retry
from tidings.errors import BadArgument, BadDeclaration, StoreUnavailable, Unreadable, WrongVersion
from tidings.patterns.decider import Decider


@event
class Opened:
    account_id: Key[str]


@event(was=("PaidIn", "Deposit.v1"))
class Deposited:
    account_id: Key[str]
    amount: int


@event
class Withdrawn:
    account_id: Key[str]
    amount: int


@command
class Open:
    account_id: Key[str]


@command
class Withdraw:
    account_id: Key[str]
    amount: int


class InsufficientFunds(Exception): ...


@dataclass(frozen=True)
class Account:
    balance: int = 0
    open: bool = False


Event: TypeAlias = Opened | Deposited | Withdrawn
Command = Open | Withdraw


def decide(account: Account, command: Command) -> Iterator[Event]:
    match command:
        case Open(account_id) if not account.open:
            yield Opened(account_id)
        case Withdraw(account_id, amount):
            if amount > account.balance:
                raise InsufficientFunds
            yield Withdrawn(account_id, amount)


def evolve(account: Account, event: Event) -> Account:
    match event:
        case Opened():
            return replace(account, open=True)
        case Deposited(amount=amount):
            return replace(account, balance=account.balance + amount)
        case Withdrawn(amount=amount):
            return replace(account, balance=account.balance - amount)


accounts = Decider("account", initial=Account(), decide=decide, evolve=evolve)


def stored(*events: tuple[str, str]) -> list[tuple[str, bytes, int]]:
    return [(name, data.encode(), version) for version, (name, data) in enumerate(events, 1)]


def test_types_are_read_from_the_annotations() -> None:
    assert [kind.name for kind in accounts.events] == ["Opened", "Deposited", "Withdrawn"]
    assert [kind.name for kind in accounts.commands] == ["Open", "Withdraw"]
    assert [kind.name for kind in accounts.message_types()] == ["Opened", "Deposited", "Withdrawn", "Open", "Withdraw"]


@pytest.mark.proves("G17")
def test_stored_events_fold_into_a_state_also_under_their_earlier_names() -> None:
    rows = stored(
        ("Opened", '{"account_id":"a"}'),
        ("PaidIn", '{"account_id":"a","amount":7}'),
        ("Deposit.v1", '{"account_id":"a","amount":8}'),
        ("Withdrawn", '{"account_id":"a","amount":5}'),
    )
    assert accounts.fold(accounts.initial, rows) == Account(10, open=True)
    assert accounts.fold(Account(1), []) == Account(1)


def test_a_thousand_events_fold_in_a_few_milliseconds_of_cpu() -> None:
    rows = stored(*[("Deposited", '{"account_id":"a","amount":3}')] * 1000)
    light = Decider("light", initial=0, decide=lambda total, command: None, evolve=add, commands=Withdraw)

    def run() -> float:
        before = time.process_time()
        assert light.fold(0, rows) == 3000
        return time.process_time() - before

    assert min(run() for _ in range(5)) < 0.004


def add(total: int, event: Deposited) -> int:
    return total + event.amount


def test_an_unknown_stored_event_is_unreadable_with_a_cure() -> None:
    with pytest.raises(Unreadable) as caught:
        accounts.fold(Account(), stored(("Opened", '{"account_id":"a"}'), ("Frozen", "{}")))
    assert "Frozen at version 2" in caught.value.what
    assert '@event(was=("Frozen",))' in caught.value.cure
    assert caught.value.data == {"type": "Frozen", "version": 2}


def test_damaged_data_is_unreadable() -> None:
    with pytest.raises(Unreadable, match="Deposited cannot be read"):
        accounts.fold(Account(), stored(("Deposited", '{"account_id":"a"}')))


def test_an_error_of_evolve_is_its_own() -> None:
    def fails(total: int, event: Deposited) -> int:
        return {}[event.amount]

    broken = Decider("broken", initial=0, decide=lambda total, command: None, evolve=fails, commands=Withdraw)
    with pytest.raises(KeyError, match="5"):
        broken.fold(0, stored(("Deposited", '{"account_id":"a","amount":5}')))


def one(account: Account, command: Withdraw) -> Withdrawn:
    return Withdrawn(command.account_id, command.amount)


def maybe(account: Account, command: Withdraw) -> Withdrawn | None:
    return Withdrawn(command.account_id, command.amount) if command.amount else None


def many(account: Account, command: Withdraw) -> list[Withdrawn]:
    return [Withdrawn(command.account_id, 1)] * command.amount


def lazily(account: Account, command: Withdraw) -> Iterator[Withdrawn]:
    return (Withdrawn(command.account_id, 1) for _ in range(command.amount))


@pytest.mark.parametrize(
    ("function", "amount", "expected"),
    [
        (one, 2, [Withdrawn("a", 2)]),
        (maybe, 2, [Withdrawn("a", 2)]),
        (maybe, 0, []),
        (many, 2, [Withdrawn("a", 1)] * 2),
        (many, 0, []),
        (lazily, 2, [Withdrawn("a", 1)] * 2),
    ],
)
def test_decide_may_give_one_event_several_or_none(function: Any, amount: int, expected: list[Any]) -> None:
    decider = Decider("account", initial=Account(), decide=function, evolve=evolve)
    assert decider.decide(Account(), Withdraw("a", amount)) == expected


def test_a_refusal_passes_through() -> None:
    with pytest.raises(InsufficientFunds):
        accounts.decide(Account(balance=3), Withdraw("a", 4))


def test_an_event_that_can_be_iterated_is_one_event() -> None:
    @event
    class Listed(msgspec.Struct, frozen=True):
        names: tuple[str, ...] = ()

        def __iter__(self) -> Iterator[str]:
            return iter(self.names)

    def listing(total: int, command: Open) -> Any:
        return Listed(("a", "b"))

    def count(total: int, event: Listed) -> int:
        return total + 1

    decider: Decider[int, Open, Listed] = Decider("list", initial=0, decide=listing, evolve=count, events=Listed)
    assert decider.decide(0, Open("a")) == [Listed(("a", "b"))]


def test_an_event_that_evolve_does_not_take_is_refused() -> None:
    def wrong(total: int, command: Withdraw) -> Any:
        return [Withdrawn("a", 1)]

    decider: Any = Decider("d", initial=0, decide=wrong, evolve=add)
    with pytest.raises(BadDeclaration, match=r"Withdraw led to a Withdrawn.*what evolve takes: Deposited"):
        decider.decide(0, Withdraw("a", 1))


@pytest.mark.parametrize("given", ["Deposited", b"x", 3, object()])
def test_what_is_no_event_is_refused(given: Any) -> None:
    decider: Any = Decider("d", initial=0, decide=lambda total, command: given, evolve=add, commands=Withdraw)
    with pytest.raises(BadDeclaration, match="led to a"):
        decider.decide(0, Withdraw("a", 1))


def test_an_event_of_another_key_is_refused() -> None:
    decider = Decider("d", initial=Account(), decide=elsewhere, evolve=evolve)
    with pytest.raises(BadArgument, match="for 'a' led to a Withdrawn for 'b'"):
        decider.decide(Account(), Withdraw("a", 1))


def elsewhere(account: Account, command: Withdraw) -> Withdrawn:
    return Withdrawn("b", command.amount)


def test_a_command_of_another_decider_is_refused() -> None:
    with pytest.raises(BadArgument, match=r"account got a Deposited.*its commands are: Open, Withdraw"):
        accounts.decide(Account(), Deposited("a", 1))  # type: ignore[arg-type]
    with pytest.raises(BadArgument, match="the key of this Open is None"):
        accounts.decide(Account(), Open(None))  # type: ignore[arg-type]


def test_a_mutable_initial_state_is_never_shared() -> None:
    @dataclass
    class Basket:
        items: list[int] = field(default_factory=list)

    def fill(basket: Basket, event: Deposited) -> Basket:
        basket.items.append(event.amount)
        return basket

    decider = Decider("basket", initial=Basket(), decide=one_deposit, evolve=fill)
    rows = stored(("Deposited", '{"account_id":"a","amount":5}'))
    assert decider.fold(decider.initial, rows) == decider.fold(decider.initial, rows) == Basket([5])
    assert decider.initial == Basket()


def one_deposit(basket: object, command: Withdraw) -> Deposited:
    return Deposited(command.account_id, command.amount)


@dataclass(frozen=True)
class Holder:
    value: object


@attrs.frozen
class Attrs:
    value: int


class Struct(msgspec.Struct, frozen=True):
    value: object


class Model(pydantic.BaseModel, frozen=True):
    value: int


@pytest.mark.parametrize("value", [0, "", None, (), (1, ("a",)), Holder(1), Struct(Holder(())), frozenset({1})])
def test_an_immutable_initial_state_is_not_copied(value: Any) -> None:
    decider: Any = Decider("d", initial=value, decide=one_deposit, evolve=evolve)
    assert decider.initial is value


@pytest.mark.parametrize("value", [[], {}, Holder([]), Struct({}), ([],), Attrs(1), Model(value=1)])
def test_any_other_initial_state_is_copied(value: Any) -> None:
    decider: Any = Decider("d", initial=value, decide=one_deposit, evolve=evolve)
    assert decider.initial == value
    assert decider.initial is not value


def test_sent_commands_have_one_group_of_the_deciders_name() -> None:
    retry = Retry(never=(InsufficientFunds,))
    (found,) = Decider("account", initial=Account(), decide=decide, evolve=evolve, retry=retry).subscriptions()
    assert (found.group, found.takes, found.is_async, found.retry) == ("account", ("tx",), True, retry)
    assert [kind.name for kind in found.commands] == ["Open", "Withdraw"]
    assert "test_decider.py:" in found.where


def test_a_refusal_is_final_and_in_nobodys_way_unless_the_decider_says_otherwise() -> None:
    (found,) = accounts.subscriptions()
    assert found.on_dead == "skip"
    assert found.retry.for_error(InsufficientFunds()).wait(1, 0.5) is None
    passing = (Again("not yet"), StoreUnavailable("away"), WrongVersion("somebody was first"))
    assert all(found.retry.for_error(error).wait(1, 0.5) is not None for error in passing)
    patient = Decider("account", initial=Account(), decide=decide, evolve=evolve, retry=Retry(3), on_dead="park")
    (found,) = patient.subscriptions()
    assert (found.on_dead, found.retry) == ("park", Retry(3))
    with pytest.raises(BadDeclaration, match='on_dead is "park" or "skip"'):
        Decider("account", initial=Account(), decide=decide, evolve=evolve, on_dead="drop")  # type: ignore[arg-type]


def test_streams_are_named_after_decider_and_key() -> None:
    assert accounts.stream("a-1") == "account:a-1"
    assert accounts.key_of(Open("a-1")) == "a-1"


def test_no_decider_takes_the_streams_of_states() -> None:
    with pytest.raises(BadDeclaration, match="choose another name"):
        Decider("state", initial=Account(), decide=decide, evolve=evolve)
    with pytest.raises(BadDeclaration, match="leave out the colon"):  # else a:b with key c is a with key b:c
        Decider("a:b", initial=Account(), decide=decide, evolve=evolve)


def test_partials_and_methods_serve_as_well() -> None:
    def limited(account: Account, command: Withdraw, *, limit: int) -> Withdrawn:
        return Withdrawn(command.account_id, min(limit, command.amount))

    class Rules:
        def evolve(self, account: Account, event: Withdrawn | Opened) -> Account:
            return account

    decider = Decider("d", initial=Account(), decide=functools.partial(limited, limit=3), evolve=Rules().evolve)
    assert decider.decide(Account(), Withdraw("a", 9)) == [Withdrawn("a", 3)]
    assert [kind.name for kind in decider.events] == ["Withdrawn", "Opened"]


def unannotated(account, event): ...
def alone(account: Account) -> Account: ...  # type: ignore[empty-body]
def unknown(account: Account, event: Missing) -> Account: ...  # type: ignore  # noqa: F821, PGH003
def no_message(account: Account, event: Opened | str) -> Account: ...  # type: ignore[empty-body]
def a_command(account: Account, event: Opened | Open) -> Account: ...  # type: ignore[empty-body]
def anything(account: Account, event: Any) -> Account: ...  # type: ignore[empty-body]


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (unannotated, ["names no type", "events=A | B"]),
        (alone, ["names no type"]),
        (unknown, ["names no type"]),
        (anything, ["names no type"]),
        (no_message, ["str is not a message", "evolve"]),
        (a_command, ["evolve takes Open, which is declared with @command", "@event"]),
    ],
)
def test_event_types_that_cannot_be_told_are_refused_at_start_up(function: Any, words: list[str]) -> None:
    decider = Decider("d", initial=Account(), decide=decide, evolve=function)
    with pytest.raises(BadDeclaration) as caught:
        decider.message_types()
    for word in words:
        assert word in str(caught.value)


def test_types_can_be_given_instead() -> None:
    decider: Any = Decider(
        "d", initial=0, decide=unannotated, evolve=unannotated, events=Opened | Withdrawn, commands=Command
    )
    assert [kind.name for kind in decider.message_types()] == ["Opened", "Withdrawn", "Open", "Withdraw"]


def test_commands_need_a_key() -> None:
    @command
    class Sweep:
        depth: int

    decider = Decider("d", initial=0, decide=lambda total, command: None, evolve=add, commands=Sweep)
    with pytest.raises(BadDeclaration, match="the command Sweep has no key"):
        decider.subscriptions()


def test_states_are_no_events() -> None:
    @state(topic="customers")
    class Customer:
        customer_id: Key[str]

    decider: Any = Decider("d", initial=0, decide=unannotated, evolve=unannotated, events=Customer, commands=Open)
    with pytest.raises(BadDeclaration, match="Customer, which is declared with @state"):
        decider.message_types()


async def later(account: Account, command: Withdraw) -> None: ...


async def later_still(account: Account, command: Withdraw):
    yield Withdrawn("a", 1)


@pytest.mark.parametrize("function", [later, later_still, None, 3])
def test_decide_is_a_plain_function(function: Any) -> None:
    with pytest.raises(BadDeclaration, match="decider d"):
        Decider("d", initial=0, decide=function, evolve=add)


@pytest.mark.parametrize("name", ["", "a b", "tidings.x", "a:", 3])
def test_a_decider_has_a_stable_name(name: Any) -> None:
    with pytest.raises(BadDeclaration, match="a decider is named"):
        Decider(name, initial=0, decide=decide, evolve=evolve)  # type: ignore[arg-type]
