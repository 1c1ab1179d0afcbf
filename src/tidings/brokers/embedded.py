"""The embedded broker: groups read the log of any store directly, sharing its slots by leases.

A *feed* is a set of slots that move through the log together: one cursor, one watermark. A worker normally has one
feed per group; slots that arrive with another checkpoint start as a feed of their own and join once they caught up.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from operator import attrgetter
from typing import Any, ClassVar, TypeVar

from tidings.brokers.recent import Recent, in_a_row
from tidings.core.codec import MAX_BYTES
from tidings.core.envelope import Envelope, Seen
from tidings.core.guarantees import Guarantees
from tidings.core.operations import CRASHED, Claim, Held, Join, Lease, Settle
from tidings.core.ports import Store
from tidings.core.subscription import Subscription
from tidings.core.watermark import Watermark

_position = attrgetter("position")

E = TypeVar("E", Envelope, Seen)

SCAN = 20_000
"""Positions looked at in one read, so that a group whose types are rare does not read for long."""


class Feed:
    """Slots of one group that move through the log together."""

    __slots__ = ("closing", "cursor", "flushed", "slots", "watermark")

    def __init__(self, slots: dict[int, int], cursor: int) -> None:
        """Args: slots: slot -> epoch. cursor: position up to which events were taken."""
        self.slots = slots
        self.cursor = cursor
        self.flushed = cursor
        self.watermark = Watermark(cursor)
        self.closing = False

    @property
    def idle(self) -> bool:
        """True when nothing that was taken is unfinished."""
        return self.watermark.position >= self.cursor


class LogConsumer:
    """One worker's share of one group."""

    feeds: list[Feed]
    at_end: bool

    def __init__(
        self,
        store: Store,
        subscription: Subscription,
        group: str,
        app: str,
        member: str,
        lease: float,
        recent: Recent | None = None,
    ) -> None:
        """Args: group: full name. app: its name; private events of it are read too. lease: seconds."""
        self.store = store
        self.subscription = subscription
        self.group = group
        self.member = member
        self.feeds = []
        self.at_end = False
        self._app = app
        self._lease = lease
        self._one_slot = subscription.slots == 1
        self._feed_of: dict[int, Feed] = {}
        self._dropped: set[int] = set()  # slots forgotten with work under way, and not handed back yet
        self._skip: set[int] = set()
        self._names = frozenset(names) if (names := subscription.names) is not None else None
        self._wants: Callable[[Any], bool] | None = subscription.wants
        self._recent = recent or Recent()

    async def join(self) -> int:
        """Create the group if it is new; returns the events retained before its start.

        Raises:
            GroupConflict: Another handler holds the group, or another group the command.
            ProjectionChanged: The code that fills its tables changed.
        """
        it = self.subscription
        commands = [kind.name for kind in it.types if kind.kind == "command"]
        waiting: int = await self.store.write(
            Join(
                self.group,
                it.where,
                it.names or (),
                commands,
                it.slots,
                "latest" if it.bootstrap is not None else it.start,
                it.schema,
                it.fingerprint,
                seed=it.bootstrap is not None,
                on_dead=it.on_dead,
            )
        )
        return waiting

    def feed_of(self, envelope: Seen) -> Feed | None:
        """The feed a delivery belongs to now; None when its slot was lost."""
        return self._feed_of.get(0 if self._one_slot else envelope.slot)

    def slot_of(self, envelope: Seen) -> int:
        """The slot of an envelope in this group."""
        return 0 if self._one_slot else envelope.slot

    @property
    def slots(self) -> list[int]:
        """The slots whose deliveries this worker may take."""
        return [slot for slot, feed in self._feed_of.items() if not feed.closing]

    def split(self, slots: Iterable[int], unfinished: Sequence[Seen]) -> None:
        """Take slots out of their feeds to hand them back; `unfinished` are their taken, unfinished deliveries."""
        chosen = set(slots)
        for feed in list(self.feeds):
            leaving = {slot: epoch for slot, epoch in feed.slots.items() if slot in chosen}
            if leaving:
                self._part(feed, leaving, unfinished)
        self.feeds = [feed for feed in self.feeds if feed.slots]

    def _part(self, feed: Feed, slots: dict[int, int], unfinished: Sequence[Seen]) -> None:
        """Make a closing feed of some slots of a feed; neither waits for what is unfinished in the other."""
        own = sorted(envelope.position for envelope in unfinished if self.slot_of(envelope) in slots)
        parting = Feed(slots, feed.cursor)
        parting.closing = True
        parting.flushed = 0
        parting.watermark = Watermark(own[0] - 1 if own else feed.cursor)
        for position in own:
            parting.watermark.took(position)
            feed.watermark.finished(position)
        parting.watermark.advance_to(feed.cursor)
        for slot in slots:
            del feed.slots[slot]
            self._feed_of[slot] = parting
        self.feeds.append(parting)

    async def claim(self, want: int, busy: Collection[int] = ()) -> set[int]:
        """Renew the leases, take free slots up to `want`, hand back closing feeds that are settled.

        What `lose` let go of is handed back first: whatever is still under way for it is refused, as its epoch is over.

        Args:
            want: Slots to hold at most.
            busy: Slots with a held delivery in memory: they are not handed back yet.

        Returns:
            The slots that were lost to another worker: their deliveries must be forgotten.
        """
        if dropped := frozenset(self._dropped):
            await self.store.write(Claim(self.group, self.member, len(self._feed_of), list(dropped), self._lease))
            self._dropped -= dropped
        give = [
            slot
            for feed in self.feeds
            if feed.closing and feed.idle and feed.flushed >= feed.watermark.position
            for slot in feed.slots
            if slot not in busy
        ]
        held: Mapping[int, Lease] = await self.store.write(
            Claim(self.group, self.member, max(want, len(self._feed_of) - len(give)), give, self._lease)
        )
        self._forget(give)
        lost = {
            slot for slot, feed in self._feed_of.items() if slot not in held or held[slot].epoch != feed.slots[slot]
        }
        self._forget(lost)
        known = self._feed_of.keys() | self._dropped  # `lose` may have been called meanwhile
        await self._gain({slot: lease for slot, lease in held.items() if slot not in known})
        return lost

    def lose(self, feed: Feed) -> set[int]:
        """Forget a feed of which nobody knows how far it is; returns its slots."""
        slots = set(feed.slots)
        self._forget(slots)
        self._dropped |= slots
        return slots

    def _forget(self, slots: Iterable[int]) -> None:
        for slot in list(slots):
            if (feed := self._feed_of.pop(slot, None)) is not None:
                del feed.slots[slot]
        self.feeds = [feed for feed in self.feeds if feed.slots]

    async def _gain(self, leases: Mapping[int, Lease]) -> None:
        together: dict[tuple[int, int], dict[int, int]] = {}
        for slot, lease in leases.items():
            together.setdefault((lease.checkpoint, lease.started), {})[slot] = lease.epoch
        for (checkpoint, started), slots in together.items():
            self._skip |= await self.store.marks(self.group, checkpoint)
            if started > checkpoint:
                await self._suspect(slots, checkpoint, started)
            feed = Feed(slots, max(checkpoint, started))
            self.feeds.append(feed)
            for slot in slots:
                self._feed_of[slot] = feed

    async def _suspect(self, slots: dict[int, int], checkpoint: int, started: int) -> None:
        """Hold what a dead worker had started, so that each is tried again with an attempt of its own."""
        hold: list[Held] = []
        blocked: set[str] = set()
        after = checkpoint
        while rows := await self._read(after, started, 1000, slots):
            after = rows[-1].position
            rows = [row for row in rows if row.position not in self._skip]
            blocked |= await self.store.blocked(self.group, [row.key for row in rows if row.key is not None])
            for row in rows:
                waits = row.key is not None and row.key in blocked
                if row.key is not None:
                    blocked.add(row.key)
                hold.append(
                    Held(0, self.group, row.position, "parked", 0, 0, row, "waits behind an earlier one of its key")
                    if waits
                    else Held(0, self.group, row.position, "retry", 1, 0, row, CRASHED)
                )
        await self.store.write(Settle(self.group, slots, checkpoint=started, started=started, hold=hold))

    async def _read(self, after: int, until: int, limit: int, slots: Iterable[int]) -> Sequence[Envelope]:
        names, chosen = self.subscription.names, list(slots)
        some = chosen if 1 < self.subscription.slots != len(chosen) else None
        if self._recent.holds(after, until):
            return self._recent.read(after, until, limit, names, some, self._app)
        return await self.store.read(after, until, limit, types=names, slots=some, app=self._app)

    async def _skim(self, after: int, until: int, limit: int, slots: Iterable[int]) -> Sequence[Seen]:
        if self._wants is not None or not self._one_slot or self._recent.holds(after, until):
            return await self._read(after, until, limit, slots)
        return await self.store.skim(after, until, limit, self.subscription.names, self._app)

    async def again(self, seen: Sequence[Seen]) -> list[Envelope]:
        """All there is of what was skimmed."""
        positions = {each.position for each in seen}
        found = await self.store.read(seen[0].position - 1, seen[-1].position, SCAN, types=self.subscription.names)
        return [each for each in found if each.position in positions]

    async def fetch(self, limit: int) -> list[Envelope]:
        """Up to about `limit` events that no one took yet, in the order of the log within each key."""
        return await self._fetch(limit, self._read)

    async def skim(self, limit: int) -> list[Seen]:
        """The same, only what it takes to handle them, if all slots are one and nothing is left out."""
        return await self._fetch(limit, self._skim)

    async def _fetch(
        self, limit: int, read: Callable[[int, int, int, Iterable[int]], Awaitable[Sequence[E]]]
    ) -> list[E]:
        found: list[E] = []
        feeds: list[Feed] = [feed for feed in self.feeds if not feed.closing]
        if not feeds:
            self.at_end = True
            return found
        feeds.sort(key=lambda feed: feed.cursor)  # the hindmost first, but only until it has caught up with the next
        head = await self._recent.look(self.store.head)
        for feed, ahead in zip(feeds, [*feeds[1:], None], strict=True):
            room = limit - len(found)
            if feed.cursor >= head or room <= 0:
                continue
            until = min(head, feed.cursor + SCAN)
            if ahead is not None and ahead.cursor > feed.cursor:
                until = min(until, ahead.cursor)
            rows = await read(feed.cursor, until, room, feed.slots)
            cursor = rows[-1].position if len(rows) >= room else until
            watermark = feed.watermark
            if self._wants is not None:
                rows = [row for row in rows if self._wants(row)]
            if self._skip:
                rows = [row for row in rows if row.position not in self._skip]
            watermark.took(*map(_position, rows))
            found.extend(rows)
            feed.cursor = cursor
            watermark.advance_to(cursor)
        self.at_end = all(feed.cursor >= head for feed in feeds)
        if len(feeds) > 1:
            self._merge()
        if self._skip:
            passed = min(feed.cursor for feed in feeds)
            self._skip = {position for position in self._skip if position > passed}
        return found

    def passes(self, envelopes: Sequence[Envelope], positions: Sequence[int]) -> bool:
        """Pass by what was appended, if it follows what was taken and nothing of it is for this group."""
        if len(self.feeds) != 1 or (feed := self.feeds[0]).closing:
            return False
        if positions[0] != feed.cursor + 1 or not in_a_row(positions):
            return False
        if any(map(self._is_wanted, envelopes)):
            return False
        feed.cursor = positions[-1]
        feed.watermark.advance_to(feed.cursor)
        return True

    def _is_wanted(self, envelope: Envelope) -> bool:
        names, wants = self._names, self._wants
        return (names is None or envelope.type in names) and (wants is None or wants(envelope))

    def _merge(self) -> None:
        """Let feeds that are at the same place go on as one."""
        kept: list[Feed] = []
        for feed in self.feeds:
            twin = next((other for other in kept if other.cursor == feed.cursor and not other.closing), None)
            if twin is None or feed.closing:
                kept.append(feed)
                continue
            twin.slots.update(feed.slots)
            twin.watermark.join(feed.watermark)
            twin.flushed = min(twin.flushed, feed.flushed)
            for slot in feed.slots:
                self._feed_of[slot] = twin
        self.feeds = kept


class EmbeddedBroker:
    """The log of a store as a broker: no server, history, order per key, effects exactly once."""

    guarantees: ClassVar[Guarantees] = Guarantees(
        "the embedded broker",
        ordered=True,
        history=True,
        exactly_once=True,
        durable="power",
        max_bytes=MAX_BYTES,
    )

    def __init__(self, store: Store, app: str) -> None:
        """Args: store: whose log is read. app: name of the app whose private events are read too."""
        self._store = store
        self._app = app
        self._recent = Recent()

    def consumer(self, subscription: Subscription, group: str, member: str, lease: float) -> LogConsumer:
        """A worker's share of a group; nothing is claimed yet."""
        return LogConsumer(self._store, subscription, group, self._app, member, lease, self._recent)

    def appended(self, envelopes: Sequence[Envelope], positions: Sequence[int]) -> None:
        """What this process has appended and committed: its groups need not read it."""
        self._recent.appended(envelopes, positions)

    def changed(self, envelopes: Sequence[Envelope], positions: Sequence[int]) -> None:
        """The log may have grown, to where the last of the positions is, if there are any."""
        self._recent.changed(envelopes, positions)
