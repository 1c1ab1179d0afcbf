"""The ports: what a store, which changes only through `tidings.core.operations`, and a broker owe the runtime."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, ClassVar, Protocol

from tidings.core.arrival import Arrival, Result
from tidings.core.check import Check
from tidings.core.envelope import Envelope, Excerpt, Seen
from tidings.core.guarantees import Guarantees
from tidings.core.migration import Migration, Schema
from tidings.core.operations import Backlog, CurrentState, Held, Member, Op, State
from tidings.core.outbox import OutboxTable
from tidings.core.resource import Resource
from tidings.core.subscription import Subscription


class Rows(Protocol):
    """Result of one SQL statement: iterable rows (tuples), and `rowcount` of a change."""

    rowcount: int

    def fetchone(self) -> tuple[Any, ...] | None:
        """The next row or None."""

    def fetchall(self) -> list[tuple[Any, ...]]:
        """The rest of the rows."""


class StoreTransaction(Protocol):
    """One atomic change under way. Ends with exactly one of commit and rollback.

    Attributes:
        waiting: True while one of its calls is suspended: its caller then waits for the store and for nothing else.
    """

    waiting: bool

    async def execute(self, sql: str, params: Sequence[Any] = ()) -> Rows:
        """Run one statement where the transaction is."""

    async def executemany(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        """Run one statement for many rows."""

    async def load(self, stream: str, after: int = 0) -> Sequence[tuple[str, bytes, int]]:
        """(type, data, version) of a stream's events, as this transaction sees them."""

    async def apply(self, op: Op) -> Any:
        """Apply an operation as part of this transaction."""

    async def connection(self) -> Any:
        """The driver's own connection, inside this transaction."""

    async def savepoint(self) -> None:
        """Mark a place to come back to; savepoints do not nest."""

    async def keep(self) -> None:
        """Keep what was done since the savepoint."""

    async def undo(self) -> None:
        """Undo what was done since the savepoint."""

    def defer(self) -> None:
        """Let changes of which nobody looks at the result go out together, later: for who undoes all if one fails."""

    async def flush(self) -> None:
        """Have done what was deferred. Raises what it fails with, also if somebody did look at a result."""

    async def commit(self) -> None:
        """Make it durable. Raises OutcomeUnknown where that cannot be known."""

    async def rollback(self) -> None:
        """Undo it all. Safe to call twice."""


Changed = Callable[[Sequence[Envelope], Sequence[int]], None]
"""Called when the log may have grown: with what was appended and its positions, as far as they are at hand.

Where there are positions, the log ended with the last of them, else nobody knows where. It may be told late, after what
was appended behind it.
"""


