"""What a decider, a projection and a replica give back is typed, and what does not fit them is an error.

Nothing here runs: `make check` reads it, as it reads handlers.py.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import assert_type

from tidings import App, Decider, Key, Projection, Replica, Transaction, command, event, state


@event
class Deposited:
    account_id: Key[str]
    amount: int


@event
class Withdrawn:
    account_id: Key[str]
    amount: int


@command
class Withdraw:
    account_id: Key[str]
    amount: int


@state(topic="customers")
class Customer:
    customer_id: Key[str]
    name: str


@dataclass(frozen=True)
class Account:
    amount: int = 0


# -- deciders ---------------------------------------------------------------------------------------------------------


def decide(account: Account, command: Withdraw) -> Iterator[Deposited | Withdrawn]:
    if account.amount >= command.amount:
        yield Withdrawn(command.account_id, command.amount)


def evolve(account: Account, event: Deposited | Withdrawn) -> Account:
    return Account(account.amount + (event.amount if isinstance(event, Deposited) else -event.amount))


def evolve_other(account: str, event: Deposited | Withdrawn) -> str:
    return account


accounts = Decider("account", initial=Account(), decide=decide, evolve=evolve)
assert_type(accounts.initial, Account)
Decider("account", initial=Account(), decide=decide, evolve=evolve_other)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

# -- projections ------------------------------------------------------------------------------------------------------

balances = Projection("balances", schema="CREATE TABLE balance (account_id TEXT PRIMARY KEY, amount INTEGER)")


@balances.on(Deposited | Withdrawn)
async def move(event: Deposited | Withdrawn, tx: Transaction) -> None: ...


@balances.on(Deposited | Withdrawn)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
async def half(event: Deposited, tx: Transaction) -> None: ...


# -- replicas and reading ---------------------------------------------------------------------------------------------

customers = Replica(Customer)
app = App("sqlite::memory:", accounts, balances, customers)


@app.on(Deposited)
async def thank(event: Deposited, tx: Transaction) -> None:
    assert_type(await tx.get(customers, event.account_id), Customer | None)
    assert_type(await app.get(accounts, event.account_id), Account)
    str((await tx.get(customers, event.account_id)).name)  # type: ignore[union-attr]  # pyright: ignore[reportOptionalMemberAccess]


@app.on(Deposited)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
async def confuse(event: Withdrawn) -> None: ...
