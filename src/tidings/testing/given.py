"""given / when / then: test a decider, projection or replica as sentences, without an app and without a file."""

from __future__ import annotations

import difflib
import re
import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from pprint import pformat
from typing import Any, Generic, NoReturn, TypeVar, overload

from tidings.core.codec import Codec
from tidings.core.envelope import Envelope, slot_of
from tidings.core.message import Gone, MessageType, message_type
from tidings.core.operations import ANY
from tidings.core.subscription import Subscription
from tidings.core.transaction import Readable
from tidings.errors import BadArgument, NotAMessage, UsageError
from tidings.patterns.decider import Decider
from tidings.patterns.projection import Projection
from tidings.patterns.replica import Replica

S = TypeVar("S")
C = TypeVar("C")
E = TypeVar("E")
R = TypeVar("R")
X = TypeVar("X", bound=BaseException)


@overload
def given(part: Decider[S, C, E], /, *events: E) -> History[S, C, E]: ...
@overload
def given(part: Projection | Replica[Any], /, *messages: object) -> Table: ...
def given(part: Any, /, *messages: Any) -> Any:
    """Begin a sentence: what has happened so far.

    ```python
    given(accounts, Opened("a"), Deposited("a", 50)).when(Withdraw("a", 80)).raises(InsufficientFunds)
    given(accounts, Opened("a")).when(Deposit("a", 5)).then(Deposited("a", 5)).state(Account(5))
    assert await given(balances, Deposited("a", 50)).rows("SELECT * FROM balance") == [("a", 50)]
    ```

    Everything goes through JSON as it would in a store, so that what cannot be stored fails here.

    Args:
        part: A decider, projection or replica.
        messages: For a decider: the events of one stream. For a projection or replica: what it receives, in order.

    Returns:
        The history, to continue with `when` or `state`; or the table, to be asked for `rows`.

    Raises:
        BadArgument: The part is none of these, or it does not take one of the messages.
    """
    if isinstance(part, Decider):
        return History(part, messages)
    if isinstance(part, Projection | Replica):
        return Table(part, messages)
    raise BadArgument(f"given({part!r}, ...)", "begin with a Decider, Projection or Replica")


class History(Generic[S, C, E]):
    """The events of one stream, so far."""

    def __init__(self, decider: Decider[S, C, E], events: Sequence[E]) -> None:
        self._decider = decider
        self._rows = [_row(decider, event, version) for version, event in enumerate(events, 1)]

    def when(self, command: C) -> Decision[S, C, E]:
        """Let the decider decide this command.

        Raises:
            BadArgument: It is no command of this decider.
            UsageError: The decider gave what it may not give.
        """
        self._decider.key_of(command)
        try:
            events = self._decider.decide(self._state(()), command)
        except UsageError:
            raise
        except Exception as error:  # noqa: BLE001 - a refusal is what `raises` asks about
            return Decision(command, (), self._state(()), error)
        return Decision(command, events, self._state(events), None)

    def state(self, expected: S) -> History[S, C, E]:
        """Check the state that these events lead to."""
        _same_state("the history", expected, self._state(()))
        return self

    def _state(self, events: Sequence[E]) -> S:
        rows = [*self._rows]
        rows += [_row(self._decider, event, version) for version, event in enumerate(events, len(rows) + 1)]
        return self._decider.fold(self._decider.initial, rows)


class Decision(Generic[S, C, E]):
    """What a decider decided."""

    def __init__(self, command: C, events: Sequence[E], state: S, error: Exception | None) -> None:
        self._command = command
        self._events = list(events)
        self._state = state
        self._error = error

    def then(self, *events: E) -> Decision[S, C, E]:
        """Check that exactly these events were decided, in this order.

        Raises:
            BadArgument: No event is named.
            AssertionError: Other events were decided, or the command was refused.
        """
        if not events:
            raise BadArgument("then() names no event", "write `then_nothing()`")
        for event in events:
            if _type_of(event).kind != "event":
                raise BadArgument(f"then() got {event!r}, which is no event", "name the events that were decided")
        self._not_refused()
        if self._events != list(events):
            _fail(f"{self._command!r} led to other events", list(map(repr, events)), list(map(repr, self._events)))
        return self

    def then_nothing(self) -> Decision[S, C, E]:
        """Check that the command was accepted and led to no event."""
        self._not_refused()
        if self._events:
            _fail(f"{self._command!r} led to events", [], list(map(repr, self._events)))
        return self

    def state(self, expected: S) -> Decision[S, C, E]:
        """Check the state after what was decided; after a refusal, the state that it left alone."""
        _same_state(repr(self._command), expected, self._state)
        return self

    def raises(self, error: type[X], match: str = "") -> X:
        """Check that the command was refused.

        Args:
            error: The exception class; a subclass will do.
            match: A regular expression to be found in its text.

        Returns:
            The exception, for a closer look.

        Raises:
            BadArgument: `error` is no exception class.
            AssertionError: The command was accepted, or refused with another error or text.
        """
        asked: object = error
        if not (isinstance(asked, type) and issubclass(asked, BaseException)):
            raise BadArgument(f"raises({asked!r})", "give the exception class: `raises(InsufficientFunds)`")
        if self._error is None:
            _fail(f"{self._command!r} was not refused", [error.__qualname__], list(map(repr, self._events)))
        if not isinstance(self._error, error):
            raise AssertionError(  # noqa: TRY004 - an assertion about a refusal
                f"{self._command!r} was refused with {self._error!r}, not with {error.__qualname__}"
            ) from self._error
        if not re.search(match, str(self._error)):
            raise AssertionError(f"{match!r} does not match {str(self._error)!r}") from self._error
        return self._error

    def _not_refused(self) -> None:
        if self._error is not None:
            raise AssertionError(f"{self._command!r} was refused with {self._error!r}") from self._error