class Store(Protocol):
    """Keeps the log, streams, held deliveries, timers, leases, current states and read models in one place."""

    guarantees: Guarantees
    url: str

    async def open(self) -> None:
        """Open it, creating what is missing. Raises StoreUnavailable or WrongStore."""

    def open_now(self) -> None:
        """The same, in one go, from wherever it is called."""

    async def close(self) -> None:
        """Finish waiting writes and close. Safe to call twice."""

    def close_now(self) -> None:
        """The same from a thread that may block."""

    async def write(self, op: Op) -> Any:
        """Apply one operation durably; many callers share one commit."""

    def write_now(self, op: Op) -> Any:
        """The same from a thread that may block."""

    async def begin(self) -> StoreTransaction:
        """Start a transaction of one's own; waits for its turn to write."""

    def begin_now(self) -> StoreTransaction:
        """The same from a thread that may block; the transaction's awaitables then never suspend."""

    async def query(self, sql: str, params: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Read with SQL, outside any transaction, from what is committed."""

    async def head(self) -> int:
        """The last position of the log, 0 when it is empty."""

    async def read(
        self,
        after: int,
        until: int,
        limit: int,
        *,
        types: Sequence[str] | None = None,
        slots: Sequence[int] | None = None,
        app: str | None = None,
    ) -> Sequence[Envelope]:
        """Envelopes with after < position <= until, in order, filtered; private ones (no topic) only of `app`."""

    async def skim(
        self, after: int, until: int, limit: int, types: Sequence[str] | None, app: str
    ) -> Sequence[Excerpt]:
        """The same of all slots, only what it takes to handle them."""

    async def load(self, stream: str, after: int = 0) -> Sequence[tuple[str, bytes, int]]:
        """(type, data, version) of a stream's events after a version, in order."""

    async def find(self, *, id: str | None = None, correlation: str | None = None) -> Sequence[Envelope]:
        """Envelopes by CloudEvents id, or by correlation id, in log order (at most 10,000)."""

    async def states(self, type: str, after: str = "", limit: int = 1000) -> Sequence[CurrentState]:
        """Current states of a type with key > after, in key order, tombstones included."""

    async def due(self, group: str, slots: Sequence[int], now: int, limit: int) -> Sequence[Held]:
        """Held deliveries to try now ("parked", or "retry" and due), by position; of each key at most the first."""

    async def first_held(self, group: str, keys: Sequence[str], limit: int) -> Sequence[Held]:
        """The first held deliveries of these keys, due or not, by position; of each key at most `limit`."""

    async def next_due(self, group: str, slots: Sequence[int]) -> int | None:
        """Microseconds since 1970 UTC when the next held delivery is due, or None."""

    async def blocked(self, group: str, keys: Sequence[str], *, dead: bool = True) -> set[str]:
        """Those of these keys that have held deliveries; dead letters count unless `dead` is False."""

    async def held(
        self,
        *,
        ids: Sequence[int] | None = None,
        group: str | None = None,
        key: str | None = None,
        state: State | None = None,
        limit: int = 1000,
    ) -> Sequence[Held]:
        """Held deliveries, by id, newest last; `limit` applies to the newest."""

    async def next_timer(self) -> int | None:
        """Microseconds since 1970 UTC when the next timer is due, or None."""

    def outbox(self) -> OutboxTable:
        """Where transactions of others write what they publish; also of a store that is not open.

        Raises:
            UsageError: No other connection can reach it.
        """

    async def oldest_outgoing(self) -> int | None:
        """When the oldest envelope in the outbox was published, microseconds since 1970 UTC; None when it is empty."""

    async def seeding(self, group: str) -> str | None:
        """The cursor of a replica's unfinished bootstrap ("" at its start), or None when there is none."""

    async def marks(self, group: str, after: int) -> set[int]:
        """Positions after `after` that were handled out of order."""

    async def backlog(self, group: str | None = None) -> Sequence[Backlog]:
        """How each group (or one) stands."""

    async def checkpoint(self, group: str) -> int:
        """Lowest position all slots of the group have finished; NotFound for an unknown group."""

    async def grown(self, position: int, timeout: float) -> None:
        """Return when the log may have grown beyond `position`, or held deliveries changed, or after `timeout` s."""

    async def watch(self, changed: Changed) -> None:
        """Call `changed` now, and whenever the log may have grown or held deliveries changed, until cancelled."""

    def poke(self) -> None:
        """Make every `grown` of this process return, and every `watch` call, now."""

    async def members(self) -> Sequence[Member]:
        """The workers that said they live, by app and member."""

    def schema(self) -> Schema:
        """For `tidings migrate`: how its schema stands. It need not be open; blocks."""

    def migrate(self, step: Migration) -> None:
        """For `tidings migrate`: take a pending step in one transaction. It need not be open; blocks."""

    def look(self) -> Sequence[Check]:
        """For the doctor: what can be seen from outside, before opening it; a failed check advises against that."""

    async def inspect(self, *, deep: bool = False) -> Sequence[Check]:
        """For the doctor: whether it is set up to keep its promises; `deep` reads everything."""


class Watermark(Protocol):
    """See `tidings.core.watermark.Watermark`."""

    @property
    def position(self) -> int:
        """Everything up to here is finished."""

    def finished(self, position: int) -> None:
        """Note that the delivery at this position ended."""


class Feed(Protocol):
    """Slots of a group that move through a log together.

    Attributes:
        closing: True while its slots are on their way to another worker.
        slots: Slot -> epoch of its lease.
        cursor: Position up to which deliveries were taken.
        flushed: Checkpoint in the store.
        watermark: What is finished of what was taken.
    """

    closing: bool
    slots: dict[int, int]
    cursor: int
    flushed: int
    watermark: Watermark


class Consumer(Protocol):
    """One worker's share of one group at a broker.

    Attributes:
        group: Full name of the group.
        feeds: What this worker holds now.
        at_end: True when the last `fetch` or `skim` came to the end of the log.
    """

    group: str
    feeds: list[Feed]
    at_end: bool

    @property
    def slots(self) -> list[int]:
        """The slots whose deliveries this worker may take."""

    async def join(self) -> int:
        """Create the group if it is new; returns the events retained before its start."""

    async def claim(self, want: int, busy: Collection[int] = ()) -> set[int]:
        """Renew leases, move towards `want` slots, but keep `busy` ones; returns slots lost to others."""

    async def fetch(self, limit: int) -> list[Envelope]:
        """Up to about `limit` events nobody took yet, ordered within each key."""

    async def skim(self, limit: int) -> list[Seen]:
        """The same, but excerpts of them where the store has those."""

    async def again(self, seen: Sequence[Seen]) -> list[Envelope]:
        """All there is of what was skimmed."""

    def passes(self, envelopes: Sequence[Envelope], positions: Sequence[int]) -> bool:
        """Pass by what follows what was taken, if none of it is for this group; False: fetch it. Not while one does."""

    def feed_of(self, envelope: Seen) -> Feed | None:
        """The feed a delivery belongs to now, None when its slot was lost."""

    def slot_of(self, envelope: Seen) -> int:
        """The slot of an envelope in this group."""

    def split(self, slots: Iterable[int], unfinished: Sequence[Seen]) -> None:
        """Take slots out of their feed, to be handed back once settled."""

    def lose(self, feed: Feed) -> set[int]:
        """Forget a feed, for nobody knows how far it is; returns its slots, which are taken up under another epoch."""


class Groups(Protocol):
    """The log of a store, read by groups. Lanes, retries, dead letters, inbox and drain belong to the runtime."""

    guarantees: ClassVar[Guarantees]

    def consumer(self, subscription: Subscription, group: str, member: str, lease: float) -> Consumer:
        """A worker's share of a group; nothing is claimed yet."""

    def appended(self, envelopes: Sequence[Envelope], positions: Sequence[int]) -> None:
        """What this process has appended and committed, with its places: it may be taken from here, and not be read."""

    def changed(self, envelopes: Sequence[Envelope], positions: Sequence[int]) -> None:
        """What a store tells who watches it, as `Changed` says: from the first call on, all that changes is told."""


class ClaimPlace(Protocol):
    """Keeps data that are too large for a broker, where all apps at that broker find them; made from a URL.

    All of it blocks, and any thread may call it. Names are hexadecimal digits and dashes.
    """

    url: str

    def check(self) -> None:
        """Raises BrokerRefused where it is not there or may not be used, BrokerUnavailable where nobody answers."""

    def put(self, name: str, data: bytes) -> None:
        """Keep data durably, whole or not at all, in place of any of that name. Raises BrokerUnavailable."""

    def get(self, name: str, most: int) -> bytes | None:
        """What is there by that name, up to `most` bytes of it; None for nothing.

        Raises:
            BrokerUnavailable: Nobody answers, or for this one as for all others the right is missing.
            Unreadable: It is there, and this one alone may not be read.
        """


class Broker(Protocol):
    """Carries envelopes from the log of one store to the logs of others; made from a URL and the name of an app.

    The workers of an app share what arrives for it: each message reaches one of them at a time. It connects again by
    itself. No call lasts longer than its deadline, and none is made by two tasks at once, except `publish`.
    """

    guarantees: Guarantees
    url: str  # for people: without a secret

    async def open(self) -> None:
        """Connect. Raises BrokerUnavailable, or BrokerRefused where waiting will not help."""

    async def subscribe(self, topics: Sequence[str]) -> None:
        """Declare where messages of these topics arrive for this app, and begin to receive them.

        What was published before the first subscription arrives where `guarantees.history` says so, and not elsewhere.

        Raises:
            BrokerUnavailable: It cannot be reached.
            BrokerRefused: What is there differs from what is needed, or may not be used; says the difference.
        """

    async def publish(self, envelopes: Sequence[Envelope]) -> Sequence[Result]:
        """Publish envelopes, all of them at once; returns what became of each, in the order given.

        The caller publishes no two of one key at once: the next one of a key comes after `Confirmed`. Never raises for
        what befalls a message, and ends within `DEADLINE` seconds.
        """

    async def fetch(self, limit: int, wait: float) -> Sequence[Arrival]:
        """Up to `limit` messages that arrived, in order of arrival within each key; waits up to `wait` s for the first.

        What was fetched and is not settled comes again, once this app's connection to the broker has ended.

        Raises:
            BrokerUnavailable: It cannot be reached at the moment; nothing is lost by that.
            BrokerRefused: It will not deliver until somebody mends something; says what.
        """

    async def settle(self, arrivals: Sequence[Arrival]) -> None:
        """Tell the broker that messages are safe here. One that is fetched earlier is settled earlier.

        Where the connection has changed hands meanwhile they come again, which is no error: ids are known.
        """

    async def waiting(self) -> int:
        """How many messages wait for this app at the broker, those included that are fetched and not settled."""

    async def close(self) -> None:
        """Disconnect; what is not settled comes again. Safe to call twice."""

    def look(self) -> Sequence[Check]:
        """For the doctor: how it is set up, over a connection of its own; blocks. A failed check names its cure."""

    def topology(self, topics: Sequence[str]) -> Sequence[Resource]:
        """What must be there for this app to receive these topics; asks nobody.

        Raises:
            BrokerRefused: The broker has no such names.
        """

    def export(self, topics: Sequence[str]) -> str:
        """The same as commands, or as a template, for those who make it themselves."""
