"""The verbs of an app, written once: the async face awaits the store, the blocking face calls it on the spot."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime, timedelta
from types import NoneType
from typing import Any, TypeVar

import msgspec

from tidings.core.message import check_key, message_type
from tidings.core.operations import ANY, Append, Appended, Held, Op, Settle
from tidings.core.ports import Store, StoreTransaction
from tidings.core.request import as_request, waiting_for
from tidings.core.retry import seconds
from tidings.core.signature import flatten
from tidings.core.transaction import Readable
from tidings.errors import BadArgument, NotAMessage, NotFound, Unreadable, WrongVersion
from tidings.runtime.asking import Answers, message_of
from tidings.runtime.catchup import wait_for
from tidings.runtime.clock import MICROSECONDS, Clock
from tidings.runtime.outgoing import HANDLING, Direct, Outgoing
from tidings.runtime.transaction import OPEN, OpenTransaction, check_free

R = TypeVar("R")

LAST = 2**63
"""Versions and positions are smaller: they are signed numbers of 64 bits."""

RUN = "start a worker: `await app.run()` or `tidings run`"

NOTHING = (None, NoneType)
"""How "no answer is wanted" is written as a type."""

LONGEST = 366 * 86_400.0
"""Seconds; nobody waits longer for an answer."""

CONFLICTS = 50
"""Times a command is decided anew when somebody else appended meanwhile."""

CROWDED, PAUSE = 5, 0.002
"""Conflicts after which many write to one stream, and seconds by which the longest pause then grows with each."""


class Reading:
    """What a part needs to read one record outside a transaction."""

    def __init__(self, store: Store) -> None:
        """Args: store: read from what is committed."""
        self._store = store

    async def execute(self, sql: str, *params: Any) -> Found:
        """Rows of one SELECT."""
        return Found(await self._store.query(sql, params))

    async def load(self, stream: str, after: int = 0) -> Sequence[tuple[str, bytes, int]]:
        """(type, data, version) of a stream's events."""
        return await self._store.load(stream, after)


class Found:
    """Rows that were read."""

    rowcount = -1

    def __init__(self, rows: list[tuple[Any, ...]]) -> None:
        """Args: rows: all of them."""
        self._rows = iter(rows)

    def fetchone(self) -> tuple[Any, ...] | None:
        """The next row or None."""
        return next(self._rows, None)

    def fetchall(self) -> list[tuple[Any, ...]]:
        """The rest of the rows."""
        return list(self._rows)


def _check_command(command: object) -> None:
    kind = message_type(type(command))
    if kind.kind != "command":
        msg = f"{kind.name} is sent, but it is no command; it is {kind.kind}"
        raise NotAMessage(msg, "publish events and states; send what is declared with @command")


