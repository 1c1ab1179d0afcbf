"""What becomes of a delivery whose attempt failed: it is tried again, in time, or it is a dead letter. Never lost."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tidings.core.delivery import MAX_HISTORY, MAX_REASON, MAX_TRACEBACK, describe, printable, settle
from tidings.core.envelope import Envelope
from tidings.core.operations import Delivery, Held
from tidings.core.outcome import Again, Dead
from tidings.core.retry import Retry
from tidings.errors import BadArgument, Unreadable

NOW = 1_795_426_800_000_000  # 2026-11-23T09:40:00Z
GROUP = "shop.send_receipt"


def envelope(position: int = 1, key: str | None = "a") -> Envelope:
    return Envelope(
        position, str(position), "shop", "Placed", 1, "orders", key, 0, None, None, 0, None, None, None, None, b"{}"
    )


def failed(
    error: BaseException, attempt: int = 1, retry: Retry | None = None, row: Held | None = None, trace: str = ""
) -> Held:
    delivery = Delivery(envelope(), attempt, row.id if row else 0)
    return settle(row, delivery, error, trace, retry or Retry(attempts=3, initial=8), 0.5, NOW, GROUP)


class RefundFailed(ConnectionError):
    """Named in policies below."""


class Mute(Exception):
    """Its text cannot be had."""

    def __str__(self) -> str:
        raise KeyboardInterrupt


class Untidy(Exception):
    """Its text is no text."""

    def __str__(self) -> str:
        return 5  # type: ignore[return-value]  # noqa: PLE0307 - the mistake


def test_a_failure_is_tried_again_after_the_wait_of_the_policy() -> None:
    held = failed(ValueError("boom"))
    assert (held.state, held.attempt, held.due - NOW) == ("retry", 1, 4_000_000)
    assert (held.reason, held.group, held.position, held.since) == ("ValueError: boom", GROUP, 1, NOW)
    assert list(held.history) == ["attempt 1 at 2026-11-23T09:40:00Z: ValueError: boom; again in 4.0 s"]


def test_the_last_attempt_leaves_a_dead_letter() -> None:
    held = failed(ValueError("boom"), attempt=3)
    assert (held.state, held.attempt, held.due) == ("dead", 3, 0)
    assert held.history[-1] == "attempt 3 at 2026-11-23T09:40:00Z: ValueError: boom; dead letter after 3 attempts"


@pytest.mark.parametrize("error", [Dead("no such order"), Unreadable("Placed cannot be read"), RefundFailed()])
def test_some_failures_are_final_at_once(error: Exception) -> None:
    assert failed(error, retry=Retry(never=(ConnectionError,))).state == "dead"


@pytest.mark.parametrize(
    ("after", "microseconds"),
    [(0, 0), (5, 5_000_000), (timedelta(minutes=1), 60_000_000), (None, 4_000_000), (1e300, 3_153_600_000_000_000)],
)
def test_again_chooses_its_own_delay_and_counts_as_an_attempt(
    after: float | timedelta | None, microseconds: int
) -> None:
    held = failed(Again("busy", after=after))
    assert (held.state, held.attempt, held.due - NOW) == ("retry", 1, microseconds)
    assert failed(Again("busy", after=after), attempt=3).state == "dead"


@pytest.mark.parametrize("after", [-1, float("nan"), float("inf"), timedelta(seconds=-1)])
def test_again_with_an_impossible_delay_is_an_error_where_it_is_raised(after: float | timedelta) -> None:
    with pytest.raises(BadArgument, match="Again"):
        Again(after=after)


def test_the_policy_of_the_most_particular_class_applies() -> None:
    retry = Retry(attempts=2, per={OSError: Retry(attempts=9, initial=2), ConnectionError: Retry(attempts=1)})
    assert failed(FileNotFoundError(), attempt=2, retry=retry).state == "retry"
    assert failed(RefundFailed(), attempt=1, retry=retry).state == "dead"
    assert failed(KeyError(), attempt=2, retry=retry).state == "dead"


@pytest.mark.parametrize(
    "error", [SystemExit(3), StopIteration("x"), KeyboardInterrupt(), GeneratorExit(), Mute(), Untidy()]
)
def test_whatever_is_raised_is_a_failed_attempt(error: BaseException) -> None:
    held = failed(error)
    assert held.state == "retry"
    assert held.reason.startswith(type(error).__qualname__)


def test_a_later_failure_keeps_what_is_known_of_the_earlier_ones() -> None:
    first = failed(ValueError("one"))
    row = Held(7, GROUP, 1, "retry", 1, first.due, first.envelope, first.reason, "", first.history, since=5)
    second = failed(ValueError("two"), attempt=2, row=row, trace="Traceback")
    assert (second.id, second.since, second.traceback, second.reason) == (7, 5, "Traceback", "ValueError: two")
    assert [line.split(" at ")[0] for line in second.history] == ["attempt 1", "attempt 2"]


def test_history_reason_and_traceback_are_bounded() -> None:
    row = failed(ValueError())
    for attempt in range(2, MAX_HISTORY + 20):
        row = failed(ValueError("x" * 10_000_000), attempt, Retry(attempts=1000), row, trace="y" * 100_000 + "the end")
    assert len(row.history) == MAX_HISTORY
    assert row.history[-1].startswith(f"attempt {MAX_HISTORY + 19} ")
    assert len(row.reason) == MAX_REASON
    assert len(row.traceback) == MAX_TRACEBACK
    assert row.traceback.endswith("the end")
    assert max(map(len, row.history)) < 500


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError(), "ValueError"),
        (ValueError("a\r\nb\x1b[31m"), r"ValueError: a\r\nb\x1b[31m"),
        (ValueError("\u202egnp.exe"), r"ValueError: \u202egnp.exe"),
        (ValueError("\ud800"), r"ValueError: \ud800"),
        (KeyError("sku"), "KeyError: 'sku'"),
        (ValueError("%s {0.__class__} ${jndi:x}"), "ValueError: %s {0.__class__} ${jndi:x}"),
        (Mute(), "Mute: (its __str__ raised KeyboardInterrupt)"),
        (Untidy(), "Untidy: (its __str__ raised TypeError)"),
    ],
)
def test_an_error_is_described_in_one_printable_line(error: BaseException, text: str) -> None:
    assert describe(error) == text


@given(st.text(alphabet=st.characters(categories=None)))
def test_described_text_is_printable_and_can_be_stored(text: str) -> None:
    assert describe(ValueError(text)).isprintable()
    assert failed(ValueError(text), trace=text).traceback.encode() is not None
    assert all(char.isprintable() or char in "\n\t" for char in printable(text, keep="\n\t"))


@given(st.integers(0, 2**62), st.floats(0, 1, exclude_max=True), st.integers(1, 40))
@pytest.mark.proves("G22")
def test_a_retry_is_never_due_before_now_nor_later_than_the_longest_wait(now: int, draw: float, attempt: int) -> None:
    retry = Retry(attempts=50, initial=1, maximum=300)
    held = settle(None, Delivery(envelope(), attempt), ValueError(), "", retry, draw, min(now, NOW), GROUP)
    assert min(now, NOW) <= held.due <= min(now, NOW) + 300_000_000


class DeliveryTable(RuleBasedStateMachine):
    """A group that keeps to the rules of the table, with plain lists for a store, judged by what its handler saw.

    A failing key parks its successors; a dead letter holds them until it is redriven or discarded.
    """

    RETRY = Retry(attempts=3, initial=2, maximum=10)

    def __init__(self) -> None:
        super().__init__()
        self.now = NOW
        self.published: list[Envelope] = []
        self.fresh: list[Envelope] = []
        self.held: list[Held] = []
        self.done: list[int] = []
        self.discarded: list[int] = []
        self.tries: dict[int, int] = {}  # attempts the handler saw since the last redrive

    @rule(key=st.sampled_from([None, "a", "b"]))
    def publish(self, key: str | None) -> None:
        self.published.append(envelope(len(self.published) + 1, key))
        self.fresh.append(self.published[-1])

    def next_of(self) -> tuple[Held | None, Envelope] | None:
        """What the table allows to run now: what is due or parked and first of its key, else the next fresh one."""
        for row in sorted(self.held, key=lambda row: row.position):
            ahead = [
                each for each in self.held if each.envelope.key == row.envelope.key and each.position < row.position
            ]
            if row.envelope.key is not None and ahead:
                continue
            if row.state == "parked" or (row.state == "retry" and row.due <= self.now):
                return row, row.envelope
        while self.fresh:
            first = self.fresh.pop(0)
            if first.key is None or all(row.envelope.key != first.key for row in self.held):
                return None, first
            self.held.append(Held(first.position, GROUP, first.position, "parked", 0, 0, first))
        return None

    @rule(outcome=st.sampled_from([None, None, ValueError("no"), Again(after=1), Dead("never"), Unreadable("bytes")]))
    def handle(self, outcome: Exception | None) -> None:
        found = self.next_of()
        if found is None:
            return
        row, message = found
        position = message.position
        attempt = (row.attempt if row else 0) + 1
        self.tries[position] = self.tries.get(position, 0) + 1
        if row is not None:
            self.held.remove(row)
        if outcome is None:
            self.done.append(position)
            return
        settled = settle(row, Delivery(message, attempt, position), outcome, "", self.RETRY, 0.5, self.now, GROUP)
        assert settled.attempt == self.tries[position]
        assert settled.history[-1].startswith(f"attempt {attempt} ")
        self.held.append(settled)

    @rule(seconds=st.integers(1, 20))
    def pass_time(self, seconds: int) -> None:
        self.now += seconds * 1_000_000

    @precondition(lambda self: any(row.state == "dead" for row in self.held))
    @rule(discard=st.booleans())
    def redrive(self, *, discard: bool) -> None:
        row = next(row for row in self.held if row.state == "dead")
        self.held.remove(row)
        if discard:
            self.discarded.append(row.position)
        else:
            self.tries[row.position] = 0
            self.held.append(
                Held(row.id, GROUP, row.position, "retry", 0, 0, row.envelope, row.reason, "", row.history, row.since)
            )

    @invariant()
    def nothing_is_lost_and_nothing_is_there_twice(self) -> None:
        places = [each.position for each in self.fresh] + [row.position for row in self.held]
        assert sorted(places + self.done + self.discarded) == [each.position for each in self.published]

    @invariant()
    def attempts_are_never_more_than_the_policy_allows(self) -> None:
        assert all(tries <= self.RETRY.attempts for tries in self.tries.values())
        assert all(row.attempt < self.RETRY.attempts for row in self.held if row.state == "retry")

    @invariant()
    def a_key_is_finished_in_order(self) -> None:
        for key in ("a", "b"):
            mine = [position for position in self.done if self.published[position - 1].key == key]
            assert mine == sorted(mine)


TestDeliveryTable = DeliveryTable.TestCase
