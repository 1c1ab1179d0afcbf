"""Settlements: what ended, what is parked and what starts, summed up into one operation per feed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from tidings.core.envelope import Envelope
from tidings.core.ports import Append, Consumer, Delivery, Feed, Held, Settle


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
    hold: list[Held] = field(default_factory=list)
    done: list[int] = field(default_factory=list)
    append: list[Envelope] = field(default_factory=list)
    later: list[Append] = field(default_factory=list)
    finished: list[int] = field(default_factory=list)


def settlements(
    consumer: Consumer,
    ended: Sequence[Ended],
    parked: Sequence[Held],
    starting: Sequence[Held],
    *,
    mark: bool,
) -> list[tuple[Feed, Settle]]:
    """The operations that settle what happened, one per feed that has something to say.

    Args:
        consumer: Tells which feed a delivery belongs to now; those of lost slots are left out.
        ended: Deliveries that ended.
        parked: Held deliveries to store.
        starting: Held deliveries whose next attempt starts now, as they are to be stored.
        mark: True when fresh deliveries start now: everything taken counts as started.
    """
    sums = {id(feed): _Sum() for feed in consumer.feeds}
    for end in ended:
        delivery = end.delivery
        feed = consumer.feed_of(delivery.envelope)
        if feed is None:
            continue
        total = sums[id(feed)]
        if not delivery.held:
            feed.watermark.finished(delivery.envelope.position)
            if not end.committed:
                total.finished.append(delivery.envelope.position)
        if end.committed:
            continue
        if end.held is not None:
            total.hold.append(end.held)
        elif delivery.held:
            total.done.append(delivery.held)
        if end.append:
            total.append.extend(end.append)
        if end.later:
            total.later.extend(end.later)
    for row in parked:
        feed = consumer.feed_of(row.envelope)
        if feed is not None:
            total = sums[id(feed)]
            if not row.id:
                feed.watermark.finished(row.position)
                total.finished.append(row.position)
            total.hold.append(row)
    for row in starting:
        feed = consumer.feed_of(row.envelope)
        if feed is not None:
            sums[id(feed)].hold.append(row)
    durable = bool(ended or parked)
    return [
        (feed, op)
        for feed in consumer.feeds
        if (op := _settle(consumer.group, feed, sums[id(feed)], mark=mark, durable=durable)) is not None
    ]


def _settle(group: str, feed: Feed, total: _Sum, *, mark: bool, durable: bool) -> Settle | None:
    position = feed.watermark.position  # what finished beyond it is marked, so that a crash does not bring it back
    checkpoint = position if position > feed.flushed else None
    started = feed.cursor if mark else None
    if checkpoint is None and started is None and not (total.hold or total.done or total.finished or total.later):
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