class Verbs:
    """Publish, send, request, execute, append, get and query, over one way of reaching the store."""

    def __init__(
        self,
        store: Store,
        outgoing: Outgoing,
        clock: Clock,
        write: Callable[[Op], Awaitable[Any]],
        begin: Callable[[], Awaitable[StoreTransaction]],
        sleep: Callable[[float], Awaitable[None]],
        direct: Direct | None = None,
    ) -> None:
        """Args: write, begin, sleep, direct: the caller's way; those of a blocking caller never suspend."""
        self.store = store
        self.outgoing = outgoing
        self.clock = clock
        self._write_op = write
        self._begin = begin
        self._sleep = sleep
        self.direct = direct
        self._answers = Answers(store, sleep)

    def _write(self, op: Op, verb: str) -> Awaitable[Any]:
        self._check_free(verb)
        return self._write_op(op)

    def _check_free(self, verb: str) -> None:
        if (tx := OPEN.get()) is not None:
            check_free(self.store, verb, tx)

    async def publish(self, op: Append) -> int:
        """See `App.publish`. Args: op: what `appending` made of the messages."""
        if self.direct is not None and op.due is None:
            op = Append(await self.direct(op.envelopes), ANY, None, op.fresh)
        if not op.envelopes:
            return 0
        appended: Appended = await self._write_op(op)
        return appended.positions[-1]

    def appending(
        self,
        messages: Sequence[object],
        after: float | timedelta | None,
        at: datetime | None,
        id: str | None,
        headers: Mapping[str, str] | None,
        verb: str = "publish",
    ) -> Append:
        """What `publish` has the store append, where no broker takes it directly."""
        due = self.clock.due(after, at) if after is not None or at is not None else None
        outgoing = self.outgoing
        if id is None and headers is None:
            if len(messages) == 1:
                envelopes = [outgoing.envelope(messages[0])]
            else:
                envelopes = [outgoing.envelope(message) for message in messages]
        else:
            envelopes = outgoing.envelopes(messages, id=id, headers=headers)
        if OPEN.get() is not None:
            self._check_free(verb)
        return Append(envelopes, ANY, due, id is None and outgoing.fresh)

    async def send(self, command: object, after: float | timedelta | None, at: datetime | None) -> int:
        """See `App.send`."""
        _check_command(command)
        return await self.publish(self.appending((command,), after, at, None, None, "send"))

    async def request(self, command: object, form: object, timeout: float | timedelta) -> Any:
        """See `App.request`."""
        _check_command(command)
        members = list(flatten(form))
        kinds = [message_type(each) for each in members if each not in NOTHING]
        now = self.clock.now()
        until = now + int(min(seconds(timeout, "timeout"), LONGEST) * MICROSECONDS)
        cause = HANDLING.get()
        if cause is not None and (outer := waiting_for(cause)) is not None:
            until = min(until, outer.until)  # who asked first waits no longer
        request = as_request(self.outgoing.envelope(command), self.outgoing.app, until)
        appended: Appended = await self._write(Append([request], fresh=self.outgoing.fresh), "request")
        wait = max(0, until - now) / MICROSECONDS
        found = await self._answers.wait_for(request, appended.position, wait)
        return message_of(found, request, kinds, optional=len(kinds) < len(members))

    async def append(self, decider: Any, key: object, events: Sequence[object], expected: int) -> int:
        """See `App.append`."""
        if isinstance(expected, bool) or not isinstance(expected, int) or not ANY <= expected < LAST:
            msg = f"expected={expected!r}"
            raise BadArgument(msg, "give the version the stream should have: 0 for none yet, 1 and up, or leave it out")
        text = check_key("" if key is None else str(key), decider.name)
        decider.check(text, events, "an append")
        if not events:
            rows = await self.store.load(decider.stream(text))
            return rows[-1][2] if rows else 0
        appended = await self._append(decider.stream(text), text, events, expected, "append")
        return appended.version or 0

    async def _append(self, stream: str, key: str, events: Sequence[object], expected: int, verb: str) -> Appended:
        envelope = self.outgoing.envelope
        envelopes = [envelope(event, stream=stream, key=key) for event in events]
        op = Append(envelopes, expected, fresh=self.outgoing.fresh)
        appended: Appended = await self._write(op, verb)
        return appended

    async def execute(self, decider: Any, command: object) -> int:
        """See `App.execute`."""
        key = decider.key_of(command)
        stream = decider.stream(key)
        rows: list[tuple[str, bytes, int]] = []
        for attempt in range(CONFLICTS):
            if attempt >= CROWDED:  # who goes on at once, in step with the others, may lose every time
                await self._sleep(self.clock.draw() * PAUSE * attempt)
            rows = [*rows, *await self.store.load(stream, rows[-1][2] if rows else 0)]
            version = rows[-1][2] if rows else 0
            events = decider.decide(decider.fold(decider.initial, rows), command)
            if not events:
                return await self.store.head()
            try:
                return (await self._append(stream, key, events, version, "execute")).position
            except WrongVersion:
                if attempt == CONFLICTS - 1:
                    raise
        raise AssertionError  # pragma: no cover - the loop returns or raises

    async def get(self, part: Readable[R], key: object) -> R:
        """See `App.get`."""
        if not hasattr(part, "read"):
            msg = f"get was given {part!r}"
            raise BadArgument(msg, "give the Replica or Decider whose record it is")
        try:
            return await part.read(str(key), Reading(self.store))  # type: ignore[arg-type]
        except Exception:
            await self._check_has_run(part)
            raise

    async def query(self, part: Any, sql: str, params: Sequence[Any]) -> list[tuple[Any, ...]]:
        """See `App.query`."""
        try:
            return await self.store.query(sql, params)
        except Exception:
            await self._check_has_run(part)
            raise

    async def _check_has_run(self, part: Any) -> None:
        """What to raise in place of an error about a table that nobody has made yet."""
        app = self.outgoing.app
        if getattr(part, "schema", None) and not await self.store.backlog(f"{app}.{part.name}"):
            raise NotFound(f"{part.name} has not run in app {app} yet, so that it has no table", RUN)

    async def wait_for(self, group: str, subscription: Any, position: int, timeout: float) -> None:
        """Return when a group reached a position; see `tidings.runtime.catchup.wait_for`."""
        if isinstance(position, bool) or not isinstance(position, int) or not 0 <= position < LAST:
            msg = f"after={position!r}"
            raise BadArgument(msg, "give the position that publish or execute returned")
        await wait_for(self.store, group, subscription, position, timeout, self._sleep, time.monotonic)

    def transaction(self) -> OpenTransaction:
        """A transaction of the caller's own."""
        return OpenTransaction(self.store, self._begin, self.outgoing, self.clock, direct=self.direct)

    async def receive(self, body: bytes, headers: Mapping[str, str]) -> int:
        """See `App.receive`."""
        from tidings.core.claim import refers, where_of
        from tidings.core.cloudevent import from_headers, from_json

        given: tuple[object, object] = (body, headers)  # a caller without a type checker may give anything
        if not isinstance(given[0], bytes | bytearray | memoryview) or not isinstance(given[1], Mapping):
            names = " and ".join(type(each).__qualname__ for each in given)
            raise BadArgument(f"receive was given {names}", "give the body as bytes, and its headers as a mapping")
        envelope = from_headers(headers, bytes(body)) if headers else from_json(bytes(body))
        if refers(envelope):
            what = f"its data are at {where_of(envelope)}, and nothing is fetched from there"
            raise Unreadable(what, "send them in the event")
        if not envelope.time:  # its sender gave none, and ages are counted from something
            envelope = msgspec.structs.replace(envelope, time=self.clock.now())
        appended: Appended = await self._write(Append([envelope]), "receive")
        return appended.position

    async def keep(self, held: Held) -> None:
        """Keep something in the table of held deliveries that no group has taken."""
        await self._write(Settle(held.group, {}, hold=(held,)), "receive")
