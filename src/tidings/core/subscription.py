"""A subscription: a handler and its needs, as the runtime sees it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from tidings.core.envelope import SLOTS, Envelope
from tidings.core.guarantees import Needs
from tidings.core.message import MessageType
from tidings.core.retry import Retry

Start = Literal["earliest", "latest"] | int
OnDead = Literal["park", "skip"]


@dataclass(frozen=True, eq=False)
class Subscription:
    """What the runtime needs to know to feed one handler.

    Attributes:
        group: Name of the group; its workers share the deliveries. Without the app's name in front: the app adds it.
        types: The message types handled, in the order of the union; none for a handler of the runtime's own that takes
            envelopes of any type.
        handler: The user's function; how it is called stands in `takes` and `is_async`.
        where: "module:qualname (file:line)" of the handler, for messages and for telling handlers apart.
        takes: What each parameter after the message receives: "tx", "envelope" or "fetched".
        is_async: True for `async def`; a plain function runs in a thread.
        retry: How failures are tried again.
        needs: What the handler needs of the broker.
        concurrency: Keys handled at once, 1 or more.
        slots: Number of lease slots: SLOTS, or 1 for a strict order over all keys.
        start: Where a new group starts: "earliest", "latest", or the position after which it starts.
        on_dead: What becomes of later messages of a key with a dead letter: "park" holds them in order until it is
            redriven or discarded; "skip" lets them pass.
        newest: Only the newest waiting message of each key is handled; older ones are acknowledged unseen.
        fetch: Called with the message before the handler; its result is the handler's second argument.
        schema: SQL that creates the tables of a projection or replica, run once when the group is new.
        fingerprint: Of the code that fills those tables; a change asks for a rebuild.
        tombstones: True where `Gone` was asked for: a state without data reaches the handler as `Gone(State, key)`.
            Otherwise tombstones are acknowledged unseen.
        bootstrap: The state type whose current records a new group receives first, before it follows the log.
        wants: Called with an envelope before it is delivered; what it does not want passes unseen. None wants all.
        counted: True where an attempt is noted durably before it begins, so that a message which stops the process
            is found out.
    """

    group: str
    types: tuple[MessageType, ...]
    handler: Callable[..., Any]
    where: str
    takes: tuple[Literal["tx", "envelope", "fetched"], ...] = ()
    is_async: bool = True
    retry: Retry = field(default_factory=Retry)
    needs: Needs = field(default_factory=Needs)
    concurrency: int = 16
    slots: int = SLOTS
    start: Start = "earliest"
    on_dead: OnDead = "park"
    newest: bool = False
    fetch: Callable[[Any], Awaitable[Any]] | None = None
    schema: str | None = None
    fingerprint: str | None = None
    tombstones: bool = False
    bootstrap: MessageType | None = None
    wants: Callable[[Envelope], bool] | None = None
    counted: bool = True

    @property
    def names(self) -> list[str] | None:
        """The names its messages are stored under, earlier ones included; None for all there are."""
        return [name for kind in self.types for name in (kind.name, *kind.was)] or None

    @property
    def transactional(self) -> bool:
        """True where the handler takes `tx`: effects, returned messages and acknowledgement commit together."""
        return "tx" in self.takes

    @property
    def repeatable(self) -> bool:
        """True where handling a message twice shows nowhere: it fills tables of its own, and does nothing else."""
        return self.schema is not None and self.transactional and not (self.newest or self.commands or self.fetch)

    @property
    def commands(self) -> tuple[MessageType, ...]:
        """Those of its types that are commands; no other subscription may handle them."""
        return tuple(kind for kind in self.types if kind.kind == "command")
