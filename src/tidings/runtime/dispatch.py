"""Calling a handler: decoding and argument passing, compiled once per subscription."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tidings.core.codec import Codec
from tidings.core.envelope import TOMBSTONES, Seen
from tidings.core.message import Gone, MessageType
from tidings.core.subscription import Subscription
from tidings.errors import Unreadable

log = logging.getLogger("tidings")

Call = Callable[[Any, Any, Seen], Awaitable[Any]]
"""(message, tx or None, envelope) -> the handler's coroutine."""

Read = Callable[[Seen], Any]
"""Envelope -> the message in it; `Gone` or UNSEEN for a tombstone. Raises Unreadable."""

UNSEEN = object()
"""Stands for a message this handler does not want to see: a tombstone it did not ask for."""


class Dispatch:
    """Reads envelopes and calls the handler of one subscription.

    Attributes:
        readers: What reads the envelopes of a type, by its stored name. Without types, the envelope itself is read.
        call: Calls the handler.
    """

    def __init__(self, subscription: Subscription) -> None:
        """Compile decoders by stored name, and the way the handler takes its arguments."""
        self.subscription = subscription
        self.readers: dict[str, Read] = {} if subscription.types else defaultdict(lambda: _itself)
        for kind in subscription.types:
            read = _reader(kind, subscription)
            self.readers.update((name, read) for name in (kind.name, *kind.was))
        self._threads: Threads | None = None if subscription.is_async else Threads(subscription)
        self.call: Call = _compile(subscription, self._threads)
        self._warned = False

    def close(self) -> None:
        """Start no thread any more."""
        if self._threads is not None:
            self._threads.close()

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


class Threads:
    """Runs a plain handler in threads of its own, as many as it has deliveries at once: others do not wait for them."""

    def __init__(self, subscription: Subscription) -> None:
        """Args: subscription: of the handler; no thread is started yet."""
        self._handler = subscription.handler
        self._pool = ThreadPoolExecutor(subscription.concurrency, thread_name_prefix=f"tidings-{subscription.group}")

    async def __call__(self, *arguments: Any) -> Any:
        """Call the handler in a thread, with the context of the caller."""
        context = contextvars.copy_context()
        return await asyncio.get_running_loop().run_in_executor(self._pool, context.run, self._guarded, *arguments)

    def _guarded(self, *arguments: Any) -> Any:
        try:
            return self._handler(*arguments)
        except (StopIteration, GeneratorExit) as error:  # no future can carry them
            msg = f"the handler raised {type(error).__name__}"
            raise RuntimeError(msg) from error

    def close(self) -> None:
        """Start nothing any more; what runs cannot be stopped."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def _itself(envelope: Seen) -> Seen:
    return envelope


def _reader(kind: MessageType, subscription: Subscription) -> Read:
    """What reads envelopes of one type."""
    decode, known = Codec(kind).decode, kind.schema

    def read(envelope: Seen) -> Any:
        if envelope.schema > known:
            msg = f"{envelope.type} has schema version {envelope.schema}; this code knows {known}"
            raise Unreadable(msg, "deploy the newer code, then redrive")
        return decode(envelope.data)

    def read_state(envelope: Seen) -> Any:
        if envelope.schema <= known and envelope.data in TOMBSTONES and envelope.key is not None:
            return Gone(kind.cls, envelope.key) if subscription.tombstones else UNSEEN
        return read(envelope)

    return read_state if kind.kind == "state" else read


def _compile(subscription: Subscription, threads: Threads | None) -> Call:
    handler, takes = threads or subscription.handler, subscription.takes
    fetch = subscription.fetch
    if fetch is not None:
        rest = takes[1:]

        async def fetched(message: Any, tx: Any, envelope: Seen) -> Any:
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
