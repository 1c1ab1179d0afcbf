"""What was just appended is given to the groups as the log would give it, or not at all."""

from __future__ import annotations

from tests.scenarios.runtime.messages import OrderPlaced
from tidings.brokers import recent
from tidings.brokers.embedded import EmbeddedBroker
from tidings.brokers.recent import Recent, in_a_row
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
    assert [after for after in range(12) if end.holds(after, 9)] == [4, 5, 6, 7, 8, 9, 10, 11]
    assert not end.holds(4, 10)
    assert positions(end.read(4, 9, 100, None, None, "shop")) == [5, 6, 7, 8, 9]
    assert positions(end.read(5, 8, 100, None, None, "shop")) == [6, 7, 8]
    assert positions(end.read(4, 9, 2, None, None, "shop")) == [5, 6]


def test_it_begins_anew_where_others_appended_in_between() -> None:
    end = Recent()
    end.appended(some(3), (5, 6, 7))
    end.appended(some(2), (9, 10))
    assert not end.holds(6, 10)
    assert positions(end.read(8, 10, 100, None, None, "shop")) == [9, 10]


def test_it_leaves_out_what_is_not_in_the_log_as_it_was_given() -> None:
    end = Recent()
    end.appended(some(2), (9, 3))  # one was known
    end.appended(some(2), (4, 9))
    end.appended(some(3), (7, 5, 9))
    end.appended(some(2, stream="state:Customer:c-1", version=1), (10, 11))
    end.appended([], ())
    assert end.last == 0
    assert not end.holds(0, 1)


def test_it_gives_the_types_and_slots_that_are_asked_for() -> None:
    end = Recent()
    end.appended([*some(2), *some(2, type="OrderPaid"), *some(1, slot=20)], (1, 2, 3, 4, 5))
    assert positions(end.read(0, 5, 100, ["OrderPaid"], None, "shop")) == [3, 4]
    assert positions(end.read(0, 5, 100, None, {20}, "shop")) == [5]


def test_it_keeps_the_end_only(monkeypatch) -> None:
    monkeypatch.setattr(recent, "MOST", 4)
    end = Recent()
    for first in (1, 3, 5):
        end.appended(some(2), (first, first + 1))
    assert not end.holds(1, 6)
    assert end.holds(2, 6)
    monkeypatch.setattr(recent, "MOST_BYTES", 100)
    end.appended([envelope(data=b"x" * 101)], (7,))
    assert not end.holds(6, 7)
    end.appended(some(1), (8,))
    assert end.holds(7, 8)


def test_private_events_are_for_their_own_app() -> None:
    end = Recent()
    end.appended([*some(1, topic=None), *some(1)], (1, 2))
    assert positions(end.read(0, 2, 9, None, None, "shop")) == [1, 2]
    assert positions(end.read(0, 2, 9, None, None, "billing")) == [2]


async def test_where_the_log_ends_is_asked_only_after_a_change_of_which_that_is_not_known() -> None:
    end = Recent()
    heads = iter(range(10, 99))

    async def head() -> int:
        return next(heads)

    assert [await end.look(head) for _ in range(2)] == [10, 11]  # nobody says yet when it changes
    end.changed((), ())
    assert [await end.look(head) for _ in range(2)] == [12, 12]
    end.changed(some(2), (13, 14))
    assert [await end.look(head) for _ in range(2)] == [14, 14]
    end.appended(some(2), (15, 16))  # others may have appended more since
    assert await end.look(head) == 14

    async def head_during_which_it_changes() -> int:
        end.changed((), ())
        return 16

    end.changed((), ())
    assert await end.look(head_during_which_it_changes) == 16
    assert await end.look(head) == 13


async def test_what_is_heard_late_takes_the_end_of_the_log_nowhere() -> None:
    """Two threads append; of the first of them the event loop hears last."""
    end = Recent()
    heads = iter([5, 9])

    async def head() -> int:
        return next(heads)

    end.changed((), ())
    assert await end.look(head) == 5
    end.changed(some(1), (8,))
    end.changed(some(2), (6, 7))
    assert await end.look(head) == 8
    end.changed((), ())
    end.changed(some(1), (6,))  # there may be more by now
    assert await end.look(head) == 9


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


def test_positions_in_a_row_leave_none_out() -> None:
    assert in_a_row((7,))
    assert in_a_row([5, 6, 7])
    assert not in_a_row((5, 3, 7)), "as where an id was known, and somebody else appended meanwhile"