class Table:
    """The read model that messages lead to, on SQLite in memory."""

    def __init__(self, part: Projection | Replica[Any], messages: Sequence[object]) -> None:
        self._part = part
        self._subscription: Subscription = part.subscriptions()[0]
        self._envelopes = list(_envelopes(self._subscription, messages))

    async def rows(self, sql: str, *params: Any) -> list[tuple[Any, ...]]:
        """Run the messages through the part, in order, then ask its tables.

        Args:
            sql: One statement.
            params: One value for each `?`.

        Returns:
            The rows.
        """
        connection = sqlite3.connect(":memory:")
        try:
            connection.executescript(str(self._subscription.schema))
            tx = TableTransaction(connection)
            for message, envelope in self._envelopes:
                given_to = {"tx": tx, "envelope": envelope}
                await self._subscription.handler(message, *(given_to[each] for each in self._subscription.takes))
            return connection.execute(sql, params).fetchall()
        finally:
            connection.close()


class TableTransaction:
    """A transaction for projections and replicas: SQL on a connection of `sqlite3`, and nothing else.

    Args:
        connection: To a database that has the tables.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    async def execute(self, sql: str, *params: Any) -> Any:
        """Run one statement."""
        return self._connection.execute(sql, params)

    async def executemany(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        """Run one statement for many rows."""
        self._connection.executemany(sql, rows)

    async def connection(self) -> sqlite3.Connection:
        """The connection."""
        return self._connection

    async def get(self, part: Readable[R], key: object) -> R:
        """The record of a key."""
        return await part.read(str(key), self)

    async def load(self, stream: str, after: int = 0) -> NoReturn:
        """Refuse: there are no streams."""
        raise BadArgument(f"given(...) has no stream {stream} to load after {after}", "test this with an app in memory")

    async def publish(
        self, *messages: object, after: float | timedelta | None = None, at: datetime | None = None
    ) -> NoReturn:
        """Refuse: a rebuild would publish again."""
        shown = f"{messages!r}{f' after {after}' if after else ''}{f' at {at}' if at else ''}"
        raise BadArgument(f"it published {shown}", "a rebuild would do so again: publish in a handler with `@app.on`")

    async def send(
        self, command: object, *, after: float | timedelta | None = None, at: datetime | None = None
    ) -> NoReturn:
        """Refuse, like publish."""
        await self.publish(command, after=after, at=at)

    async def append(self, stream: str, key: str, events: Sequence[object], expected: int = ANY) -> NoReturn:
        """Refuse, like publish."""
        await self.publish(stream, key, expected, *events)


def _type_of(message: object) -> MessageType:
    return message_type(type(message))


def _row(decider: Decider[Any, Any, Any], event: object, version: int) -> tuple[str, bytes, int]:
    """An event as a store would load it."""
    try:
        kind = _type_of(event)
    except NotAMessage as error:
        raise BadArgument(f"given(...) got {event!r}, which is no event", "name events that have happened") from error
    if kind not in decider.events:
        cure = "pass it to `when`" if kind.kind == "command" else f"its events: {_names(decider.events)}"
        raise BadArgument(f"given({decider!r}, ...) got the {kind.kind} {kind.name}", cure)
    return kind.name, Codec(kind).encode(event), version


def _envelopes(subscription: Subscription, messages: Sequence[object]) -> Iterator[tuple[object, Envelope]]:
    """Messages as they arrive: decoded from what a store would keep, numbered in the log and for each key."""
    versions: Counter[str | None] = Counter()
    for position, message in enumerate(messages, 1):
        gone = message if isinstance(message, Gone) else None
        kind = message_type(gone.state) if gone else _type_of(message)
        if kind not in subscription.types or (gone and not subscription.tombstones):
            name = f"Gone({kind.name})" if gone else kind.name
            raise BadArgument(f"{subscription.group} does not take {name}", f"it takes {_names(subscription.types)}")
        key = str(gone.key) if gone else kind.key_of(message)
        data = b"" if gone else Codec(kind).encode(message)
        versions[key] += 1
        envelope = Envelope(
            position=position,
            id=f"given-{position}",
            source="given",
            type=kind.name,
            schema=kind.schema,
            topic=kind.topic,
            key=key,
            slot=slot_of(key or ""),
            stream=key and f"{kind.name}:{key}",
            version=versions[key] if key else None,
            time=position * 1_000_000,
            correlation=None,
            causation=None,
            traceparent=None,
            headers=None,
            data=data,
        )
        yield (Gone(gone.state, key) if gone else Codec(kind).decode(data)), envelope


def _names(kinds: Sequence[MessageType]) -> str:
    return ", ".join(kind.name for kind in kinds)


def _same_state(what: str, expected: object, actual: object) -> None:
    if expected != actual or type(expected) is not type(actual):
        lines = (pformat(each, width=100).splitlines() for each in (expected, actual))
        _fail(f"{what} led to another state", *lines)


def _fail(what: str, expected: Sequence[str], actual: Sequence[str]) -> NoReturn:
    """Show both sides line by line: `-` expected, `+` got, `?` where a line differs."""
    lines = difflib.ndiff(expected or ["nothing"], actual or ["nothing"])
    raise AssertionError("\n".join([f"{what} (- expected, + got):", *(f"  {line.rstrip()}" for line in lines)]))
