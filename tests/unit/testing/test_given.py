"""given / when / then reads as a sentence and shows what differs."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest

from tidings.core.envelope import Envelope
from tidings.core.message import Gone, Key, command, event, state
from tidings.core.transaction import Transaction
from tidings.errors import BadArgument, BadDeclaration, BadPayload, NotAMessage
from tidings.patterns.decider import Decider
from tidings.patterns.projection import Projection
from tidings.patterns.replica import Replica
from tidings.testing.given import given


@event
class Opened:
    account_id: Key[str]


@event
class Deposited:
    account_id: Key[str]
    amount: float


@command
class Deposit:
    account_id: Key[str]
    amount: float


@command
class Withdraw:
    account_id: Key[str]
    amount: float


class Refused(Exception): ...


class InsufficientFunds(Refused): ...


@dataclass(frozen=True)
class Account:
    balance: float = 0
    open: bool = False


Event = Opened | Deposited
Command = Deposit | Withdraw


def decide(account: Account, command: Command) -> Iterator[Event]:
    match command:
        case Withdraw(_, amount) if amount > account.balance:
            raise InsufficientFunds(f"{account.balance} is less than {amount}")
        case Deposit(account_id, amount):
            if not account.open:
                yield Opened(account_id)
            if amount:
                yield Deposited(account_id, amount)


def evolve(account: Account, event: Event) -> Account:
    match event:
        case Opened():
            return replace(account, open=True)
        case Deposited(_, amount):
            return replace(account, balance=account.balance + amount)


accounts = Decider("account", initial=Account(), decide=decide, evolve=evolve)
balances = Projection("balances", schema="CREATE TABLE balance (account_id TEXT PRIMARY KEY, amount REAL)")


@balances.on(Deposited)
async def move(event: Deposited, tx: Transaction) -> None:
    sql = "INSERT INTO balance VALUES (?, ?) ON CONFLICT DO UPDATE SET amount = amount + excluded.amount"
    await tx.execute(sql, event.account_id, event.amount)


@state(topic="customers")
class Customer:
    customer_id: Key[str]
    name: str


def said(caught: pytest.ExceptionInfo[AssertionError]) -> list[str]:
    return str(caught.value).splitlines()


# ---- sentences that hold ---------------------------------------------------------------------------------------------


def test_a_command_leads_to_events_and_a_state() -> None:
    given(accounts).when(Deposit("a", 5)).then(Opened("a"), Deposited("a", 5)).state(Account(5, open=True))
    given(accounts, Opened("a")).when(Deposit("a", 5)).then(Deposited("a", 5))


def test_a_command_is_refused() -> None:
    refusal = given(accounts, Opened("a"), Deposited("a", 50)).when(Withdraw("a", 80)).raises(InsufficientFunds)
    assert str(refusal) == "50.0 is less than 80"
    given(accounts).when(Withdraw("a", 80)).raises(Refused, match="less than")
    given(accounts, Deposited("a", 1)).when(Withdraw("a", 80)).state(Account(1))


def test_nothing_may_happen() -> None:
    given(accounts, Opened("a")).when(Deposit("a", 0)).then_nothing().state(Account(open=True))


def test_a_history_leads_to_a_state() -> None:
    given(accounts, Opened("a"), Deposited("a", 2), Deposited("a", 3)).state(Account(5, open=True))
    given(accounts).state(Account())


async def test_messages_lead_to_rows() -> None:
    table = given(balances, Deposited("a", 2), Deposited("b", 1), Deposited("a", 3))
    assert await table.rows("SELECT * FROM balance ORDER BY 1") == [("a", 5.0), ("b", 1.0)]
    assert await table.rows("SELECT amount FROM balance WHERE account_id = ?", "a") == [(5.0,)]


async def test_states_lead_to_the_rows_of_a_replica() -> None:
    messages = [Customer("c", "Ada"), Customer("d", "Eva"), Customer("c", "Ida"), Gone(Customer, "d")]
    rows = await given(Replica(Customer), *messages).rows("SELECT customer_id, name, _version FROM customers")
    assert rows == [("c", "Ida", 2)]


# ---- sentences that do not -------------------------------------------------------------------------------------------


def test_other_events_are_shown_line_by_line() -> None:
    with pytest.raises(AssertionError) as caught:
        given(accounts).when(Deposit("a", 5)).then(Opened("a"), Deposited("a", 6))
    assert said(caught)[0] == "Deposit(account_id='a', amount=5) led to other events (- expected, + got):"
    assert "    Opened(account_id='a')" in said(caught)
    assert "  - Deposited(account_id='a', amount=6)" in said(caught)
    assert "  + Deposited(account_id='a', amount=5)" in said(caught)


def test_events_in_another_order_are_other_events() -> None:
    with pytest.raises(AssertionError):
        given(accounts).when(Deposit("a", 5)).then(Deposited("a", 5), Opened("a"))


def test_events_where_none_were_expected_are_shown() -> None:
    with pytest.raises(AssertionError) as caught:
        given(accounts, Opened("a")).when(Deposit("a", 5)).then_nothing()
    assert said(caught)[1:] == ["  - nothing", "  + Deposited(account_id='a', amount=5)"]


def test_an_unexpected_refusal_is_shown_with_its_cause() -> None:
    for check in ("then_nothing", "then"):
        with pytest.raises(AssertionError, match="was refused with InsufficientFunds") as caught:
            getattr(given(accounts).when(Withdraw("a", 5)), check)(*([Opened("a")] if check == "then" else []))
        assert isinstance(caught.value.__cause__, InsufficientFunds)


def test_a_missing_refusal_is_shown_with_the_events() -> None:
    with pytest.raises(AssertionError) as caught:
        given(accounts, Opened("a")).when(Deposit("a", 5)).raises(Refused)
    assert said(caught) == [
        "Deposit(account_id='a', amount=5) was not refused (- expected, + got):",
        "  - Refused",
        "  + Deposited(account_id='a', amount=5)",
    ]


def test_another_refusal_is_shown() -> None:
    refused = given(accounts).when(Withdraw("a", 5))
    with pytest.raises(AssertionError, match=r"refused with InsufficientFunds.*, not with KeyError"):
        refused.raises(KeyError)
    with pytest.raises(AssertionError, match="'more' does not match '0 is less than 5'"):
        refused.raises(Refused, match="more")


def test_another_state_is_shown() -> None:
    with pytest.raises(AssertionError) as caught:
        given(accounts, Deposited("a", 5)).state(Account(6))
    assert said(caught)[0] == "the history led to another state (- expected, + got):"
    assert "  - Account(balance=6, open=False)" in said(caught)
    assert "  + Account(balance=5.0, open=False)" in said(caught)


# ---- sentences that make no sense ------------------------------------------------------------------------------------


def test_wrong_use_is_told() -> None:
    wrong: Any = given
    with pytest.raises(BadArgument, match="begin with a Decider, Projection or Replica"):
        wrong(decide, Opened("a"))
    with pytest.raises(BadArgument, match=r"the command Deposit.*pass it to `when`"):
        wrong(accounts, Deposit("a", 1))
    with pytest.raises(BadArgument, match=r"got 'Opened', which is no event"):
        wrong(accounts, "Opened")
    with pytest.raises(BadArgument, match=r"the state Customer.*its events: Opened, Deposited"):
        wrong(accounts, Customer("a", "b"))
    with pytest.raises(BadArgument, match="its commands are"):
        wrong(accounts).when(Opened("a"))
    decision = wrong(accounts).when(Deposit("a", 5))
    with pytest.raises(BadArgument, match="then_nothing"):
        decision.then()
    with pytest.raises(BadArgument, match="is no event"):
        decision.then(Deposit("a", 5))
    with pytest.raises(NotAMessage):
        decision.then(None)
    with pytest.raises(BadArgument, match="give the exception class"):
        decision.raises("InsufficientFunds")
    with pytest.raises(BadArgument, match="balances does not take Opened"):
        wrong(balances, Opened("a"))
    with pytest.raises(BadArgument, match=r"does not take Gone\(Customer\)"):
        wrong(balances, Gone(Customer, "a"))


def test_what_could_not_be_stored_fails_here_too() -> None:
    with pytest.raises(BadPayload, match="inf"):
        given(accounts, Deposited("a", float("inf")))
    with pytest.raises(BadPayload, match="nan"):
        given(accounts, Opened("a")).when(Deposit("a", float("nan")))


def test_a_mistake_of_the_decider_is_no_refusal() -> None:
    def careless(account: Account, command: Deposit) -> Any:
        return Customer("a", "b")

    decider: Any = Decider("d", initial=Account(), decide=careless, evolve=evolve)
    with pytest.raises(BadDeclaration, match="led to a Customer"):
        given(decider).when(Deposit("a", 1))


@pytest.mark.parametrize("verb", ["publish", "send", "append", "load"])
async def test_a_projection_writes_its_tables_and_nothing_else(verb: str) -> None:
    projection = Projection("loud", schema="CREATE TABLE loud (x)")

    @projection.on(Opened)
    async def speak(event: Opened, tx: Transaction, envelope: Envelope) -> None:
        match verb:
            case "publish":
                await tx.publish(event)
            case "send":
                await tx.send(Deposit("a", 1), after=3)
            case "append":
                await tx.append("account:a", "a", [event])
            case "load":
                await tx.get(accounts, "a")

    with pytest.raises(BadArgument):
        await given(projection, Opened("a")).rows("SELECT * FROM loud")


async def test_an_error_of_sql_is_its_own() -> None:
    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        await given(balances).rows("SELECT * FROM missing")
