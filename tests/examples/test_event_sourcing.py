"""How an app that uses event sourcing is tested: as sentences, without a store."""

from examples.event_sourcing import Deposit, Deposited, InsufficientFunds, Withdraw, Withdrawn, accounts, balances
from tidings.testing.given import given


def test_what_is_there_can_be_withdrawn() -> None:
    given(accounts, Deposited("a-1", 50)).when(Withdraw("a-1", 20)).then(Withdrawn("a-1", 20))


def test_what_is_not_there_cannot() -> None:
    given(accounts, Deposited("a-1", 50)).when(Withdraw("a-1", 80)).raises(InsufficientFunds)


def test_a_deposit_opens_the_account() -> None:
    given(accounts).when(Deposit("a-1", 50)).then(Deposited("a-1", 50))


async def test_the_table_of_balances_follows() -> None:
    table = given(balances, Deposited("a-1", 50), Withdrawn("a-1", 20))
    assert await table.rows("SELECT * FROM balance") == [("a-1", 30)]
