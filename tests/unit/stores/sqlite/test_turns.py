"""Turns: one for each event loop."""

import asyncio

from tidings.stores.sqlite.turns import Turns


async def test_a_loop_has_one_turn_and_another_loop_another_one() -> None:
    turns = Turns()

    async def here() -> object:
        return turns.here()

    assert turns.here() is turns.here()
    assert await asyncio.to_thread(asyncio.run, here()) is not turns.here()
