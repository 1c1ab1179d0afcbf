"""Planted bugs: each breaks one promise, as an implementation might. They exist to see that the proof finds them.

A mutant is a function that patches the product in the process that calls it, which is always a forked child or a
simulation; nothing in the product knows of them. The numbers are those of docs/guarantees.md.
"""

import asyncio
import weakref
from collections.abc import Callable

import msgspec

from tidings.core.operations import Delivery
from tidings.core.retry import Retry
from tidings.errors import StoreUnavailable, Unreadable
from tidings.runtime import batch, dispatch, lane, pump, sweep
from tidings.runtime.pump import Pump
from tidings.runtime.settlement import Ended
from tidings.stores.sqlite import held
from tidings.stores.sqlite.committer import Committer

MUTANTS: dict[str, tuple[Callable[[], None], str]] = {}
"""Name -> (what plants it, what it is)."""


def planted(name: str) -> Callable[[Callable[[], None]], Callable[[], None]]:
    """Register a planted bug."""

    def register(plant: Callable[[], None]) -> Callable[[], None]:
        MUTANTS[name] = (plant, plant.__doc__ or "")
        return plant

    return register


@planted("M1")
def acknowledge_first() -> None:
    """A delivery is acknowledged before its handler runs."""
    make = Pump.__init__

    def with_a_bug(self, *parts):
        make(self, *parts)
        call = self.dispatch.call

        async def too_early(message, tx, envelope):
            if tx is None:
                self.ended.acked.append(envelope)
                await self.flush()
            return await call(message, tx, envelope)

        self.dispatch.call = too_early

    Pump.__init__ = with_a_bug


@planted("M2")
def do_not_flush() -> None:
    """Commits are not flushed to the disk (synchronous=NORMAL)."""
    make, flush = Committer.__init__, Committer._flush_at_commit

    def from_the_beginning(self, *arguments, **options):
        make(self, *arguments, **options)
        self._flush_at_commit(durable=True)

    Committer._flush_at_commit = lambda self, *, durable: flush(self, durable=False)
    Committer.__init__ = from_the_beginning


@planted("M7")
def trust_old_owners() -> None:
    """The epoch of a lease is not looked at."""

    def unchecked(changes, op):
        return changes.connection.execute("SELECT count(*) FROM tidings_slot WHERE name = ?", (op.group,)).fetchone()[0]

    held._check_epochs = unchecked


@planted("M8")
def acknowledge_the_cancelled() -> None:
    """A handler that was cancelled counts as done."""
    call = lane._call

    async def swallowing(pump, delivery, tx):
        try:
            return await call(pump, delivery, tx)
        except asyncio.CancelledError:
            return None

    lane._call = swallowing


@planted("M9")
def acknowledge_apart() -> None:
    """The acknowledgement is committed after the effects, in a transaction of its own."""

    async def in_two(pump, tx, following, *, mark):
        ended, parked, ops = pump.settlements(following, mark=mark)
        await tx.finish()
        for feed, op in ops:
            await pump._commit(feed, op)
        pump.settled(ended, parked)

    batch.commit = sweep.commit = in_two


@planted("M10")
def bury_late() -> None:
    """A delivery that gave up is acknowledged first, and becomes a dead letter in a second commit."""

    def halves(op):
        late = [row for row in op.hold if row.state == "dead"]
        gone = [row.id for row in late if row.id]
        replace = msgspec.structs.replace
        first = replace(op, hold=[row for row in op.hold if row.state != "dead"], done=[*op.done, *gone])
        return first, msgspec.structs.replace(op, checkpoint=None, started=None, hold=[replace(r, id=0) for r in late],
                                              done=(), marks=(), append=(), later=())  # fmt: skip

    async def later(pump, ops):
        for feed, op in ops:
            if any(row.state == "dead" for row in op.hold):
                await asyncio.sleep(0.01)  # as long as another server takes to accept it
                await pump._commit(feed, halves(op)[1])

    async def commit(pump, tx, following, *, mark):
        ended, parked, ops = pump.settlements(following, mark=mark)
        for _, op in ops:
            await tx.raw.apply(halves(op)[0])
        await tx.finish()
        await later(pump, ops)
        pump.settled(ended, parked)

    async def flush(self, starting=()):
        ended, parked, ops = self.settlements(starting, mark=bool(starting))
        for feed, op in ops:
            await self._commit(feed, halves(op)[0])
        await later(self, ops)
        self.settled(ended, parked)

    batch.commit = sweep.commit = commit
    Pump.flush = flush


@planted("M12")
def checkpoint_first() -> None:
    """A projection's checkpoint is committed before its table is."""
    settlements = pump.settlements

    def ahead(consumer, *arguments, **options):
        ops = settlements(consumer, *arguments, **options)
        if consumer.group != "shop.totals":
            return ops
        return [(feed, msgspec.structs.replace(op, checkpoint=op.started or op.checkpoint)) for feed, op in ops]

    pump.settlements = ahead


@planted("M13")
def remember_retries() -> None:
    """A retry is acknowledged, and kept in memory until its time has come."""
    fail = lane.fail

    def in_memory(pump, delivery, error):
        fail(pump, delivery, error)
        end = pump.ended.others[-1]
        if end.held is not None and end.held.state == "retry" and not pump.subscription.transactional:
            pump.ended.others[-1] = Ended(delivery)
            again = Delivery(delivery.envelope, delivery.attempt + 1)
            asyncio.get_running_loop().call_later(0.05, pump.hand_over, [again])

    lane.fail = in_memory


@planted("M14")
def retry_in_step() -> None:
    """Waits before retries are as long as they may be, all of them."""
    wait = Retry.wait
    Retry.wait = lambda self, attempt, _draw: wait(self, attempt, 1.0)


@planted("M19")
def drop_the_unreadable() -> None:
    """What cannot be decoded is acknowledged."""
    make = dispatch._reader

    def forgiving(*arguments):
        read = make(*arguments)

        def reader(envelope):
            try:
                return read(envelope)
            except Unreadable:
                return dispatch.UNSEEN

        return reader

    dispatch._reader = forgiving


@planted("M24")
def forget_tasks() -> None:
    """Nobody holds on to the tasks that run handlers; the loop itself keeps weak references only."""
    init = Pump.__init__

    def weak(self, *arguments):
        init(self, *arguments)
        self.tasks = weakref.WeakSet()

    Pump.__init__ = weak


@planted("M25")
def call_it_a_failure() -> None:
    """A commit whose outcome is unknown is told as a failure."""
    unknown = Committer._unknown

    def certain(self, error):
        unknown(self, error)
        return StoreUnavailable("the commit took too long", "it was not done")

    Committer._unknown = certain
