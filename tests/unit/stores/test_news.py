"""What those who watch a store are told of a commit: all of it, or to look."""

from __future__ import annotations

import pytest

from tidings.core.operations import Append, Appended, Beat, Claim, Held, Op, Redrive, Settle
from tidings.errors import Overloaded
from tidings.stores.news import UNKNOWN, news_of
from tidings.testing.conformance.store.making import GROUP, envelope

ONE, OTHER = envelope(), envelope()
QUIET = Settle(GROUP, {0: 1}, checkpoint=5)
ALONE: list[tuple[Op, object]] = [
    (QUIET, Appended(())),
    (Append(()), Appended(())),
    (Claim(GROUP, "m", 1, (), 10.0), {}),
    (Beat("shop", "m", 10.0), {}),
]
LOUD: list[tuple[Op, object]] = [
    (Append([OTHER], due=5), Appended((0,))),
    (Settle(GROUP, {0: 1}, done=[7]), Appended(())),
    (Settle(GROUP, {0: 1}, hold=[Held(0, GROUP, 3, "retry", 1, 0, OTHER)], append=[OTHER]), Appended((9,))),
    (Settle(GROUP, {0: 1}, later=[Append([OTHER], due=5)]), Appended(())),
    (Claim(GROUP, "m", 0, (1,), 10.0), {}),
    (Beat("shop", "m", 10.0, leaving=True), {}),
    (Redrive((7,), discard=False), 1),
]


@pytest.mark.parametrize(("op", "result"), ALONE)
def test_what_does_not_concern_readers_is_not_told_of(op: Op, result: object) -> None:
    assert news_of([op], [(result, None)]) is None
    told = news_of([op, Append([ONE])], [(result, None), (Appended((8,)), None)])
    assert told == ([ONE], [8])


@pytest.mark.parametrize(("op", "result"), LOUD)
def test_they_look_where_more_has_changed_than_what_was_appended(op: Op, result: object) -> None:
    assert news_of([op], [(result, None)]) == UNKNOWN
    appended = Append([ONE]), (Appended((8,)), None)
    assert news_of([appended[0], op], [appended[1], (result, None)]) == UNKNOWN


def test_what_handlers_and_publishers_have_appended_together_is_told_in_one() -> None:
    ops = [Append([ONE]), Settle(GROUP, {0: 1}, checkpoint=5, append=[OTHER])]
    assert news_of(ops, [(Appended((8,)), None), (Appended((9,)), None)]) == ([ONE, OTHER], [8, 9])


def test_what_was_refused_is_not_told_of() -> None:
    refused = (None, Overloaded("full", "wait"))
    assert news_of([Append([ONE]), Append([OTHER])], [refused, (Appended((8,)), None)]) == ([OTHER], [8])
    assert news_of([Append([ONE])], [refused]) is None


def test_they_look_where_the_log_does_not_end_with_what_was_appended_last() -> None:
    """An id that was known has its place of old."""
    ops = [Append([ONE]), Append([OTHER])]
    assert news_of(ops, [(Appended((8,)), None), (Appended((3,)), None)]) == UNKNOWN
    assert news_of(ops, [(Appended((3,)), None), (Appended((8,)), None)]) == ([ONE, OTHER], [3, 8])
