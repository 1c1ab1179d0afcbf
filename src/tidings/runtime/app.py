"""The app: where handlers and parts meet a store, and the verbs a program uses."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakSet

from typing_extensions import TypeForm

from tidings.core.claim import LARGEST
from tidings.core.codec import MAX_BYTES
from tidings.core.message import check_app
from tidings.core.operations import ANY
from tidings.core.part import Part, check_parts
from tidings.core.ports import Store
from tidings.core.retry import seconds
from tidings.core.router import check_commands, check_together
from tidings.core.subscription import Subscription
from tidings.core.transaction import Readable, Transaction
from tidings.core.url import default_name, parse_url
from tidings.errors import BadArgument, NotFound
from tidings.runtime.clock import Clock
from tidings.runtime.connect import make_broker, make_claims
from tidings.runtime.direct import Direct
from tidings.runtime.lifecycle import run, worker_of, working
from tidings.runtime.opening import Opening
from tidings.runtime.outbox import Outbox
from tidings.runtime.outgoing import Outgoing
from tidings.runtime.quarantine import quarantined
from tidings.runtime.transaction import OPEN
from tidings.runtime.verbs import RUN, Verbs
from tidings.runtime.worker import Worker

if TYPE_CHECKING:
    from tidings.runtime.blocking import Blocking

A = TypeVar("A")
R = TypeVar("R")

SHORTEST_LEASE = 0.1
"""Seconds. Workers tell that they live every third of a lease."""


class App(Opening):
    """An app: a name, a store, and the handlers and parts that run on it.

    Opening it (`async with app:`) opens the store; publishing needs no more. `run` works on what was published.

    Args:
        store: URL of the store: `sqlite:shop.db`, `sqlite:///abs/shop.db`, `sqlite::memory:`; or a store object.
        parts: Routers, deciders, projections and replicas that belong to it.
        broker: URL of the broker that carries what has a topic to other apps and from them; without one, apps meet in
            a store that they share.
        name: The CloudEvents source and the prefix of its groups, without dots; the stem of the file if not given.
        lease: Seconds of silence after which a worker's share goes to the others.
        drain: Seconds a stopping worker lets running handlers end.
        clock: Gives wall time, random numbers and ids; a simulation brings its own.

    Raises:
        BadUrl: The URL cannot be read.
        BadDeclaration: The name cannot be used, or a part is none.
        BadArgument: A duration is out of its range.
    """

    def __init__(
        self,
        store: str | Store,
        *parts: Part,
        broker: str | None = None,
        name: str | None = None,
        lease: float | timedelta = 10.0,
        drain: float | timedelta = 30.0,
        clock: Clock | None = None,
    ) -> None:
        given_store: Any = store  # a caller without a type checker may give anything; parse_url refuses what is no text
        self.url: str = getattr(given_store, "url", given_store)
        default = default_name(parse_url(self.url)) if name is None or self.url is given_store else ""
        super().__init__(check_app(default if name is None else name, "the app"), store, clock or Clock())
        self.parts = check_parts(parts, self.name)
        self.lease = seconds(lease, "lease")
        if self.lease < SHORTEST_LEASE:
            msg = f"the app {self.name} has lease={lease!r}"
            raise BadArgument(msg, f"a lease has {SHORTEST_LEASE} seconds or more, or healthy workers lose their share")
        self.drain = seconds(drain, "drain")
        self.broker = broker
        if broker is not None:  # say now what is wrong with it
            made = make_broker(broker, self.name)
            most = (LARGEST, LARGEST) if make_claims(broker, made) else (MAX_BYTES, made.guarantees.max_bytes)
            self.outgoing = Outgoing(self.name, self.clock, *most)
            self._make_direct = partial(Direct, self)
        self._workers: WeakSet[Worker] = WeakSet()
        self.outbox = Outbox(self)

    # ---- verbs -----------------------------------------------------------------------------------------------------

    async def publish(
        self,
        *messages: object,
        after: float | timedelta | None = None,
        at: datetime | None = None,
        id: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> int:
        """Publish events and states, durably and all together.

        Args:
            messages: Instances of message classes, or `Gone(State, key)`; appended in this order.
            after: Seconds from now until they are published.
            at: Aware datetime when they are published.
            id: CloudEvents id of a single message. The same id with the same content again changes nothing.
            headers: CloudEvents extension attributes, for instance `traceparent`.

        Returns:
            Position in the log of the last one, for which a query can wait; 0 when delayed, when none was given, and
            where a broker has them because the app has no store.

        Raises:
            NotAMessage: An object is no message.
            BadPayload: A message cannot be written as JSON; nothing was published.
            IdConflict: The id was used for other content.
            StoreFull: No space is left; nothing was published.
            OutcomeUnknown: It may or may not be published; publish again with the same id.
            BrokerError: The app has no store, and its broker cannot be reached or does not take it.
            NotOpen: The app is not open here.
        """
        verbs = self._here()
        return await verbs.publish(verbs.appending(messages, after, at, id, headers))

    async def send(self, command: object, *, after: float | timedelta | None = None, at: datetime | None = None) -> int:
        """Send a command to the one handler it has, to be handled later by a worker.

        Args:
            command: An instance of a command class.
            after: Seconds from now until it is sent.
            at: Aware datetime when it is sent.

        Returns:
            Its position in the log; 0 when delayed.

        Raises:
            NotAMessage: It is no command.
        """
        return await self._here().send(command, after, at)

    async def request(self, command: object, answer: TypeForm[A], *, timeout: float | timedelta = 5.0) -> A:
        """Send a command and wait for what its handler returns, wherever that is.

        A worker of the app that handles it must run; and with a broker one of this app, in whatever process. A handler
        does not begin after the deadline, by its own machine's clock. It is at least once that it runs, as ever, and
        what it returned is in the store before it is sent back.

        Args:
            command: An instance of a command class.
            answer: The message class to wait for, or a union of classes. None, or a union with it, waits for the end
                of a handler that may return nothing.
            timeout: Seconds until the deadline. Of a request that is made while another one is handled, the earlier
                deadline counts.

        Returns:
            The first message the handler returned that is of these classes, or None where that was asked for.

        Raises:
            NoAnswer: None came in time; whether the command was done is not known.
            Refused: The handler gave it up; it is a dead letter there.
            NotAMessage: It is no command, or an answer is no message class.
            BadArgument: The timeout is out of its range, or the handler returned something else.
        """
        found: A = await self._here().request(command, answer, timeout)
        return found

    async def execute(self, decider: Any, command: object) -> int:
        """Execute a command now: load the stream, decide, append; again when somebody else was first.

        Args:
            decider: The decider.
            command: One of its commands.

        Returns:
            Position of the last event appended, for which a query can wait.

        Raises:
            WrongVersion: Others kept being first.
            Exception: Whatever `decide` raises to refuse the command.
        """
        return await self._here().execute(decider, command)

    async def append(self, decider: Any, key: object, *events: object, expected: int = ANY) -> int:
        """Append events to a stream of a decider without deciding.

        Args:
            decider: Whose stream.
            key: Of the stream.
            events: In order; none is allowed and does nothing.
            expected: Version the stream must have, 0 for none yet; left out, any version will do.

        Returns:
            The stream's version afterwards.

        Raises:
            WrongVersion: The stream has another version; nothing was appended.
        """
        return await self._here().append(decider, key, events, expected)

    async def get(self, part: Readable[R], key: object, *, after: int = 0, timeout: float = 5.0) -> R:
        """The record of a key: a replica's record or None, a decider's folded state.

        Args:
            part: A replica or a decider.
            key: The key.
            after: Position the replica must have reached, as publish returned it; it is waited for.
            timeout: Seconds to wait.

        Raises:
            NotCaughtUp: The replica did not get there in time.
            NotFound: The replica has not run yet, so that it has no table.
        """
        verbs = self._here()
        if after and hasattr(part, "table"):
            await self._wait(verbs, part, after, timeout)
        return await verbs.get(part, key)

    async def query(
        self, part: Part, sql: str, *params: Any, after: int = 0, timeout: float = 5.0
    ) -> list[tuple[Any, ...]]:
        """Read the table of a projection or replica with SQL, once it has caught up with your own write.

        Args:
            part: The projection or replica.
            sql: One SELECT with `?` placeholders.
            params: Its values.
            after: Position it must have reached, as publish or execute returned it; it is waited for.
            timeout: Seconds to wait.

        Returns:
            The rows.

        Raises:
            NotCaughtUp: It did not get there in time; the write itself is done.
            NotFound: It has not run yet, so that it has no table.
        """
        verbs = self._here()
        if after:
            await self._wait(verbs, part, after, timeout)
        return await verbs.query(part, sql, params)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        """One atomic change of your own: rows and messages commit together, or not at all.

        Yields:
            The transaction; it commits when the block ends and rolls back when it raises.
        """
        tx = self._here().transaction()
        OPEN.set(tx)
        try:
            yield tx
            await tx.commit()
        except BaseException:
            await tx.rollback()
            raise
        finally:
            OPEN.set(tx.outer)

    async def receive(self, body: bytes, headers: Mapping[str, str] | None = None) -> int:
        """Take in a CloudEvent from outside, for instance from a webhook.

        Args:
            body: A structured CloudEvent in JSON; or the data, when the `ce-` headers carry the attributes.
            headers: Headers it came with.

        Returns:
            Its position in the log. What cannot be read is kept raw among the dead letters of the group
            `<app>.quarantine`, and 0 is returned.
        """
        return await quarantined(self._here(), self.name, body, headers or {})

    async def staleness(self, part: Part) -> float:
        """Seconds since the oldest message was published that a replica has not taken over; 0.0 if there is none."""
        found = await self.store.backlog(f"{self.name}.{part.name}")
        if not found:
            msg = f"{part.name} has not run in app {self.name} yet"
            raise NotFound(msg, RUN)
        return found[0].oldest

    # ---- running -----------------------------------------------------------------------------------------------------

    def subscriptions(self) -> Sequence[Subscription]:
        """The handlers of the app and of its parts, checked together.

        Raises:
            BadHandler: A handler cannot be called as declared, or two share a group or a command.
            GroupConflict: A handler is for a command of another app.
        """
        found = [*super().subscriptions(), *(each for part in self.parts for each in part.subscriptions())]
        check_together(found)
        check_commands(self.name, found)
        return found

    async def run(self, *, until_idle: bool | Awaitable[object] = False) -> signal.Signals | None:
        """Work on what was and will be published, until SIGTERM, SIGINT or `stop`; then drain.

        Args:
            until_idle: True returns once everything published is handled and no retry is waiting. Dead letters and
                messages parked behind them do not count; neither do timers that are not due. An awaitable, such as a
                feed, is run beside the app and must end before idleness counts.

        Returns:
            The signal that asked for the end, or None.

        Raises:
            BadHandler: A handler cannot be called as declared.
            NeedsNotMet: A handler needs what the broker does not give.
            GroupConflict: Another handler holds one of the groups.
            ProjectionChanged: A projection's code changed without a rebuild.
            StoreError: The store went away for good.
        """
        return await run(self, until_idle=until_idle)

    def lifespan(self, _server: object = None) -> AbstractAsyncContextManager[None]:
        """Be open and at work for the length of a block, beside a server: `FastAPI(lifespan=app.lifespan)`."""
        return working(self)

    def stop(self) -> None:
        """Ask a running app to drain and return; from the same thread."""
        for worker in list(self._workers):
            worker.stop()

    def worker(self, only: str | None = None) -> Worker:
        """A worker of the open app, not yet started; for one group alone when `only` names it."""
        worker = worker_of(self, only)
        if only is None:
            self._workers.add(worker)
        return worker

    def blocking(self) -> Blocking:
        """The same verbs for plain code and threads: `with app.blocking() as b: b.publish(...)`."""
        from tidings.runtime.blocking import Blocking

        return Blocking(self)

    async def rebuild(self, part: str | Part, progress: Callable[[int, int], None] | None = None) -> None:
        """Drop the tables of a projection and run history through its handlers again; seed a replica anew.

        Args:
            part: The projection or replica, or its name.
            progress: Called with (done, total) positions now and then.

        Raises:
            NotFound: The app has no such part.
        """
        from tidings.runtime.rebuild import rebuild

        async with self:
            await rebuild(self, part if isinstance(part, str) else part.name, progress)

    async def _wait(self, verbs: Verbs, part: Any, position: int, timeout: float) -> None:
        for subscription in part.subscriptions():
            await verbs.wait_for(f"{self.name}.{subscription.group}", subscription, position, timeout)
