"""The watermark stands just before the first delivery that is not finished, and never goes back."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tidings.core.watermark import Watermark


def test_it_waits_for_the_first_unfinished_one() -> None:
    mark = Watermark(10)
    for position in (11, 13, 14):
        mark.took(position)
    mark.finished(14)
    mark.finished(13)
    assert mark.position == 10
    mark.finished(11)
    assert mark.position == 14


def test_what_is_scanned_and_not_wanted_is_passed_when_nothing_before_it_is_open() -> None:
    mark = Watermark(0)
    mark.advance_to(5)
    assert mark.position == 5
    mark.took(8)
    assert mark.position == 7
    mark.advance_to(20)
    assert mark.position == 7
    mark.finished(8)
    assert mark.position == 20


def test_what_was_never_taken_is_ignored() -> None:
    mark = Watermark(3)
    mark.took(5)
    for position in (1, 3, 9):
        mark.finished(position)
    assert mark.position == 4
    mark.finished(5)
    mark.finished(5)
    assert mark.position == 5


def test_many_are_taken_and_finished_at_once() -> None:
    mark = Watermark(0)
    mark.took(3, 5, 6, 9)
    assert mark.position == 2
    mark.finished(5, 9)
    assert mark.position == 2
    mark.finished(3, 4)
    assert mark.position == 5
    mark.finished(6, 9)
    assert mark.position == 9
    mark.took()
    mark.finished()
    assert mark.position == 9


def test_taking_backwards_is_an_error() -> None:
    mark = Watermark(0)
    mark.took(2)
    for position in (2, 1):
        with pytest.raises(ValueError, match="taken after position 2"):
            mark.took(position)


class WatermarkAgainstSets(RuleBasedStateMachine):
    """The same kept with plain sets of positions."""

    def __init__(self) -> None:
        super().__init__()
        self.mark = Watermark(0)
        self.scanned = 0
        self.open: set[int] = set()
        self.last = 0

    @rule(step=st.integers(1, 4))
    def took(self, step: int) -> None:
        self.scanned += step
        self.mark.took(self.scanned)
        self.open.add(self.scanned)

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def finished(self, data: st.DataObject) -> None:
        position = data.draw(st.sampled_from(sorted(self.open)))
        self.open.discard(position)
        self.mark.finished(position)

    @rule(step=st.integers(-2, 4))
    def advance(self, step: int) -> None:
        self.mark.advance_to(self.scanned + step)
        self.scanned = max(self.scanned, self.scanned + step)

    @invariant()
    def stands_before_the_first_open_one(self) -> None:
        assert self.mark.position == (min(self.open) - 1 if self.open else self.scanned)
        assert self.mark.position >= self.last
        self.last = self.mark.position


TestWatermarkAgainstSets = WatermarkAgainstSets.TestCase
