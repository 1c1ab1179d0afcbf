"""Turns: one loop, and how many of its tasks write in one round of it."""

import asyncio

from tidings.stores.sqlite.turns import Turns


async def test_a_loop_has_one_turn_and_another_loop_another_one() -> None:
    turns = Turns()

    async def here() -> object:
        return turns.here()

    assert turns.here() is turns.here()
    assert await asyncio.to_thread(asyncio.run, here()) is not turns.here()


async def test_only_the_first_of_a_round_finds_it_free_and_the_next_round_is_free_again() -> None:
    turn = Turns().here()
    assert turn.is_free()
    turn.take()
    assert not turn.is_free()
    await asyncio.sleep(0)
    assert turn.is_free()
    turn.crowded = True
    assert not turn.is_free()
