"""Outbound: carries what this app published from the log to the broker, in order for each key.

It is a subscription like any other, to everything public that the app published: workers share it by slots, each key is
in order, and a message counts as carried once the broker has confirmed it. It has no attempts to count, though: while
the broker is away it waits, and only what the broker refuses for good becomes a dead letter.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from tidings.core.arrival import Confirmed, Rejected, Result, Unknown
from tidings.core.envelope import Envelope
from tidings.core.message import address_of
from tidings.core.outcome import Dead
from tidings.core.ports import Broker
from tidings.core.subscription import Subscription
from tidings.errors import BrokerUnavailable
from tidings.runtime.claims import CURE, Claims
from tidings.runtime.clock import Clock

log = logging.getLogger("tidings")

GROUP = "outbound"

KEYS = 500
"""Keys of which a message may be on its way to the broker at once."""

SHORTEST, LONGEST = 0.05, 2.0
"""Seconds before what was not confirmed is sent again; doubled each time, then drawn from up to that."""

COMPLAIN = 10.0
"""Seconds between two complaints about a broker that does not confirm."""


def leaves(envelope: Envelope, own: str) -> bool:
    """True for what is for others. Args: own: topic of what an app sends to itself."""
    return envelope.topic is not None and envelope.topic != own


class Outbound:
    """Publishes the log of one app at its broker.

    Attributes:
        subscription: To run like any other.
        alone: True where nothing else is about to be carried, so that a lone message need not wait for others.
    """

    def __init__(
        self, app: str, broker: Broker, opened: asyncio.Event, clock: Clock, claims: Claims | None = None
    ) -> None:
        """Args: app: name of the app; only what it published is carried. opened: set once the broker is."""
        self._app = app
        self._address = address_of(app)
        self._broker = broker
        self._opened = opened
        self._clock = clock
        self._claims = claims
        self.alone: Callable[[], bool] = lambda: False
        self._others: list[tuple[Envelope, asyncio.Future[Result]]] | None = None  # what goes out with the first one
        self._together = 0  # calls of `carry_all` under way
        self._complained = 0.0
        self.subscription = Subscription(
            GROUP,
            (),
            self.carry,
            where="tidings.runtime.outbound",
            concurrency=KEYS,
            wants=self._is_ours,
            counted=False,
        )

    def _is_ours(self, envelope: Envelope) -> bool:
        """Not what is private, not what came from elsewhere, and not what the app sends to itself."""
        return envelope.source == self._app and leaves(envelope, self._address)

    async def carry(self, envelope: Envelope) -> None:
        """Return once the broker has it.

        Raises:
            Dead: It never will.
        """
        await self._opened.wait()
        claims, sent, pause = self._claims, envelope, SHORTEST
        leave = claims is not None and len(envelope.data) > claims.over
        while True:
            result: Result
            try:
                if leave and claims is not None and sent is envelope:
                    sent = await claims.leave(envelope)
                result = await self._publish(sent)
            except BrokerUnavailable as error:
                result = Unknown(str(error))
            if isinstance(result, Confirmed):
                return
            if isinstance(result, Rejected):
                if not result.too_large or sent is not envelope or claims is None:
                    raise Dead(self._refusal(result))
                leave = True  # the broker takes less here than it promises
                continue
            self._complain(result.reason)
            await asyncio.sleep(pause * (0.5 + self._clock.draw() / 2))
            pause = min(LONGEST, pause * 2)

    async def carry_all(self, envelopes: Sequence[Envelope]) -> None:
        """Return once the broker has them all, which go out together.

        Raises:
            Dead: One of them it never will have.
        """
        self._together += 1
        try:
            await asyncio.gather(*map(self.carry, envelopes))
        finally:
            self._together -= 1

    def _refusal(self, result: Rejected) -> str:
        cure = f"; {CURE}" if result.too_large and self._claims is None else ""
        return f"{self._broker.guarantees.name}: {result.reason}{cure}"

    async def _publish(self, envelope: Envelope) -> Result:
        """Publish it with what else is ready in this round of the event loop: who comes first does it for all."""
        if self._others is not None:
            future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
            self._others.append((envelope, future))
            return await future
        if not self._together and self.alone():
            return (await self._hand_over([envelope]))[0]
        others = self._others = list[tuple[Envelope, asyncio.Future[Result]]]()
        results: Sequence[Result] = ()
        try:
            try:
                await asyncio.sleep(0)
            finally:
                self._others = None
            results = await self._hand_over([envelope, *(each for each, _ in others)])
        finally:
            for number, (_, future) in enumerate(others, 1):
                if not future.done():
                    future.set_result(results[number] if results else Unknown("the worker stops"))
        return results[0]

    async def _hand_over(self, envelopes: Sequence[Envelope]) -> Sequence[Result]:
        try:
            return await self._broker.publish(envelopes)
        except Exception as error:  # noqa: BLE001 - whatever it is, nobody may wait for ever
            return [Unknown(f"{type(error).__name__}: {error}")] * len(envelopes)

    def _complain(self, reason: str) -> None:
        now = asyncio.get_running_loop().time()
        if now > self._complained + COMPLAIN:
            self._complained = now
            name = self._broker.guarantees.name
            log.warning("%s: %s did not confirm: %s; what is published waits", self._app, name, reason)
