"""Event sourcing with CQRS: decide from history, keep what happened, and read from a table made for reading.

It prints:

    refused: a-1 has 50, not 1000000
    the balance of a-1 is 30
    [('a-1', 30)]
"""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass

from tidings import App, Decider, Key, Projection, Transaction, command, event


@command
class Deposit:
    account_id: Key[str]
    amount: int


@command
class Withdraw:
    account_id: Key[str]
    amount: int


@event  # without a topic it stays in its own store
class Deposited:
    account_id: Key[str]
    amount: int


@event
class Withdrawn:
    account_id: Key[str]
    amount: int


class InsufficientFunds(Exception):
    """There is less on the account than is asked for."""


@dataclass(frozen=True)
class Account:
    balance: int = 0


def decide(account: Account, command: Deposit | Withdraw) -> Iterator[Deposited | Withdrawn]:
    match command:
        case Deposit(account_id, amount):
            yield Deposited(account_id, amount)
        case Withdraw(account_id, amount) if amount > account.balance:
            raise InsufficientFunds(f"{account_id} has {account.balance}, not {amount}")
        case Withdraw(account_id, amount):
            yield Withdrawn(account_id, amount)


def evolve(account: Account, event: Deposited | Withdrawn) -> Account:
    match event:
        case Deposited(amount=amount):
            return Account(account.balance + amount)
        case Withdrawn(amount=amount):
            return Account(account.balance - amount)


accounts = Decider("account", initial=Account(), decide=decide, evolve=evolve)
balances = Projection("balances", schema="CREATE TABLE balance (account_id TEXT PRIMARY KEY, amount INTEGER)")


@balances.on(Deposited | Withdrawn)
async def move(event: Deposited | Withdrawn, tx: Transaction) -> None:
    change = event.amount if isinstance(event, Deposited) else -event.amount
    await tx.execute(
        "INSERT INTO balance VALUES (?, ?) "
        "ON CONFLICT (account_id) DO UPDATE SET amount = balance.amount + excluded.amount",
        *(event.account_id, change),
    )


app = App("sqlite:bank.db", accounts, balances)


async def main() -> None:
    async with app:
        running = asyncio.create_task(app.run())
        await app.execute(accounts, Deposit("a-1", 50))
        try:
            await app.execute(accounts, Withdraw("a-1", 1_000_000))
        except InsufficientFunds as refused:
            print(f"refused: {refused}")
        position = await app.execute(accounts, Withdraw("a-1", 20))
        account = await app.get(accounts, "a-1")
        print(f"the balance of a-1 is {account.balance}")
        print(
            await app.query(balances, "SELECT * FROM balance", after=position)
        )  # waits until it knows of the withdrawal
        app.stop()
        await running


if __name__ == "__main__":
    asyncio.run(main())
