"""How workers of one app come to share its shards.

RabbitMQ gives every queue to the worker that asked first, so that the first worker would have them all. Whoever has
more than his share therefore gives way, and stands in line again behind the others.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Mapping

from tidings.brokers.rabbitmq.connection import Connection
from tidings.brokers.rabbitmq.intake import Intake, depth
from tidings.brokers.rabbitmq.topology import Topology
from tidings.brokers.rabbitmq.trouble import Ended

ROUND = 4.0
"""Seconds between two looks at how many workers there are, at most; half of it is left to chance."""

_log = logging.getLogger("tidings.rabbitmq")


async def share(connection: Connection, topology: Topology, intakes: Mapping[str, Intake]) -> None:
    """Give way where this worker has more than its share; for as long as the connection lives."""
    if topology.settings.shards == 1:
        return
    while not connection.ended.done():
        with contextlib.suppress(Ended), contextlib.closing(await connection.channel()) as channel:
            # Nobody publishes there: it is a list of those present.
            await channel.call("basic_consume", queue=topology.roll, on_message_callback=lambda *_: None)
            while True:
                await _pause()
                workers = (await depth(channel, topology.roll))[1]
                fair = -(-len(intakes) // max(workers, 1))
                busy = [intake for intake in intakes.values() if intake.busy]
                random.shuffle(busy)
                for intake in busy[fair:]:
                    _log.info("RabbitMQ: the queue %s is left to another of %d workers", intake.queue, workers)
                    intake.give_way()
        await _pause()


async def _pause() -> None:
    await asyncio.sleep(ROUND * random.uniform(0.5, 1.0))  # noqa: S311 - no secret
