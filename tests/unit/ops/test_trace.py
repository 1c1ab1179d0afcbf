"""The causation tree, from envelopes alone."""

import pytest

from tidings.core.envelope import Envelope
from tidings.core.operations import Held
from tidings.ops.cli.trace import Trace


def envelope(position: int, type_: str, causation: str | None = None, id_: str | None = None) -> Envelope:
    return Envelope(
        *(position, id_ or f"e{position}", "shop", type_, 1, None, "k", 0, None, None, 0),
        *("e1" if position > 1 else None, causation, None, None, b"{}"),
    )


def shape(trace: Trace) -> list[str]:
    """The tree with the type alone of each event."""
    return [line.split(" k  #")[0] for line in trace.text()]


def test_events_hang_below_what_caused_them() -> None:
    tree = Trace(
        [
            envelope(1, "Place"),
            envelope(2, "Placed", "e1"),
            envelope(3, "Paid", "e2"),
            envelope(4, "Packed", "e2"),
            envelope(5, "Sent", "e4"),
            envelope(6, "Noted", "e1"),
        ],
        [],
    )
    assert shape(tree) == ["Place", "├─ Placed", "│  ├─ Paid", "│  └─ Packed", "│     └─ Sent", "└─ Noted"]
    assert [row["depth"] for row in tree.rows()] == [0, 1, 2, 2, 3, 1]


def test_what_failed_hangs_below_its_event() -> None:
    events = [envelope(1, "Place"), envelope(2, "Placed", "e1"), envelope(3, "Noted", "e1")]
    states = ("dead", "retry", "parked")
    held = [
        Held(number, "shop.pay", 2, state, 3, 0, events[1], "ValueError: no") for number, state in enumerate(states, 7)
    ]
    assert shape(Trace(events, held)) == [
        "Place",
        "├─ Placed",
        "│     ✗ dead letter 7: shop.pay: ValueError: no",
        "│     ✗ attempt 4 comes: shop.pay: ValueError: no",
        "│     ✗ parked: shop.pay: ValueError: no",
        "└─ Noted",
    ]


@pytest.mark.parametrize(
    "events",
    [
        [envelope(1, "A", "e1")],
        [envelope(1, "A", "e2"), envelope(2, "B", "e1"), envelope(3, "C")],
        [envelope(1, "A"), envelope(2, "B", "e1", "e1"), envelope(3, "C", "e1")],
        [envelope(1, "A", "lost"), envelope(2, "B", "lost")],
    ],
)
def test_no_event_is_lost_in_an_odd_history(events: list[Envelope]) -> None:
    trace = Trace(events, [])
    assert sorted(row["position"] for row in trace.rows()) == [one.position for one in events]
    assert len(list(trace.text())) == len(events)


def test_a_chain_of_ten_thousand_is_no_problem() -> None:
    events = [envelope(1, "A"), *(envelope(n, "A", f"e{n - 1}") for n in range(2, 10_001))]
    lines = list(Trace(events, []).text())
    assert len(lines) == 10_000
    assert max(map(len, lines)) < 250
