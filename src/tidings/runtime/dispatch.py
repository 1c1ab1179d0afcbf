"""Calling a handler: decoding and argument passing, compiled once per subscription."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from tidings.core.codec import Codec
from tidings.core.envelope import Envelope
from tidings.core.message import Gone, MessageType
from tidings.core.subscription import Subscription
from tidings.errors import Unreadable

log = logging.getLogger("tidings")

Call = Callable[[Any, Any, Envelope], Awaitable[Any]]
"""(message, tx or None, envelope) -> the handler's coroutine."""

UNSEEN = object()
"""Stands for a message this handler does not want to see: a tombstone it did not ask for."""


class Dispatch:
    """Reads envelopes and calls the handler of one subscription."""

    def __init__(self, subscription: Subscription) -> None:
        """Compile decoders by stored name, and the way the handler takes its arguments."""
        self.subscription = subscription
        self._readers: dict[str, tuple[int, Callable[[bytes], Any], MessageType]] = {}
        for kind in subscription.types:
            reader = (kind.schema, Codec(kind).decode, kind)
            for name in (kind.name, *kind.was):
                self._readers[name] = reader
        self.call: Call = _compile(subscription)
        self._warned = False

    def read(self, envelope: Envelope) -> Any:
        """The message in an envelope; `Gone` or UNSEEN for a tombstone.

        Raises:
            Unreadable: The data is not of the declared type, or of a newer schema than this code knows.
        """
        schema, decode, kind = self._readers[envelope.type]
        if envelope.schema > schema:
            msg = f"{envelope.type} has schema version {envelope.schema}; this code knows {schema}"
            raise Unreadable(msg, "deploy the newer code, then redrive")
        if not envelope.data and kind.kind == "state":
            return Gone(kind.cls, envelope.key) if self.subscription.tombstones else UNSEEN
        return decode(envelope.data)

    def messages(self, result: Any) -> tuple[Any, ...]:
        """What a handler returned, as messages to publish; anything else is reported once and left."""
        if result is None:
            return ()
        if hasattr(type(result), "__tidings__") or type(result) is Gone:
            return (result,)
        if isinstance(result, Iterable) and not isinstance(result, str | bytes | dict):
            found = tuple(result)
            if all(hasattr(type(item), "__tidings__") or type(item) is Gone for item in found):
                return found
        if not self._warned:
            self._warned = True
            where, name = self.subscription.where, type(result).__qualname__
            log.warning("%s returned a %s, which is no message; it is ignored", where, name)
        return ()


def _compile(subscription: Subscription) -> Call:
    handler, takes = subscription.handler, subscription.takes
    if not subscription.is_async:
        plain = handler

        def guarded(*arguments: Any) -> Any:
            try:
                return plain(*arguments)
            except StopIteration as error:  # no future can carry it: whoever awaits that would wait for ever
                msg = "the handler raised StopIteration"
                raise RuntimeError(msg) from error

        async def handler(*arguments: Any) -> Any:
            return await asyncio.to_thread(guarded, *arguments)

    fetch = subscription.fetch
    if fetch is not None:
        rest = takes[1:]

        async def fetched(message: Any, tx: Any, envelope: Envelope) -> Any:
            value = await fetch(message)
            return await handler(message, value, *(tx if name == "tx" else envelope for name in rest))

        return fetched
    if not takes:
        return lambda message, _tx, _envelope: handler(message)
    if takes == ("tx",):
        return lambda message, tx, _envelope: handler(message, tx)
    if takes == ("tx", "envelope"):
        return handler
    return lambda message, tx, envelope: handler(message, *(tx if name == "tx" else envelope for name in takes))
