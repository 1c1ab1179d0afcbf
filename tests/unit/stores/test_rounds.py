"""Rounds: how many tasks of a loop write in one round of it, and whose turn it is then."""

import asyncio
import time

from tidings.stores.rounds import LONGEST, Rounds


async def test_a_task_may_write_once_before_the_others_have_their_turn_and_then_again_and_again() -> None:
    rounds = Rounds(asyncio.get_running_loop())
    assert [rounds.is_alone(), rounds.is_alone()] == [True, False]
    await asyncio.sleep(0)
    assert [rounds.is_alone() for _ in range(3)] == [True, True, True]


async def test_nobody_is_alone_where_several_wrote_in_a_round_until_one_did_again() -> None:
    rounds = Rounds(asyncio.get_running_loop())

    async def another() -> bool:
        return rounds.is_alone()

    assert await asyncio.gather(another(), another()) == [True, False]
    await asyncio.sleep(0)
    assert not rounds.is_alone()
    rounds.crowded = False
    assert rounds.is_alone()


async def test_the_others_have_their_turn_after_a_while() -> None:
    rounds = Rounds(asyncio.get_running_loop())
    rounds.is_alone()
    assert not rounds.is_long()
    time.sleep(LONGEST * 1.1)  # noqa: ASYNC251 - as commits do
    assert rounds.is_long()
    await asyncio.sleep(0)
    rounds.is_alone()
    assert not rounds.is_long()
