"""Lanes give out one delivery of each key at a time, in order, and let the keys take turns."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tidings.core.lanes import Lanes

keys = st.sampled_from([None, "a", "b", "c"])


def added(*deliveries: tuple[str | None, int]) -> Lanes[tuple[str | None, int]]:
    lanes: Lanes[tuple[str | None, int]] = Lanes()
    for delivery in deliveries:
        lanes.add(delivery[0], delivery)
    return lanes


def test_a_key_is_handled_in_order_one_at_a_time() -> None:
    lanes = added(("a", 1), ("a", 2))
    assert lanes.take() == ("a", 1)
    assert lanes.take() is None
    lanes.finish("a")
    assert lanes.take() == ("a", 2)


def test_keys_take_turns() -> None:
    lanes = added(("a", 1), ("a", 2), ("a", 3), ("b", 4), ("c", 5))
    turns = []
    while (delivery := lanes.take()) is not None:
        turns.append(delivery[1])
        lanes.finish(delivery[0])
    assert turns == [1, 4, 5, 2, 3]


def test_deliveries_without_a_key_run_side_by_side() -> None:
    lanes = added((None, 1), (None, 2))
    assert (lanes.take(), lanes.take()) == ((None, 1), (None, 2))
    assert (lanes.waiting, lanes.running, len(lanes)) == (0, 2, 2)


def test_what_is_dropped_makes_way_for_what_follows() -> None:
    lanes = added(("a", 1), ("a", 2), ("b", 3), ("b", 4))
    assert lanes.take() == ("a", 1)
    assert lanes.drop(lambda delivery: delivery[1] in {2, 3}) == [("b", 3), ("a", 2)]
    assert lanes.take() == ("b", 4)
    lanes.finish("a")
    assert lanes.take() is None
    lanes.add("a", ("a", 5))
    assert lanes.take() == ("a", 5)


class LanesAgainstLists(RuleBasedStateMachine):
    """The same rules kept with plain lists: what is waiting in order, and which keys run."""

    def __init__(self) -> None:
        super().__init__()
        self.lanes: Lanes[tuple[str | None, int]] = Lanes()
        self.waiting: list[tuple[str | None, int]] = []
        self.running: list[tuple[str | None, int]] = []
        self.added = 0

    @rule(key=keys)
    def add(self, key: str | None) -> None:
        self.added += 1
        self.lanes.add(key, (key, self.added))
        self.waiting.append((key, self.added))

    def first(self, key: str | None) -> tuple[str | None, int]:
        return next(each for each in self.waiting if each[0] == key)

    @rule()
    def take(self) -> None:
        busy = {key for key, _ in self.running if key is not None}
        free = [each for each in self.waiting if each[0] not in busy]
        taken = self.lanes.take()
        assert (taken is None) == (not free)
        if taken is not None:
            assert taken in free
            assert taken[0] is None or taken == self.first(taken[0])
            self.waiting.remove(taken)
            self.running.append(taken)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        done = data.draw(st.sampled_from(self.running))
        self.running.remove(done)
        self.lanes.finish(done[0])

    @rule(odd=st.booleans(), key=keys)
    def drop(self, *, odd: bool, key: str | None) -> None:
        def unwanted(delivery: tuple[str | None, int]) -> bool:
            return delivery[0] == key or (odd and delivery[1] % 2 == 1)

        dropped = self.lanes.drop(unwanted)
        assert sorted(dropped, key=lambda each: each[1]) == [each for each in self.waiting if unwanted(each)]
        for each in dropped:
            of_its_key = [other for other in dropped if other[0] == each[0]]
            assert of_its_key == sorted(of_its_key, key=lambda other: other[1]) or each[0] is None
        self.waiting = [each for each in self.waiting if not unwanted(each)]

    @invariant()
    def counts_agree(self) -> None:
        assert (self.lanes.waiting, self.lanes.running) == (len(self.waiting), len(self.running))
        assert len(self.lanes) == len(self.waiting) + len(self.running)

    def teardown(self) -> None:
        """Nothing is lost: all of it can still be taken."""
        while len(self.lanes):
            for key, _ in self.running:
                self.lanes.finish(key)
            self.running = []
            while (taken := self.lanes.take()) is not None:
                self.waiting.remove(taken)
                self.running.append(taken)
        assert self.waiting == []


TestLanesAgainstLists = LanesAgainstLists.TestCase
