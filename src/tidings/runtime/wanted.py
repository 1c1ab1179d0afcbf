"""States that are wanted: a replica that starts late asks their owner for the current ones, over the broker.

Not every broker keeps history, and none keeps all of it. Whoever owns states of that type sends the newest message of
each key again, to the app that asked alone, wrapped in a message whose id no broker has seen before. Unwrapped it is
what it was: where it is known already, nothing happens; and since it carries its version, it may come at any time.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from tidings.core.attributes import STATE_AGAIN, STATES_WANTED
from tidings.core.cloudevent import to_json
from tidings.core.codec import encode_json
from tidings.core.envelope import Envelope, slot_of
from tidings.core.message import MessageType, address_of
from tidings.core.operations import Append
from tidings.core.ports import Store
from tidings.core.subscription import Subscription
from tidings.runtime.clock import Clock

log = logging.getLogger("tidings")

GROUP = "wanted"
TOPIC = "tidings"
"""Where apps at a broker speak to each other about themselves; what is for one alone goes to its address."""

PAGE = 500
"""States published again at a time."""

_CURRENT = (
    "SELECT tidings_log.* FROM tidings_state JOIN tidings_log ON tidings_log.position = tidings_state.position "
    "WHERE tidings_state.type = ? AND tidings_state.key > ? AND topic IS NOT NULL "
    "ORDER BY tidings_state.key LIMIT ?"
)


@dataclass(frozen=True)
class StatesWanted:
    """Some app needs the current states of a type."""

    state: str


_KIND = MessageType(StatesWanted, "event", STATES_WANTED, 1, TOPIC)


class Wanted:
    """Asks for states, and answers for those of its own app.

    Attributes:
        subscription: Answers; to run like any other.
    """

    def __init__(
        self, app: str, store: Store, carry: Callable[[Sequence[Envelope]], Awaitable[None]], clock: Clock
    ) -> None:
        """Args: app: its name. carry: publishes envelopes at the broker, and returns once it has them."""
        self._app = app
        self._store = store
        self._carry = carry
        self._clock = clock
        self.subscription = Subscription(
            GROUP,
            (_KIND,),
            self._answer,
            where="tidings.runtime.wanted",
            takes=("envelope",),
            wants=self._is_a_strangers,
        )

    def _is_a_strangers(self, envelope: Envelope) -> bool:
        return envelope.source != self._app

    async def ask(self, state: str) -> None:
        """Ask for the current states of a type; they arrive as if they were published now."""
        await self._store.write(Append([self._seal(STATES_WANTED, TOPIC, state, encode_json({"state": state}))]))

    def _seal(self, type: str, topic: str, key: str | None, data: bytes) -> Envelope:
        slot, now = slot_of(key or ""), self._clock.now()
        return Envelope(
            *(0, self._clock.id(), self._app, type, 1, topic, key, slot, None, None, now, None, None, None, None, data)
        )

    async def _answer(self, wanted: StatesWanted, request: Envelope) -> None:
        topic = address_of(request.source)
        after, count = "", 0
        while rows := await self._store.query(_CURRENT, (wanted.state, after, PAGE)):
            page = [Envelope(*row) for row in rows]
            after = page[-1].key or ""
            own = [each for each in page if each.source == self._app]
            await self._carry([self._seal(STATE_AGAIN, topic, each.key, to_json(each)) for each in own])
            count += len(own)
        if count:
            log.info("%s: sent %d current states of %s to %s", self._app, count, wanted.state, request.source)
