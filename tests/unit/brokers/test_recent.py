"""What was just appended is given to the groups as the log would give it, or not at all."""

from __future__ import annotations

from tests.scenarios.runtime.messages import OrderPlaced
from tidings.brokers import recent
from tidings.brokers.embedded import EmbeddedBroker
from tidings.brokers.recent import Recent
from tidings.core.envelope import Envelope
from tidings.core.message import message_type
from tidings.core.operations import Append
from tidings.core.subscription import Subscription
from tidings.stores.sqlite import SqliteStore
from tidings.testing.conformance.store.making import envelope


def some(count: int, **changes: object) -> list[Envelope]:
    return [envelope(f"k-{number}", **changes) for number in range(count)]


def positions(found: list[Envelope]) -> list[int]:
    return [each.position for each in found]


def test_it_holds_what_was_appended_one_after_the_other() -> None:
    end = Recent()
    end.appended(some(3), (5, 6, 7))
    end.appended(some(2), (8, 9))
    assert [position for position in range(12) if end.holds(position)] == [5, 6, 7, 8, 9]
    assert positions(end.read(4, 9, 100, None, None)) == [5, 6, 7, 8, 9]
    assert positions(end.read(5, 8, 100, None, None)) == [6, 7, 8]
    assert positions(end.read(4, 9, 2, None, None)) == [5, 6]


def test_it_begins_anew_where_others_appended_in_between() -> None:
    end = Recent()
    end.appended(some(3), (5, 6, 7))
    end.appended(some(2), (9, 10))
    assert not end.holds(7)
    assert positions(end.read(8, 10, 100, None, None)) == [9, 10]


def test_it_leaves_out_what_is_not_in_the_log_as_it_was_given() -> None:
    end = Recent()
    end.appended(some(2), (9, 3))  # one was known
    end.appended(some(2), (4, 9))
    end.appended(some(3), (7, 5, 9))
    end.appended(some(2, stream="state:Customer:c-1", version=1), (10, 11))
    end.appended([], ())
    assert end.last == 0
    assert not end.holds(0)


def test_it_gives_the_types_and_slots_that_are_asked_for() -> None:
    end = Recent()
    end.appended([*some(2), *some(2, type="OrderPaid"), *some(1, slot=20)], (1, 2, 3, 4, 5))
    assert positions(end.read(0, 5, 100, ["OrderPaid"], None)) == [3, 4]
    assert positions(end.read(0, 5, 100, None, {20})) == [5]


def test_it_keeps_the_end_only(monkeypatch) -> None:
    monkeypatch.setattr(recent, "MOST", 4)
    end = Recent()
    for first in (1, 3, 5):
        end.appended(some(2), (first, first + 1))
    assert not end.holds(2)
    assert end.holds(3)
    monkeypatch.setattr(recent, "MOST_BYTES", 100)
    end.appended([envelope(data=b"x" * 101)], (7,))
    assert not end.holds(7)
    end.appended(some(1), (8,))
    assert end.holds(8)


async def test_a_group_reads_on_where_others_appended_after_what_is_in_memory(tmp_path) -> None:
    store = SqliteStore(f"sqlite:{tmp_path}/shop.db")
    await store.open()
    groups = EmbeddedBroker(store, "shop")
    work = Subscription("work", (message_type(OrderPlaced),), print, "tests")
    consumer = groups.consumer(work, "shop.work", "me", 10.0)
    await consumer.join()
    await consumer.claim(16)
    ours = some(2, type="OrderPaid")
    groups.appended(ours, (await store.write(Append(ours))).positions)
    await store.write(Append(some(1)))
    assert positions(await consumer.fetch(10)) == [3]
    assert await consumer.fetch(0) == []
    await store.close()
