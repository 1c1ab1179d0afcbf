"""Claims at work: data that are too large for the broker are left at a place and fetched there by who receives them.

A claim that is missing or was changed holds nobody up: in its place an event of our own goes to the log. Its handler
fetches once more; then it is a dead letter of the group `<app>.claims`, which can be redriven as any other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from tidings.core.attributes import STATE_AGAIN
from tidings.core.claim import LARGEST, claim_in, claim_of, fingerprint, redeemed, referring
from tidings.core.cloudevent import MAX_EVENT, from_json, to_json
from tidings.core.envelope import Envelope
from tidings.core.message import MessageType
from tidings.core.operations import Append
from tidings.core.ports import ClaimPlace, Store
from tidings.core.subscription import Subscription

T = TypeVar("T")

GROUP = "claims"

THREADS = 8
"""Claims that are left or fetched at once."""

CURE = "give large data a place, with claims= in the URL of the broker: see docs/brokers.md"


@dataclass(frozen=True)
class ClaimMissing:
    """A message whose data could not be had where it says that they are."""


_KIND = MessageType(ClaimMissing, "event", "tidings.claim-missing", 1, None)


class Claims:
    """Leaves and fetches the data of large messages.

    Attributes:
        over: Bytes of data above which they are left at the place whatever the broker takes.
        place: Where.
    """

    def __init__(self, place: ClaimPlace, over: int) -> None:
        """Args: place, over: see there."""
        self.place = place
        self.over = over
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="tidings-claims")

    async def _apart(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call a function on a thread of ours: a slow place must not take those of others."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)

    async def check(self) -> None:
        """Is the place there, and may it be used?

        Raises:
            BrokerError: No; says why.
        """
        await self._apart(self.place.check)

    async def leave(self, envelope: Envelope) -> Envelope:
        """Leave the data of a message, durably; returns the message that refers to them.

        Raises:
            BrokerUnavailable: They cannot be left at the moment.
        """
        claim = await self._apart(claim_of, envelope)
        await self._apart(self.place.put, claim.name, envelope.data)
        return referring(envelope, claim, self.place.url)

    async def fetch(self, envelope: Envelope) -> Envelope:
        """The whole message of one that refers to its data; of a state that was sent again, the state.

        Raises:
            Unreadable: The data are missing, or are others than those that were left.
            BrokerUnavailable: They cannot be fetched at the moment.
        """
        claim = claim_in(envelope)
        data = await self._apart(self.place.get, claim.name, claim.size + 1)
        return unwrapped(await self._apart(redeemed, envelope, claim, data))


def missing(app: str, envelope: Envelope) -> Envelope:
    """What goes to the log in place of a message whose data could not be had: the message, in an event of our own."""
    private: dict[str, Any] = {"topic": None, "stream": None, "version": None, "headers": None}
    return msgspec.structs.replace(
        envelope, **private, id=fingerprint(envelope), source=app, type=_KIND.name, schema=1, data=to_json(envelope)
    )


def again(store: Store, claims: Claims) -> Subscription:
    """The handler that fetches again what was missing, and whose dead letters it is while it stays away."""

    async def fetch_again(_: ClaimMissing, kept: Envelope) -> None:
        event = from_json(kept.data)
        whole = await claims.fetch(msgspec.structs.replace(event, time=event.time or kept.time))
        await store.write(Append([whole]))

    where = "tidings.runtime.claims"
    return Subscription(GROUP, (_KIND,), fetch_again, where=where, takes=("envelope",), on_dead="skip")


def unwrapped(envelope: Envelope) -> Envelope:
    """A state that was sent again, as it was; anything else as it is."""
    return from_json(envelope.data, most=LARGEST + MAX_EVENT) if envelope.type == STATE_AGAIN else envelope
