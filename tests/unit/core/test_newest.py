"""Of several waiting messages of one key only the newest is handled."""

from __future__ import annotations

from tidings.core.envelope import Envelope
from tidings.core.newest import newest_only
from tidings.core.operations import Delivery


def delivery(position: int, key: str | None, type: str = "PricePosted", source: str = "shop") -> Delivery:
    return Delivery(
        Envelope(
            position=position,
            id=str(position),
            source=source,
            type=type,
            schema=1,
            topic="prices",
            key=key,
            slot=0,
            stream=None,
            version=None,
            time=0,
            correlation=None,
            causation=None,
            traceparent=None,
            headers=None,
            data=b"{}",
        )
    )


def positions(deliveries: list[Delivery]) -> list[int]:
    return [each.envelope.position for each in deliveries]


def test_older_messages_of_a_key_are_superseded_and_order_is_kept() -> None:
    waiting = [delivery(1, "a"), delivery(2, "b"), delivery(3, "a"), delivery(4, "c"), delivery(5, "a")]
    kept, superseded = newest_only(waiting)
    assert (positions(kept), positions(superseded)) == ([2, 4, 5], [1, 3])


def test_messages_without_a_key_and_of_other_types_or_sources_stay() -> None:
    waiting = [
        delivery(1, None),
        delivery(2, None),
        delivery(3, "a"),
        delivery(4, "a", "Sold"),
        delivery(5, "a", source="b"),
    ]
    kept, superseded = newest_only(waiting)
    assert (kept, superseded) == (waiting, [])


def test_nothing_of_nothing() -> None:
    assert newest_only([]) == ([], [])
