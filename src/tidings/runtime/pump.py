"""The pump of one subscription: takes deliveries, hands them to the handler, settles what became of them.

One step: collect what is due and fresh; commit what ended meanwhile together with the mark of what starts now; hand
over. A commit under way is the pause in which the next settlements gather, so nothing waits for a timer.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Sequence
from contextvars import copy_context
from typing import Any, TypeVar

from tidings.core.envelope import Envelope, Seen
from tidings.core.lanes import Lanes
from tidings.core.operations import Delivery, Held, Settle
from tidings.core.ports import Consumer, Feed, Store
from tidings.core.subscription import Subscription
from tidings.errors import Fenced
from tidings.runtime.ahead import Ahead
from tidings.runtime.alarm import Alarm
from tidings.runtime.answering import Answering
from tidings.runtime.batch import run_batch
from tidings.runtime.catchup import reached
from tidings.runtime.clock import MICROSECONDS, Clock, loop_time
from tidings.runtime.dispatch import Dispatch
from tidings.runtime.intake import WAITS, Intake
from tidings.runtime.lane import make_room, run_here, run_lane
from tidings.runtime.outgoing import Outgoing
from tidings.runtime.settlement import Endings, settlements, write
from tidings.runtime.sweep import sweep
from tidings.runtime.transaction import LONGEST_TRANSACTION, OpenTransaction

log = logging.getLogger("tidings")

T = TypeVar("T")

CLAIM_AGAIN = 0.1
"""Seconds after a refused result before the slots are claimed again."""

LEISURE = 0.02
"""Seconds for which what simply ended is gathered before it is committed, where nothing depends on it."""

LOOK = 0.5
"""Seconds between looks for held deliveries that someone else put back to work, however busy it is here."""


class Pump:
    """Feeds one handler of one worker."""

    def __init__(
        self, store: Store, subscription: Subscription, consumer: Consumer, outgoing: Outgoing, clock: Clock
    ) -> None:
        """Wire the parts; nothing runs yet."""
        self.store = store
        self.subscription = subscription
        self.consumer = consumer
        self.outgoing = outgoing
        self.clock = clock
        self.group = consumer.group
        self.dispatch = Dispatch(subscription)
        self.answering = Answering(self.group, self.dispatch, outgoing, clock)
        self.lanes: Lanes[Delivery] = Lanes()
        self.wake = asyncio.Event()
        self.context = copy_context()  # in copies of it handlers run, whatever those before them have set
        self.stopping = self.batching = self.cutting = False  # handlers run in its own task; are cancelled, it ends
        self.handled = self._want = 0
        self.ended = Endings()
        self.careful = 0  # batches still to be handled before the next sweep
        self.suspends = not subscription.transactional  # until a handler was seen to await something else than its tx
        self.quick = self.suspends  # else: until one was seen to wait, handlers run in the task of the pump
        self.running: dict[int, Delivery] = {}  # by id(): hashing a delivery would hash its data
        self.began: dict[int, float] = {}  # when each of them did, loop time
        self.void: set[int] = set()  # running ones whose slot was lost: whatever they end with is refused
        self.committing: set[int] = set()  # running ones whose commit is under way
        self._claim_at = self._flush_at = self._look_at = self._scanned_at = 0.0  # loop times: not before; the last one
        self.tasks: set[asyncio.Task[None]] = set()
        self.intake = Intake(store, subscription, consumer, clock)
        self.go_on: Callable[[], None] = lambda: None  # runs this pump in a new task; set by the worker
        self.on_settled: Callable[[], None] = lambda: None  # likewise
        self._settled = self._flushing = False  # waits, with nothing half committed; commits what watermarks count
        self.now: Callable[[], float] = loop_time  # while it runs that of its own loop, which need not be looked for
        self.alarm = Alarm(self._look)
        self.owner: asyncio.Task[Any] | None = None
        self._marks = subscription.counted and store.guarantees.durable != "process"  # else none outlives the attempt
        self._leisure = 0.0 if self._marks else LEISURE
        self.broken: BaseException | None = None  # what ended a lane that should not have ended
        self.ahead = Ahead(subscription.concurrency)

    # ---- the loop ------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Pump until `stopping`; then return with everything that ended settled."""
        self.owner = me = asyncio.current_task()
        self.now = asyncio.get_running_loop().time
        while not self.stopping and self.owner is me:
            self.wake.clear()
            self._settled = False
            if not await self.step() and self.owner is me and not self.wake.is_set():
                self._settled = True
                await self._wait()

    async def step(self) -> bool:
        """One round; True when there is reason for another at once."""
        if self.broken is not None:
            broken, self.broken = self.broken, None
            raise broken
        self.ahead.adapt(self.now(), busy=bool(len(self.lanes)))
        if self.now() >= self._claim_at:
            await self._claim()
        if is_full := self.in_memory >= self.ahead.room:
            make_room(self)
        taken = await self.take(room) if (room := self.ahead.room - self.in_memory) > 0 else []
        if not self._may_wait():
            self._flush_at = self.now() + self._leisure
            await self.flush(taken if self._marks else ())
        if not self.suspends:
            taken = await self._run_batches(taken)
        if taken:
            self.hand_over(taken)
            if self.quick and not await run_here(self):
                return False
        goes_on = is_full or self.intake.more or (self.intake.look and bool(taken))
        if not goes_on or self.in_memory >= self.ahead.room:
            return False
        await asyncio.sleep(0)  # lets the lanes run before the next read
        return True

    async def _run_batches(self, taken: list[Delivery]) -> list[Delivery]:
        """Handle deliveries in batches; returns those for which there are none any more."""
        taken = [each for each in taken if self.takes(each)]  # its slot may be lost, its key may have failed
        while taken and not self.suspends and not self.stopping:
            if self.sweeps and not any(each.held for each in taken):
                taken = await sweep(self, [each.envelope for each in taken])
            else:
                self.ahead.handed(self.now(), anew=True)
                taken = await run_batch(self, taken)
        return taken

    async def _wait(self) -> None:
        ending = bool(self.ended or self.intake.parked)
        pause = min(self._claim_at, self._flush_at if ending else math.inf) - self.now()
        if ending and pause <= 0.0:
            return
        if self.intake.due is not None and self.in_memory < self.ahead.room:  # without room, whatever ends sets `wake`
            pause = min(pause, (self.intake.due - self.clock.now()) / MICROSECONDS)
        self.alarm.set(self.now() + max(0.0, min(pause, LOOK)))
        await self.wake.wait()

    def _look(self) -> None:
        self.intake.look = True
        self.wake.set()

    def changed(self, envelopes: Sequence[Envelope], positions: Sequence[int]) -> None:
        """Go on, unless all that changed is what was appended, where that is told, and none of it is for this group."""
        if not (envelopes and self._settled and self.consumer.passes(envelopes, positions)):
            self.wake.set()

    @property
    def in_memory(self) -> int:
        """Deliveries taken and not yet settled."""
        return len(self.lanes) + len(self.ended)

    # ---- taking ---------------------------------------------------------------------------------------------------

    async def take(self, room: int) -> list[Delivery]:
        """Up to about so many deliveries that nobody took yet."""
        if self.now() >= self._look_at:
            self._look_at = self.now() + LOOK
            self.intake.look = True
        taken = await self.intake.take(room, self.in_memory, self.lanes.claims)
        while self.intake.superseded:
            self.ended.well(self.intake.superseded.pop())
        return taken

    async def take_more(self, take: Callable[[int], Awaitable[list[T]]]) -> list[T]:
        """What is taken right away, if the leases are as they should be. Args: take: takes so many."""
        self.ahead.adapt(self.now(), busy=bool(len(self.lanes)))
        if self.stopping or self.suspends or self.now() >= self._claim_at:
            return []
        return await take(self.ahead.room)

    @property
    def sweeps(self) -> bool:
        """True while this handler may be handed over what is new in sweeps."""
        return self.subscription.repeatable and not (self.careful or self.suspends or self.stopping)

    def takes(self, delivery: Delivery) -> bool:
        """True when a delivery may be handled now; otherwise it is put where it belongs."""
        envelope, intake = delivery.envelope, self.intake
        if self.consumer.feed_of(envelope) is None:
            intake.rows.pop(delivery.held, None)
            return False
        if intake.failing and envelope.key in intake.failing:
            intake.release([delivery], WAITS)
            return False
        return True

    # ---- handing over --------------------------------------------------------------------------------------------

    def hand_over(self, taken: Sequence[Delivery]) -> None:
        """Put deliveries into their lanes and see that enough tasks work on them."""
        for delivery in taken:
            if self.takes(delivery):  # its key may have failed while the mark was committed
                self.lanes.add(self.lane_of(delivery), delivery)
        if taken:
            self.ahead.handed(self.now())
        self.staff()

    def lane_of(self, delivery: Delivery) -> str | None:
        """The key of a delivery; a group of one slot keeps the order of the log over all keys."""
        return delivery.envelope.key if self.subscription.slots > 1 else ""

    def staff(self) -> None:
        """See that enough tasks work on what may be handled."""
        if self.stopping or self.quick:
            return
        for _ in range(min(self.lanes.ready, self.subscription.concurrency - len(self.tasks))):
            self.adopt(asyncio.create_task(run_lane(self), context=self.context.copy()))

    def adopt(self, task: asyncio.Task[Any]) -> None:
        """Count a task among those in which handlers run."""
        self.tasks.add(task)
        task.add_done_callback(self._lane_ended)

    def _lane_ended(self, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.broken = error
            self.wake.set()
        self.staff()  # what waited behind a detached handler is nobody's yet

    def begin(self, delivery: Delivery) -> None:
        """A handler begins."""
        self.running[id(delivery)] = delivery
        self.began[id(delivery)] = self.now()

    def finish(self, delivery: Delivery) -> None:
        """A handler ended, one way or another: the next one of its key may be handled."""
        del self.running[id(delivery)], self.began[id(delivery)]
        self.void.discard(id(delivery))
        self.lanes.finish(self.lane_of(delivery))
        self.intake.look |= delivery.envelope.key in self.intake.passed
        self.ended_some()

    def ended_some(self) -> None:
        """Deliveries ended: settle them now, or at leisure where that is as good."""
        if self._settled and self._may_wait() and not self.intake.look:
            self.alarm.set(self._flush_at)
        else:
            self.wake.set()

    def _may_wait(self) -> bool:
        """True where what ended may be settled later, with more."""
        waits = self.now() < self._flush_at and 2 * len(self.ended) <= self.ahead.room
        return waits and not (self.stopping or self.ended.others)

    def transaction(self) -> OpenTransaction:
        """A transaction for one handler, or for a batch of them."""
        return OpenTransaction(self.store, self.store.begin, self.outgoing, self.clock, limit=LONGEST_TRANSACTION)

    # ---- settling ------------------------------------------------------------------------------------------------

    async def flush(self, starting: Sequence[Delivery] = ()) -> None:
        """Commit what ended, what is parked, and the mark of what starts now."""
        ended, parked, ops = self.settlements(starting, mark=bool(starting))
        try:
            for feed, op in ops:  # more than one only while slots change hands
                await self._commit(feed, op)
        except BaseException:
            self.reset()  # the watermarks count on what may not be in the store
            raise
        self.settled(ended, parked)

    def settlements(
        self, starting: Sequence[Delivery], *, mark: bool
    ) -> tuple[Endings, list[Held], list[tuple[Feed, Settle]]]:
        """What ended and what is parked since the last time, and the operations that settle it."""
        ended = self.ended.take()
        parked, self.intake.parked = self.intake.parked, []
        if not (ended or parked or mark or self._scanned()):
            return ended, parked, []
        marks = self.intake.marked(starting)
        self._flushing = True
        ops = settlements(self.consumer, ended, parked, marks, mark=mark, counted=self.subscription.counted)
        return ended, parked, ops

    def _scanned(self) -> bool:
        """True when a feed passed events of other types and its checkpoint may follow, at leisure."""
        passed = any(feed.watermark.position > feed.flushed for feed in self.consumer.feeds)
        due = passed and (self.stopping or self.now() - self._scanned_at > LOOK)
        if due:
            self._scanned_at = self.now()
        return due

    async def _commit(self, feed: Feed, op: Settle) -> None:
        """Write one settlement; let go of the feed when it was fenced."""
        try:
            await write(self.store, self.group, op)
        except Fenced as error:
            log.warning("%s: %s", self.group, error.what)
            self._forget_slots(self.consumer.lose(feed))
            self._claim_at = self.now() + CLAIM_AGAIN
        else:
            feed.flushed = max(feed.flushed, op.checkpoint or 0)

    def settled(self, ended: Endings, parked: Sequence[Held]) -> None:
        """Bring memory in line with what is committed now."""
        self._flushing = False
        self.handled += len(ended)
        self.intake.settled(ended.others, parked)
        self.on_settled()

    # ---- leases ----------------------------------------------------------------------------------------------

    def share(self, want: int) -> None:
        """Set how many slots this worker should hold; the pump sees to it between two rounds.

        One that has nothing to commit looks again every time: nothing else would tell it that it lost its slots.
        """
        changes = want != self._want or want != len(self.consumer.slots)
        if changes or self.idle or any(feed.closing for feed in self.consumer.feeds):
            self._want = want
            self._claim_at = 0.0
            self.wake.set()

    async def _claim(self) -> None:
        """Take or hand back slots, at a moment when everything taken is in its lane or settled."""
        consumer = self.consumer
        surplus = len(consumer.slots) - self._want
        if surplus > 0:
            leaving = set(consumer.slots[:surplus])
            self.intake.release(self.lanes.drop(lambda item: consumer.slot_of(item.envelope) in leaving))
            running = (item for at, item in self.running.items() if at not in self.void)
            unfinished = [*self.ended.fresh, *(item.envelope for item in running if not item.held)]
            consumer.split(leaving, [*unfinished, *(row.envelope for row in self.intake.parked if not row.id)])
            await self.flush()
        before = set(consumer.slots)
        busy = {consumer.slot_of(row.envelope) for row in self.intake.rows.values()}
        busy |= {consumer.slot_of(item.envelope) for item in self.running.values()}
        self._claim_at = math.inf
        self._forget_slots(await consumer.claim(self._want, busy))
        if set(consumer.slots) - before:
            self.intake.held_changed()

    def reset(self) -> None:
        """Let go of everything in memory and take it up again from what the store says."""
        self._claim_at = self.now() + CLAIM_AGAIN
        for feed in list(self.consumer.feeds):
            self._forget_slots(self.consumer.lose(feed))
        self.ended.take()
        self.intake.clear()
        self._flushing = False

    def _forget_slots(self, slots: set[int]) -> None:
        """Drop what waits in memory for slots that belong to another worker now."""
        if not slots:
            return

        def is_lost(envelope: Seen) -> bool:
            return self.consumer.slot_of(envelope) in slots

        self.lanes.drop(lambda item: is_lost(item.envelope))
        self.intake.lose(is_lost)
        self.ended.drop(is_lost)
        self.void |= {at for at, item in self.running.items() if is_lost(item.envelope)}
        self.wake.set()

    async def finished(self, position: int) -> bool:
        """True when the whole group, here or elsewhere, has finished everything up to a position."""
        if len(self.consumer.slots) == self.subscription.slots:
            return not self._flushing and all(feed.watermark.position >= position for feed in self.consumer.feeds)
        return await reached(self.store, self.group, self.subscription, position)

    @property
    def idle(self) -> bool:
        """True when nothing is taken, ending, due or waiting for a retry, as far as this worker knows."""
        return (
            self._settled
            and not self.in_memory
            and not self.intake.parked
            and self.intake.due is None
            and not self.intake.look
        )
