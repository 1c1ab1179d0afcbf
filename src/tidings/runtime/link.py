"""The link of one worker to its broker: opened in the background, kept up, and closed last."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

from tidings.core.message import address_of
from tidings.core.ports import Broker, Store
from tidings.core.subscription import Subscription
from tidings.runtime.claims import Claims, again
from tidings.runtime.clock import Clock
from tidings.runtime.drain import LAST
from tidings.runtime.inbound import Arrived, Inbound
from tidings.runtime.outbound import Outbound
from tidings.runtime.pump import Pump
from tidings.runtime.wanted import TOPIC, Wanted

log = logging.getLogger("tidings")


def topics_of(app: str, subscriptions: Sequence[Subscription]) -> list[str]:
    """What an app subscribes to at its broker: topics of its handlers, and those by which apps speak to each other."""
    own = address_of(app)
    topics = {kind.topic for each in subscriptions for kind in each.types if kind.topic is not None}
    return [*sorted(topics - {own}), TOPIC, own]


class Link:
    """Carries what an app publishes out, and what it subscribes to in; without a broker all else goes on.

    Attributes:
        subscriptions: What the worker is to run for it, beside those of the app.
        inbound: Takes in what arrives.
        outbound: Carries what is published.
        wanted: Asks for current states.
    """

    def __init__(
        self,
        app: str,
        store: Store,
        broker: Broker,
        subscriptions: Sequence[Subscription],
        clock: Clock,
        *,
        finished: Callable[[int], Awaitable[bool]],
        arrived: Arrived,
        on_caused: list[Callable[[str], object]],
        claims: Claims | None = None,
    ) -> None:
        """Args: subscriptions: of the app. finished, arrived, on_caused: see Inbound."""
        self._app = app
        self._broker = broker
        opened = asyncio.Event()
        self.inbound = Inbound(
            app,
            store,
            broker,
            topics_of(app, subscriptions),
            opened,
            clock,
            finished=finished,
            arrived=arrived,
            on_caused=on_caused,
            claims=claims,
        )
        self.outbound = Outbound(app, broker, opened, clock, claims)
        self.wanted = Wanted(app, store, self.outbound.carry_all, clock)
        retried = () if claims is None else (again(store, claims),)
        self.subscriptions = (self.outbound.subscription, self.wanted.subscription, *retried)

    def follow(self, pumps: Sequence[Pump]) -> None:
        """Hear of what the pumps of the worker do. Args: pumps: one for each subscription, ours included."""
        for pump in pumps:
            pump.on_settled = self.inbound.look
        carrying = next(pump for pump in pumps if pump.subscription is self.outbound.subscription)
        self.outbound.alone = lambda: not carrying.lanes.ready

    async def run(self) -> None:
        """Open the broker as soon as it can be reached, and take in what it brings, until cancelled.

        Raises:
            BrokerRefused: Somebody has to mend something first.
        """
        await self.inbound.run()

    async def idle(self) -> bool:
        """True when nothing is on its way from the broker into the log."""
        return await self.inbound.idle()

    async def close(self) -> None:
        """Let go of the broker; what is not settled comes again."""
        async with leaving(self._app):
            try:
                await self.inbound.settle()
            finally:
                await self._broker.close()


@asynccontextmanager
async def leaving(app: str) -> AsyncIterator[None]:
    """Let go of a broker within the block: whatever goes wrong, or takes too long, ends nothing else."""
    try:
        async with asyncio.timeout(LAST):
            yield
    except Exception as error:  # noqa: BLE001 - the worker ends all the same
        log.warning("%s: the broker was not closed: %s", app, error)
