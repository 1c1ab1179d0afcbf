"""Rounds: how many tasks of a loop write in one round of it, and whose turn it is then."""

import asyncio
import time

from tidings.stores.rounds import LONGEST, Rounds


async def test_who_writes_alone_stays_alone_until_another_task_writes_in_the_same_round() -> None:
    rounds = Rounds(asyncio.get_running_loop())

    async def another() -> bool:
        return rounds.is_alone()

    assert rounds.is_alone()
    assert rounds.is_alone()
    await asyncio.sleep(0)
    assert await asyncio.gather(another(), another()) == [True, False]
    assert not rounds.is_alone()
    rounds.crowded = False
    await asyncio.sleep(0)
    assert rounds.is_alone()


async def test_the_others_have_their_turn_after_a_first_write_and_after_a_while() -> None:
    rounds = Rounds(asyncio.get_running_loop())
    rounds.is_alone()
    assert rounds.is_long()
    await asyncio.sleep(0)
    rounds.is_alone()
    assert not rounds.is_long()
    time.sleep(LONGEST * 1.1)  # noqa: ASYNC251 - as commits do
    assert rounds.is_long()
    await asyncio.sleep(0)
    rounds.is_alone()
    assert not rounds.is_long()
