"""Settlements: what ended, what is parked and what starts, summed up into one operation per feed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from tidings.core.envelope import Envelope
from tidings.core.operations import Append, Delivery, Held, Settle
from tidings.core.ports import Consumer, Feed


class Ended(msgspec.Struct, frozen=True, gc=False):
    """How one delivery ended.

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
    ended: Sequence[Ended],
    parked: Sequence[Held],
    starting: Sequence[Held],
    *,
    mark: bool,
    counted: bool,
) -> list[tuple[Feed, Settle]]:
    """The operations that settle what happened, one per feed that has something to say.

    Args:
        consumer: Tells which feed a delivery belongs to now; those of lost slots are left out.
        ended: Deliveries that ended.
        parked: Held deliveries to store.
        starting: Held deliveries whose next attempt starts now, as they are to be stored.
        mark: True when fresh deliveries start now: everything taken counts as started.
        counted: False where what ended well may as well end once more, when the machine has lost power.
    """
    sums = {id(feed): _Sum(feed) for feed in consumer.feeds}
    feed_of = consumer.feed_of
    for end in ended:
        if (feed := feed_of(end.delivery.envelope)) is not None:
            sums[id(feed)].add(end)
    for row in parked:
        if (feed := feed_of(row.envelope)) is not None:
            sums[id(feed)].park(row)
    for row in starting:
        if (feed := feed_of(row.envelope)) is not None:
            sums[id(feed)].hold.append(row)
    durable = bool(parked) or (bool(ended) if counted else any(end.held for end in ended))
    ops = ((total.feed, _settle(consumer.group, total, mark=mark, durable=durable)) for total in sums.values())
    return [(feed, op) for feed, op in ops if op is not None]


def _settle(group: str, total: _Sum, *, mark: bool, durable: bool) -> Settle | None:
    feed = total.feed
    feed.watermark.finished(*total.finished, *total.committed)
    position = feed.watermark.position  # what finished beyond it is marked, so that a crash does not bring it back
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
        [finished for finished in total.finished if finished > position],
        total.append,
        total.later,
        durable,
    )
