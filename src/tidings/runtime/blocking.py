"""The blocking face: the same verbs for plain code and threads, without an event loop and without a second copy.

A verb is a coroutine that suspends only where it reaches the store. Here it reaches the store by calls that block, so
that one step of the coroutine runs it to its end. A lone caller commits on its own thread.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Self, TypeVar

from typing_extensions import TypeForm

from tidings.core.operations import ANY, Op
from tidings.core.part import Part
from tidings.core.ports import Rows, StoreTransaction
from tidings.core.transaction import Readable
from tidings.errors import NotOpen, UsageError
from tidings.runtime.direct import Beside
from tidings.runtime.quarantine import quarantined
from tidings.runtime.transaction import OPEN, OpenTransaction
from tidings.runtime.verbs import Verbs

if TYPE_CHECKING:
    from tidings.runtime.app import App

A = TypeVar("A")
T = TypeVar("T")
R = TypeVar("R")


def finish(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never suspends, and return its result."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    coroutine.close()
    msg = "a blocking call had to wait for an event loop"
    raise UsageError(msg, "await it in async code; this store cannot do it from plain code")


class Blocking:
    """Verbs that return when they are done. Usable from any thread while open."""

    def __init__(self, app: App) -> None:
        """Args: app: whose verbs."""
        self._app = app
        self._verbs: Verbs | None = None
        self._beside: Beside | None = None

    def __enter__(self) -> Self:
        """Open the store.

        Raises:
            NotOpen: Called inside a running event loop, which it would block.
            StoreUnavailable: The store cannot be opened.
        """
        if _in_loop():
            msg = "app.blocking() is used inside a running event loop"
            raise NotOpen(msg, "in async code use `async with app:` and await the verbs")
        store = self._app.open_now()

        async def write(op: Op) -> Any:
            return store.write_now(op)

        async def begin() -> StoreTransaction:
            return store.begin_now()

        async def sleep(seconds: float) -> None:
            time.sleep(seconds)  # noqa: ASYNC251 - there is no loop to block; it is driven by `finish`

        app = self._app
        if app._direct is not None:  # noqa: SLF001 - the app's other face
            self._beside = Beside(app)
        direct = None if self._beside is None else self._beside.publish
        self._verbs = Verbs(store, app.outgoing, app.clock, write, begin, sleep, direct)
        return self

    def __exit__(self, *_exc: object) -> None:
        """Close the store once its last user is done."""
        self._verbs = None
        if self._beside is not None:
            self._beside.close()
            self._beside = None
        store = self._app.let_go()
        if store is not None:
            store.close_now()

    @property
    def _open(self) -> Verbs:
        if self._verbs is None:
            msg = f"the blocking face of {self._app.name} is not open"
            raise NotOpen(msg, "use it inside `with app.blocking() as b:`")
        return self._verbs

    def publish(
        self,
        *messages: object,
        after: float | timedelta | None = None,
        at: datetime | None = None,
        id: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> int:
        """See `App.publish`."""
        verbs = self._verbs or self._open
        op = verbs.appending(messages, after, at, id, headers)
        if verbs.direct is not None:
            return finish(verbs.publish(op))
        return verbs.store.write_now(op).positions[-1] if op.envelopes else 0

    def send(self, command: object, *, after: float | timedelta | None = None, at: datetime | None = None) -> int:
        """See `App.send`."""
        return finish(self._open.send(command, after, at))

    def request(self, command: object, answer: TypeForm[A], *, timeout: float | timedelta = 5.0) -> A:
        """See `App.request`."""
        found: A = finish(self._open.request(command, answer, timeout))
        return found

    def execute(self, decider: Any, command: object) -> int:
        """See `App.execute`."""
        return finish(self._open.execute(decider, command))

    def append(self, decider: Any, key: object, *events: object, expected: int = ANY) -> int:
        """See `App.append`."""
        return finish(self._open.append(decider, key, events, expected))

    def get(self, part: Readable[R], key: object, *, after: int = 0, timeout: float = 5.0) -> R:
        """See `App.get`."""
        verbs = self._open
        if after and hasattr(part, "table"):
            finish(self._app._wait(verbs, part, after, timeout))  # noqa: SLF001 - the app's other face
        return finish(verbs.get(part, key))

    def query(self, part: Part, sql: str, *params: Any, after: int = 0, timeout: float = 5.0) -> list[tuple[Any, ...]]:
        """See `App.query`."""
        verbs = self._open
        if after:
            finish(self._app._wait(verbs, part, after, timeout))  # noqa: SLF001 - the app's other face
        return finish(verbs.query(part, sql, params))

    def receive(self, body: bytes, headers: Mapping[str, str] | None = None) -> int:
        """See `App.receive`."""
        return finish(quarantined(self._open, self._app.name, body, headers or {}))

    @contextmanager
    def transaction(self) -> Iterator[BlockingTransaction]:
        """See `App.transaction`."""
        tx = self._open.transaction()
        OPEN.set(tx)
        try:
            yield BlockingTransaction(tx)
            finish(tx.commit())
        except BaseException:
            finish(tx.rollback())
            raise
        finally:
            OPEN.set(tx.outer)


class BlockingTransaction:
    """One atomic change, for plain code; see `tidings.Transaction`."""

    def __init__(self, tx: OpenTransaction) -> None:
        """Args: tx: whose statements are run."""
        self._tx = tx

    def execute(self, sql: str, *params: Any) -> Rows:
        """Run one SQL statement."""
        return finish(self._tx.execute(sql, *params))

    def executemany(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        """Run one SQL statement for many rows."""
        finish(self._tx.executemany(sql, rows))

    def connection(self) -> Any:
        """The driver's own connection, inside this transaction; see `tidings.Transaction.connection`."""
        return finish(self._tx.connection())

    def publish(self, *messages: object, after: float | timedelta | None = None, at: datetime | None = None) -> None:
        """Publish messages when this transaction commits."""
        finish(self._tx.publish(*messages, after=after, at=at))

    def send(self, command: object, *, after: float | timedelta | None = None, at: datetime | None = None) -> None:
        """Send a command when this transaction commits."""
        finish(self._tx.send(command, after=after, at=at))

    def get(self, part: Readable[R], key: object) -> R:
        """The record of a key as this transaction sees it."""
        return finish(self._tx.get(part, key))

    def load(self, stream: str, after: int = 0) -> Sequence[tuple[str, bytes, int]]:
        """See `tidings.Transaction.load`."""
        return finish(self._tx.load(stream, after))

    def append(self, stream: str, key: str, events: Sequence[object], expected: int = ANY) -> int:
        """See `tidings.Transaction.append`."""
        return finish(self._tx.append(stream, key, events, expected))


def _in_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
