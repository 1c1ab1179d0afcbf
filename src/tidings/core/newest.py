"""Coalescing: of several waiting messages of one key, only the newest is worth handling."""

from __future__ import annotations

from collections.abc import Sequence

from tidings.core.operations import Delivery


def newest_only(deliveries: Sequence[Delivery]) -> tuple[list[Delivery], list[Delivery]]:
    """Part deliveries into those to handle and those that a newer one supersedes.

    A newer one is of the same type, source and key and stands later in the sequence. A message without a key supersedes
    nothing and is never superseded.

    Args:
        deliveries: In the order of the log.

    Returns:
        (kept, superseded), each in the order given.
    """
    newest: dict[tuple[str, str, str], Delivery] = {}
    for delivery in deliveries:
        envelope = delivery.envelope
        if envelope.key is not None:
            newest[envelope.type, envelope.source, envelope.key] = delivery
    kept: list[Delivery] = []
    superseded: list[Delivery] = []
    for delivery in deliveries:
        envelope = delivery.envelope
        last = envelope.key is None or newest[envelope.type, envelope.source, envelope.key] is delivery
        (kept if last else superseded).append(delivery)
    return kept, superseded
