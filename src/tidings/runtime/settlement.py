"""Settlements: what ended, what is parked and what starts, summed up into one operation per feed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from operator import attrgetter

import msgspec

from tidings.core.envelope import Envelope, Seen
from tidings.core.operations import Append, Delivery, Held, Settle
from tidings.core.ports import Consumer, Feed, Store
from tidings.errors import OutcomeUnknown, StoreError

log = logging.getLogger("tidings")

_position = attrgetter("position")


class Ended(msgspec.Struct, frozen=True, gc=False):
    """How one delivery ended that is not simply acknowledged.

    Attributes:
        delivery: Which one.
        held: What is kept of it, or None when it is acknowledged.
        append: Messages its handler returned.
        later: Delayed ones.
        committed: True when effects and acknowledgement are in the store already.
    """

    delivery: Delivery
    held: Held | None = None
    append: Sequence[Envelope] = ()
    later: Sequence[Append] = ()
    committed: bool = False


class Endings:
    """What ended and is not settled yet.

    Attributes:
        acked: Fresh envelopes that are acknowledged, with nothing else to store. Most deliveries end so.
        others: How the others ended.
    """

    __slots__ = ("acked", "others")

    def __init__(self) -> None:
        self.acked: list[Seen] = []
        self.others: list[Ended] = []

    def __len__(self) -> int:
        """Number of deliveries."""
        return len(self.acked) + len(self.others)

    @property
    def fresh(self) -> list[Seen]:
        """The envelopes of those that were not held."""
        return [*self.acked, *[end.delivery.envelope for end in self.others if not end.delivery.held]]

    def well(self, delivery: Delivery, append: Sequence[Envelope] = (), later: Sequence[Append] = ()) -> None:
        """Note one that ended well. Args: append: messages of its handler. later: delayed ones."""
        if append or later or delivery.held:
            self.others.append(Ended(delivery, None, append, later))
        else:
            self.acked.append(delivery.envelope)

    def take(self) -> Endings:
        """All there is; nothing is left here."""
        taken = Endings()
        taken.acked, self.acked = self.acked, taken.acked
        taken.others, self.others = self.others, taken.others
        return taken

    def drop(self, unwanted: Callable[[Seen], bool]) -> None:
        """Forget some. Args: unwanted: tells which."""
        self.acked = [each for each in self.acked if not unwanted(each)]
        self.others = [end for end in self.others if not unwanted(end.delivery.envelope)]


@dataclass(slots=True)
class _Sum:
    """What happened in one feed."""

    feed: Feed
    hold: list[Held] = field(default_factory=list)
    done: list[int] = field(default_factory=list)
    append: list[Envelope] = field(default_factory=list)
    later: list[Append] = field(default_factory=list)
    finished: list[int] = field(default_factory=list)
    committed: list[int] = field(default_factory=list)  # finished, and in the store as such

    def add(self, end: Ended) -> None:
        """Count in one delivery that ended."""
        delivery = end.delivery
        if end.committed:
            if not delivery.held:
                self.committed.append(delivery.envelope.position)
            return
        if not delivery.held:
            self.finished.append(delivery.envelope.position)
        elif end.held is None:
            self.done.append(delivery.held)
        if end.held is not None:
            self.hold.append(end.held)
        if end.append:
            self.append.extend(end.append)
        if end.later:
            self.later.extend(end.later)

    def park(self, row: Held) -> None:
        """Count in a delivery that is held; a fresh one is finished with, as far as the log is concerned."""
        self.hold.append(row)
        if not row.id:
            self.finished.append(row.position)


def settlements(
    consumer: Consumer,
    ended: Endings,
    parked: Sequence[Held],
    starting: Sequence[Held],
    *,
    mark: bool,
    counted: bool,
) -> list[tuple[Feed, Settle]]:
    """The operations that settle what happened, one per feed that has something to say.

    Args:
        consumer: Tells which feed a delivery belongs to now; those of lost slots are left out.
        ended: Deliveries that ended, and how.
        parked: Held deliveries to store.
        starting: Held deliveries whose next attempt starts now, as they are to be stored.
        mark: True when fresh deliveries start now: everything taken counts as started.
        counted: False where what ended well may as well end once more, when the machine has lost power.
    """
    if mark and not (ended or parked or starting):
        return _starts(consumer)
    sums = {id(feed): _Sum(feed) for feed in consumer.feeds}
    feed_of = consumer.feed_of
    if len(consumer.feeds) == 1:
        sums[id(consumer.feeds[0])].finished += map(_position, ended.acked)
    else:
        for envelope in ended.acked:
            if (feed := feed_of(envelope)) is not None:
                sums[id(feed)].finished.append(envelope.position)
    for end in ended.others:
        if (feed := feed_of(end.delivery.envelope)) is not None:
            sums[id(feed)].add(end)
    for row in (*parked, *starting):
        if (feed := feed_of(row.envelope)) is not None:
            sums[id(feed)].park(row)
    durable = bool(parked) or (len(ended) > 0 if counted else any(end.held for end in ended.others))
    ops = ((total.feed, _settle(consumer.group, total, mark=mark, durable=durable)) for total in sums.values())
    return [(feed, op) for feed, op in ops if op is not None]


def _starts(consumer: Consumer) -> list[tuple[Feed, Settle]]:
    """The mark alone: a lone delivery waits for it, so it is made the short way, and says nothing else."""
    feeds = consumer.feeds
    return [(feed, Settle(consumer.group, dict(feed.slots), None, feed.cursor, durable=False)) for feed in feeds]


def _settle(group: str, total: _Sum, *, mark: bool, durable: bool) -> Settle | None:
    feed = total.feed
    feed.watermark.finished(*total.finished, *total.committed)
    position = feed.watermark.position  # what finished beyond it is marked, so that a crash does not bring it back
    beyond = [each for each in total.finished if each > position] if max(total.finished, default=0) > position else []
    checkpoint = position if position > feed.flushed else None
    started = feed.cursor if mark else None
    if checkpoint is None and started is None and not (total.hold or total.done or total.finished):
        return None
    return Settle(
        group,
        dict(feed.slots),
        checkpoint,
        started,
        total.hold,
        total.done,
        beyond,
        total.append,
        total.later,
        durable,
    )


async def write(store: Store, group: str, op: Settle) -> None:
    """Commit a settlement, and wait out a full or absent store; doing it again changes nothing that is done.

    Raises:
        Fenced: Another worker owns one of its slots.
        StoreError: The store went away for good.
    """
    pause = 0.05
    while True:
        try:
            await store.write(op)
        except (OutcomeUnknown, StoreError) as error:
            if not error.transient:
                raise
            log.error("%s: %s; trying again in %.1f s", group, error, pause)  # noqa: TRY400 - expected
            await asyncio.sleep(pause)
            pause = min(2.0, pause * 2)
        else:
            return
