"""What the doctor says of SNS and SQS, over a connection of its own."""

from __future__ import annotations

from collections.abc import Iterator

from tidings.brokers.sqs.settings import Settings
from tidings.core.check import Check


def look(settings: Settings, app: str) -> list[Check]:
    """How the broker and the queues of an app are set up. Blocks."""
    return list(_found(settings, app))


def _found(settings: Settings, app: str) -> Iterator[Check]:
    yield Check("broker", "ok", f"SQS in {settings.region} for {app}")
