"""Event sourcing with CQRS: deciders, projections, and reading one's own writes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tidings import App, Decider, Key, Projection, Retry, Transaction, command, errors, event
from tidings.core.operations import Redrive


@event
class Deposited:
    """Money came."""

    account_id: Key[str]
    amount: int


@event
class Withdrawn:
    """Money went."""

    account_id: Key[str]
    amount: int


@event
class Closed:
    """Nothing that an account knows."""

    account_id: Key[str]


@command
class Deposit:
    """Put money in."""

    account_id: Key[str]
    amount: int


@command
class Withdraw:
    """Take money out."""

    account_id: Key[str]
    amount: int


@dataclass(frozen=True)
class Account:
    """The state of an account."""

    balance: int = 0


class InsufficientFunds(Exception):
    """The account holds less than is asked for."""


Command = Deposit | Withdraw
Event = Deposited | Withdrawn


def decide(account: Account, command: Command) -> Iterator[Event]:
    """What follows from a command."""
    match command:
        case Deposit(account_id, amount):
            yield Deposited(account_id, amount)
        case Withdraw(account_id, amount):
            if amount > account.balance:
                raise InsufficientFunds(account_id)
            yield Withdrawn(account_id, amount)


def evolve(account: Account, event: Event) -> Account:
    """The account after an event."""
    match event:
        case Deposited(_, amount):
            return Account(account.balance + amount)
        case Withdrawn(_, amount):
            return Account(account.balance - amount)


accounts = Decider("account", initial=Account(), decide=decide, evolve=evolve)


def balances_of(sign: str = "+") -> Projection:
    """A projection of balances; another sign makes it another code."""
    balances = Projection(
        "balances", schema="CREATE TABLE balance (account_id TEXT PRIMARY KEY, amount INTEGER NOT NULL)"
    )
    add = (
        "INSERT INTO balance VALUES (?, ?) "
        "ON CONFLICT (account_id) DO UPDATE SET amount = balance.amount + excluded.amount"
    )

    if sign == "+":

        @balances.on(Deposited | Withdrawn)
        async def move(event: Deposited | Withdrawn, tx: Transaction) -> None:
            await tx.execute(add, event.account_id, event.amount if isinstance(event, Deposited) else -event.amount)
    else:

        @balances.on(Deposited | Withdrawn)
        async def move_back(event: Deposited | Withdrawn, tx: Transaction) -> None:
            await tx.execute(add, event.account_id, event.amount if isinstance(event, Withdrawn) else -event.amount)

    return balances


async def test_a_command_is_decided_on_the_state_that_history_gives(url: str) -> None:
    app = App(url, accounts)
    async with app:
        await app.execute(accounts, Deposit("a", 50))
        await app.execute(accounts, Withdraw("a", 20))
        assert await app.get(accounts, "a") == Account(30)
        with pytest.raises(InsufficientFunds):
            await app.execute(accounts, Withdraw("a", 31))
        assert await app.get(accounts, "a") == Account(30)
        assert await app.get(accounts, "never") == Account()


async def test_concurrent_commands_on_one_stream_all_count(url: str) -> None:
    app = App(url, accounts)
    async with app:
        await asyncio.gather(*(app.execute(accounts, Deposit("a", 1)) for _ in range(40)))
        assert await app.get(accounts, "a") == Account(40)
        versions = [version for _, _, version in await app.store.load("account:a")]
    assert versions == list(range(1, 41))


async def test_a_crowd_on_one_stream_gets_through_however_many_decide_at_once(url: str) -> None:
    async with App(url, accounts) as app:
        await asyncio.gather(*(app.execute(accounts, Deposit("a", 1)) for _ in range(120)))
        assert await app.get(accounts, "a") == Account(120)


async def test_an_append_with_a_stale_expected_version_changes_nothing(url: str) -> None:
    app = App(url, accounts)
    async with app:
        assert await app.append(accounts, "a", Deposited("a", 1), Deposited("a", 2), expected=0) == 2
        with pytest.raises(errors.WrongVersion) as caught:
            await app.append(accounts, "a", Deposited("a", 3), expected=1)
        assert caught.value.data["actual"] == 2
        assert await app.append(accounts, "a", Deposited("a", 3)) == 3
        for wrong in (-2, "1", True, 1.0):
            with pytest.raises(errors.BadArgument):
                await app.append(accounts, "a", Deposited("a", 3), expected=wrong)  # type: ignore[arg-type]


async def test_what_the_decider_could_never_fold_is_not_appended(url: str) -> None:
    app = App(url, accounts)
    async with app:
        for key, wrong, error in (
            ("a", Closed("a"), errors.BadDeclaration),
            ("a", Deposited("b", 1), errors.BadArgument),
            (None, Deposited("None", 1), errors.BadArgument),
        ):
            with pytest.raises(error):
                await app.append(accounts, key, Deposited(str(key), 1), wrong)
        assert await app.store.head() == 0


async def test_a_sent_command_is_executed_by_the_decider_in_one_transaction(url: str) -> None:
    app = App(url, accounts)
    async with app:
        await app.send(Deposit("a", 5))
        await app.send(Withdraw("a", 9))
        await app.run(until_idle=True)
        assert await app.get(accounts, "a") == Account(5)
        (dead,) = await app.store.held()
    assert dead.reason.startswith("InsufficientFunds")
    assert dead.attempt == 1


async def test_a_refused_command_does_not_hold_up_the_next_one_of_its_key(url: str) -> None:
    app = App(url, accounts)
    async with app:
        for step in (Deposit("a", 5), Withdraw("a", 9), Deposit("a", 1)):
            await app.send(step)
        await app.run(until_idle=True)
        assert await app.get(accounts, "a") == Account(6)
        (dead,) = await app.store.held()
        await app.send(Deposit("a", 3))
        await app.store.write(Redrive([dead.id]))  # the account holds enough for it now, once that has come
        await app.run(until_idle=True)
        await app.store.write(Redrive([each.id for each in await app.store.held()]))
        await app.run(until_idle=True)
        assert await app.get(accounts, "a") == Account(0)
        assert await app.store.held() == []


async def test_a_query_waits_for_ones_own_write(url: str) -> None:
    balances = balances_of()
    app = App(url, accounts, balances)
    async with app:
        running = asyncio.create_task(app.run())
        for number in range(1, 20):
            position = await app.execute(accounts, Deposit("a", 1))
            rows = await app.query(balances, "SELECT amount FROM balance", after=position)
            assert rows == [(number,)]
        app.stop()
        await running


async def test_a_query_that_waits_in_vain_says_that_the_write_is_done(url: str) -> None:
    balances = balances_of()
    app = App(url, accounts, balances)
    async with app:
        await app.run(until_idle=True)
        position = await app.execute(accounts, Deposit("a", 1))
        with pytest.raises(errors.NotCaughtUp, match="the write is done"):
            await app.query(balances, "SELECT amount FROM balance", after=position, timeout=0.05)


async def test_a_position_that_is_not_written_yet_is_not_reached(url: str) -> None:
    balances = balances_of()
    async with App(url, accounts, balances) as app:
        position = await app.execute(accounts, Deposit("a", 1))
        await app.run(until_idle=True)
        assert await app.query(balances, "SELECT amount FROM balance", after=position) == [(1,)]
        with pytest.raises(errors.NotCaughtUp, match=f"position {position + 1}"):
            await app.query(balances, "SELECT amount FROM balance", after=position + 1, timeout=0.05)


async def test_a_query_does_not_wait_for_events_that_the_projection_does_not_read(url: str) -> None:
    balances = balances_of()
    app = App(url, accounts, balances)
    async with app:
        await app.execute(accounts, Deposit("a", 1))
        await app.run(until_idle=True)
        position = await app.send(Deposit("a", 1))
        assert await app.query(balances, "SELECT amount FROM balance", after=position, timeout=0.05) == [(1,)]


@pytest.mark.proves("G16")
async def test_a_projection_equals_the_fold_of_the_log_and_its_rebuild(url: str) -> None:
    balances = balances_of()
    app, steps = App(url, accounts, balances), list[tuple[int, int]]()
    async with app:
        for number in range(30):
            await app.append(accounts, f"k{number % 4}", Deposited(f"k{number % 4}", number))
        await app.run(until_idle=True)
        live = await app.query(balances, "SELECT * FROM balance ORDER BY 1")
        folded = [(f"k{key}", (await app.get(accounts, f"k{key}")).balance) for key in range(4)]
        await app.rebuild(balances, progress=lambda done, total: steps.append((done, total)))
        rebuilt = await app.query(balances, "SELECT * FROM balance ORDER BY 1")
    assert live == folded == rebuilt
    assert steps[-1] == (30, 30)


async def test_a_projection_whose_code_changed_asks_for_a_rebuild(url: str) -> None:
    app = App(url, accounts, balances_of())
    async with app:
        await app.append(accounts, "a", Deposited("a", 5))
        await app.run(until_idle=True)
    changed = balances_of("-")
    app = App(url, accounts, changed)
    async with app:
        with pytest.raises(errors.ProjectionChanged, match="projection rebuild balances"):
            await app.run(until_idle=True)
        await app.rebuild("balances")
        await app.run(until_idle=True)
        assert await app.query(changed, "SELECT amount FROM balance") == [(-5,)]


async def test_events_without_a_topic_stay_with_their_app(url: str) -> None:
    app, other, seen = App(url, accounts), App(url, name="other"), list[object]()

    @other.on(Deposited)
    async def spy(event: Deposited) -> None:
        seen.append(event)

    async with app:
        await app.execute(accounts, Deposit("a", 5))
        await other.run(until_idle=True)
    assert seen == []


async def test_a_failing_projection_handler_parks_the_key_and_goes_on_with_the_others(url: str) -> None:
    sums = Projection("sums", schema="CREATE TABLE sums (account_id TEXT PRIMARY KEY, amount INTEGER)", retry=Retry(1))
    broken = [True]

    @sums.on(Deposited)
    async def add(event: Deposited, tx: Transaction) -> None:
        await tx.execute("INSERT INTO sums VALUES (?, 0) ON CONFLICT DO NOTHING", event.account_id)
        await tx.execute("UPDATE sums SET amount = amount + ? WHERE account_id = ?", event.amount, event.account_id)
        if event.account_id == "bad" and broken[0]:
            raise ValueError("poison")

    app = App(url, accounts, sums)
    async with app:
        for number in range(6):
            key = ("bad", "good")[number % 2]
            await app.append(accounts, key, Deposited(key, 1))
        await app.run(until_idle=True)
        assert await app.query(sums, "SELECT * FROM sums") == [("good", 3)]
        broken[0] = False
        await app.store.write(Redrive([each.id for each in await app.store.held(state="dead")]))
        await app.run(until_idle=True)
        assert await app.query(sums, "SELECT * FROM sums ORDER BY 1") == [("bad", 3), ("good", 3)]
