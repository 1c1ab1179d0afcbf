"""Messages on their way out: from the user's object to the envelope that is stored."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextvars import ContextVar
from typing import Any

from tidings.core.codec import MAX_BYTES, Codec, encode_json
from tidings.core.envelope import SLOTS, STATES, Envelope, Seen, slot_of
from tidings.core.message import Gone, MessageType, check_key, message_type
from tidings.errors import BadArgument, NotAMessage
from tidings.runtime.clock import Clock

HANDLING: ContextVar[Seen | None] = ContextVar("tidings.handling", default=None)
"""The message being handled right now: what is published meanwhile is caused by it."""

Direct = Callable[[Sequence[Envelope]], Awaitable[Sequence[Envelope]]]
"""Gives a broker what is for it, and returns what is left for the log of the app."""

_Plan = tuple[MessageType, Callable[[Any], bytes], str | None, tuple[str, ...]]


AROUND = 4_096
"""Bytes that are kept free around a state, so that its owner can send it again within a message of its own."""


class Outgoing:
    """Turns messages into envelopes for one app.

    Attributes:
        app: Its name.
        fresh: True when nobody can have the ids yet that it makes up.
        on_caused: Called with the conversation of each message that a handler publishes or returns.
    """

    def __init__(self, app: str, clock: Clock, most: int = MAX_BYTES, carried: int | None = None) -> None:
        """Wire the parts.

        Args:
            app: Its name, the CloudEvents source.
            clock: Gives ids and times.
            most: Bytes of one message.
            carried: Bytes of one that has a topic, where there is a broker to take it.
        """
        self.app = app
        self.fresh = clock.unseeded
        self.on_caused: list[Callable[[str], object]] = []
        self._clock = clock
        self._most = most
        self._carried = carried
        self._plans: dict[type[Any], _Plan] = {}

    def plan(self, cls: type[Any]) -> _Plan:
        """How messages of a class are encoded; made once per class.

        Raises:
            NotAMessage: The class carries no decorator.
        """
        kind = message_type(cls)
        most = self._most
        if self._carried is not None and kind.topic is not None:
            most = self._carried - (AROUND if kind.kind == "state" else 0)
        plan = (kind, Codec(kind, most).encode, kind.key_field, kind.tag_fields)
        self._plans[cls] = plan
        return plan

    def envelope(
        self,
        message: Any,
        *,
        id: str | None = None,
        headers: Mapping[str, str] | None = None,
        stream: str | None = None,
        key: str | None = None,
    ) -> Envelope:
        """The envelope of one message, caused by the message being handled, if any.

        Args:
            message: An instance of a message class, or `Gone`.
            id: CloudEvents id; a new UUIDv7 if not given.
            headers: CloudEvents extension attributes; `traceparent` among them starts or joins a trace.
            stream: Stream the message is appended to.
            key: Key to use in place of the message's own.

        Raises:
            NotAMessage: The object is no message.
            BadPayload: It cannot be written as JSON.
            BadArgument: Its key, id or headers cannot be used.
        """
        cls = type(message)
        if cls is Gone:
            kind, key = self._gone(message)
            data = b""
        else:
            kind, encode, key_field, tag_fields = self._plans.get(cls) or self.plan(cls)
            data = encode(message)
            if key is None and key_field is not None:
                value = getattr(message, key_field)
                if value is not None:
                    key = check_key(value, kind.name)
            if tag_fields:
                headers = {**(headers or {}), "tags": _tags(message, tag_fields)}
        if kind.kind == "state":
            stream = f"{STATES}{kind.name}:{key}"
        correlation = causation = trace = None
        if (cause := HANDLING.get()) is not None:
            correlation, causation, trace = cause.conversation, cause.id, cause.traceparent
            for note in self.on_caused:
                note(correlation)
        now = self._clock.now()
        if id is None:
            id = self._clock.id(now)
        else:
            _check_id(id)
        extras: bytes | None = None
        if headers:
            trace, extras = _split(headers, trace)
        return Envelope(
            0,
            id,
            self.app,
            kind.name,
            kind.schema,
            kind.topic,
            key,
            slot_of(key) if key is not None else now % SLOTS,
            stream,
            None,
            now,
            correlation,
            causation,
            trace,
            extras,
            data,
        )

    def _gone(self, gone: Gone) -> tuple[MessageType, str]:
        """Whose record it is, and its key."""
        kind = (self._plans.get(gone.state) or self.plan(gone.state))[0]
        if kind.kind != "state":
            msg = f"Gone({kind.name}) is published, but {kind.name} is no state"
            raise NotAMessage(msg, "declare it with @state, or publish an event that says what ended")
        return kind, check_key(str(gone.key), kind.name)

    def envelopes(
        self, messages: Sequence[Any], *, id: str | None, headers: Mapping[str, str] | None
    ) -> list[Envelope]:
        """The envelopes of several messages, in order.

        Raises:
            BadArgument: One id is given for several messages.
        """
        if id is not None and len(messages) != 1:
            msg = f"id= is given for {len(messages)} messages"
            raise BadArgument(msg, "publish a message with an id of its own alone")
        return [self.envelope(message, id=id, headers=headers) for message in messages]


def _check_id(id: object) -> None:
    if not isinstance(id, str) or not 0 < len(id) <= 200 or not id.isprintable():  # noqa: PLR2004 - see the cure
        msg = f"the id {str(id)[:40]!r} cannot be used"
        raise BadArgument(msg, "an id is printable text of 1 to 200 characters")


def _split(headers: Mapping[str, str], trace: str | None) -> tuple[str | None, bytes | None]:
    """The traceparent among headers, or else the given one; and the rest of them as JSON."""
    from tidings.core.cloudevent import check_headers

    checked = dict(check_headers(headers))
    trace = checked.pop("traceparent", trace)
    return trace, encode_json(checked) if checked else None


def _tags(message: Any, names: Sequence[str]) -> str:
    values = [f"{name}:{getattr(message, name)}" for name in names]
    return encode_json(values).decode()
