"""The intake of one pump: what is to be handled next, and what has to wait behind a failure of its key."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import msgspec

from tidings.core.envelope import SLOTS, Envelope
from tidings.core.newest import newest_only
from tidings.core.operations import CRASHED, Delivery, Held, State
from tidings.core.ports import Consumer, Store
from tidings.core.subscription import Subscription
from tidings.runtime.clock import MICROSECONDS, Clock, loop_time
from tidings.runtime.settlement import Ended

CRASHES = 3
"""Starts that ended with the worker before a message becomes a dead letter, whatever its retry policy allows."""

ALONE = 5.0
"""Seconds that a suspect has for itself at most, and as many that it waits for the others to end."""

WAITS = "waits behind an earlier one of its key"
RELEASED = "released when its worker stopped"
BEHIND = "was next in a worker that stopped"


class Intake:
    """Takes deliveries from the log and from the table of held ones, and keeps each key in order.

    Attributes:
        rows: Held deliveries in memory, by row id.
        parked: Deliveries to be held with the next commit.
        superseded: Deliveries that a newer one of their key replaces; they end unseen.
        failing: Keys whose failure is decided but not committed, with the one that failed: what follows is parked.
        passed: Keys with a held delivery that is due but not taken, for an earlier one of the key has not ended.
        look: True when held deliveries may have become due.
        due: Microseconds since 1970 UTC when the next held delivery is due; None when none is.
    """

    def __init__(self, store: Store, subscription: Subscription, consumer: Consumer, clock: Clock) -> None:
        """Wire the parts; nothing is read yet."""
        self._store = store
        self._subscription = subscription
        self._consumer = consumer
        self._clock = clock
        self._any_held = True
        self._suspect = 0  # row id of the one that runs alone
        self._alone = 0.0  # until when, loop time
        self._waits = 0.0  # until when another one waits for the others to end; 0.0 when none does
        self.rows: dict[int, Held] = {}
        self.parked: list[Held] = []
        self.superseded: list[Delivery] = []
        self.failing: dict[str, Envelope] = {}
        self.passed: set[str | None] = set()
        self.look = True
        self.due: int | None = None

    @property
    def calm(self) -> bool:
        """True where nothing is held, fails or waits: all there is to take is fresh."""
        return not (self._any_held or self.failing or self.parked)

    @property
    def more(self) -> bool:
        """True where the log goes on behind what was looked at last, and may be looked at."""
        return not (self._consumer.at_end or self._waits or self._is_reserved())

    def held_changed(self) -> None:
        """Note that the table of held deliveries is not what it was."""
        self._any_held = self.look = True

    def settled(self, ended: Iterable[Ended], parked: Sequence[Held]) -> None:
        """Bring memory in line with what is committed now. Args: ended: all but what was just acknowledged."""
        for end in ended:
            if end.delivery.held:
                self.rows.pop(end.delivery.held, None)
                self.look = True
            if end.held is not None:
                envelope = end.delivery.envelope
                self.held_changed()
                if envelope.key is not None and self.failing.get(envelope.key) is envelope:
                    del self.failing[envelope.key]
        if parked:
            self.held_changed()

    def clear(self) -> None:
        """Forget everything; the store knows."""
        self.rows.clear()
        self.parked.clear()
        self.superseded.clear()
        self.failing.clear()
        self.held_changed()

    def lose(self, is_lost: Callable[[Envelope], bool]) -> None:
        """Forget what belongs to another worker now."""
        self.rows = {at: row for at, row in self.rows.items() if not is_lost(row.envelope)}
        self.parked = [row for row in self.parked if not is_lost(row.envelope)]
        self.failing = {key: one for key, one in self.failing.items() if not is_lost(one)}
        self.held_changed()

    # ---- taking --------------------------------------------------------------------------------------------------

    async def take(self, room: int, in_memory: int, is_busy: Callable[[str | None], bool]) -> list[Delivery]:
        """Deliveries to hand over now: held ones that are due, then fresh ones; keys in trouble are parked.

        Args:
            room: How many at most, about.
            in_memory: How many are being handled already.
            is_busy: True for keys of which one is.
        """
        if self._is_reserved():
            return []
        taken: list[Delivery] = []
        if self.look and self._any_held:
            taken = await self._take_held(room, in_memory, is_busy)
            if self._is_reserved() or self._waits:
                return taken
            taken = await self._with_those_behind(taken, room - len(taken))
        elif self.look:
            self.look, self.due = False, None
        fresh = await self._consumer.fetch(room - len(taken))
        if not fresh:
            return taken
        if self._any_held or self.failing or self.parked:
            keys = [envelope.key for envelope in fresh if envelope.key is not None]
            parks = self._subscription.on_dead == "park"
            blocked = await self._store.blocked(self._consumer.group, keys, dead=parks) | self.failing.keys()
            blocked |= {row.envelope.key for row in self.parked if row.envelope.key and (parks or row.state != "dead")}
            for envelope in fresh:
                if envelope.key in blocked:
                    self.park(envelope)
            fresh = [envelope for envelope in fresh if envelope.key not in blocked]
        deliveries = list(map(Delivery, fresh))
        if self._subscription.newest:
            deliveries, superseded = newest_only(deliveries)
            self.superseded.extend(superseded)
        return taken + deliveries if taken else deliveries

    async def _take_held(self, room: int, in_memory: int, is_busy: Callable[[str | None], bool]) -> list[Delivery]:
        self.look, self.due = False, None
        waited, self._waits = self._waits, 0.0
        group, slots = self._consumer.group, self._key_slots()
        taken: list[Delivery] = []
        self.passed.clear()
        for row in await self._store.due(group, slots, self._clock.now(), room + in_memory):
            if row.id in self.rows:
                continue
            if not self._is_passed(row):
                self.look = True
                continue
            if is_busy(row.envelope.key) or row.envelope.key in self.failing:
                self.passed.add(row.envelope.key)
                continue
            if row.reason == CRASHED and row.attempt >= max(CRASHES, self._subscription.retry.attempts):
                self._bury(row)
                continue
            suspect = _is_suspect(row)
            if suspect and self._suspect in self.rows:
                continue
            if suspect and (taken or in_memory) and (not waited or loop_time() < waited):
                self.look, self._waits = True, waited or loop_time() + ALONE
                return taken
            self.rows[row.id] = _told(row)
            taken.append(Delivery(row.envelope, row.attempt + 1, row.id))
            self.look = True  # there may be more
            if suspect:
                self._suspect, self._alone = row.id, loop_time() + ALONE
                return taken
        if not taken:
            self.due = await self._next_due(group, slots)
            self._any_held = bool(await self._store.held(group=group, limit=1)) or bool(self.parked)
        return taken

    async def _with_those_behind(self, taken: list[Delivery], room: int) -> list[Delivery]:
        """Held deliveries, with what waits right behind those of them that only waited: many then share each commit.

        What is behind one that has failed still waits: it may fail again, and all the others would have to be put back.
        And what was taken when a worker died is taken one by one, for one of them may have killed it.
        """
        heads = {row.envelope.key: row for each in taken if _only_waits(row := self.rows[each.held])}
        keys = [key for key in heads if key is not None]
        if not keys or room < len(keys):
            return taken
        skips = self._subscription.on_dead == "skip"
        for row in await self._store.first_held(self._consumer.group, keys, 1 + room // len(keys)):
            head = heads.get(row.envelope.key)
            if head is None or row.position <= head.position or (skips and row.state == "dead"):
                continue
            if not (_only_waits(row) and self._is_passed(row)):
                del heads[row.envelope.key]
                continue
            self.rows[row.id] = row
            taken.append(Delivery(row.envelope, row.attempt + 1, row.id))
        return sorted(taken, key=lambda each: each.envelope.position)

    def _is_passed(self, row: Held) -> bool:
        """False while what is before a held delivery in the log is still to be taken, and may be of its key.

        So it is where a worker held what waited behind a slow one, and was killed before that one had ended.
        """
        feed = self._consumer.feed_of(row.envelope)
        return feed is None or row.position <= feed.cursor

    def _is_reserved(self) -> bool:
        """True while a suspect runs: nothing is taken beside it, so that only it can be to blame."""
        return self._suspect in self.rows and loop_time() < self._alone

    async def _next_due(self, group: str, slots: Sequence[int]) -> int | None:
        """When to look again. Rows that are being handled are due in the store; they must not count."""
        if not self.rows and not self.passed:
            return await self._store.next_due(group, slots)
        soon = self._clock.now() + MICROSECONDS
        rows = await self._store.due(group, slots, soon, len(self.rows) + len(self.passed) + 1)
        others = (row for row in rows if row.id not in self.rows and row.envelope.key not in self.passed)
        if self._suspect in self.rows:
            others = (row for row in others if not _is_suspect(row))
        return min((row.due for row in others), default=None)

    def _bury(self, row: Held) -> None:
        """A delivery whose handler stopped the worker again and again becomes a dead letter."""
        history = [*row.history, f"attempt {row.attempt}: {CRASHED}; dead letter"]
        since = row.since or self._clock.now()  # none was noted: nobody was there to see it fail
        self.parked.append(msgspec.structs.replace(row, state="dead", since=since, history=history))
        self.look = True

    def _key_slots(self) -> list[int]:
        """The slots of keys whose held deliveries are this worker's: all of them in a group of one slot."""
        held = self._consumer.slots
        return list(range(SLOTS)) if held and self._subscription.slots == 1 else held

    def marked(self, starting: Sequence[Delivery]) -> list[Held]:
        """Held deliveries that start now, as they are to be stored for the case that this worker dies.

        What is taken behind another one of its key keeps its attempts: it may never begin.
        """
        marks: list[Held] = []
        begun: set[str | None] = set()
        for each in starting:
            row, key = self.rows.get(each.held), each.envelope.key
            if row is None:
                continue
            if key in begun:
                marks.append(msgspec.structs.replace(row, reason=BEHIND))
                continue
            marks.append(msgspec.structs.replace(row, attempt=each.attempt, reason=CRASHED, state="retry", due=0))
            if key is not None:
                begun.add(key)
        return marks

    # ---- holding -------------------------------------------------------------------------------------------------

    def park(self, envelope: Envelope) -> None:
        """Hold a fresh delivery behind the one of its key that failed."""
        self._hold(envelope, "parked", WAITS)

    def release(self, deliveries: Iterable[Delivery], reason: str = RELEASED) -> None:
        """Hold what was taken and not finished, so that the checkpoint can pass what was finished after it."""
        for delivery in deliveries:
            row = self.rows.pop(delivery.held, None)
            if row is not None:
                self.parked.append(row)  # as it was before this attempt was marked
            elif not delivery.held:
                state: State = "retry" if delivery.envelope.key is None else "parked"  # the first of its key is due
                self._hold(delivery.envelope, state, reason)

    def _hold(self, envelope: Envelope, state: State, reason: str) -> None:
        group, now = self._consumer.group, self._clock.now()
        self.parked.append(Held(0, group, envelope.position, state, 0, 0, envelope, reason, since=now))


def _only_waits(row: Held) -> bool:
    """True where a delivery was held for another one of its key, and for nothing else."""
    return row.state == "parked" and row.reason not in {BEHIND, CRASHED}


def _told(row: Held) -> Held:
    """A row with what became of its last attempt, where nobody lived to write that down."""
    line = f"attempt {row.attempt}: {CRASHED}"
    if row.reason != CRASHED or not row.attempt or line in row.history[-1:]:
        return row
    return msgspec.structs.replace(row, history=[*row.history, line])


def _is_suspect(row: Held) -> bool:
    """True where two workers stopped during the delivery; it may be what stopped them."""
    return row.reason == CRASHED and row.attempt > 1
