"""Outcomes of a delivery: acknowledged by returning, tried again or given up by raising."""

from __future__ import annotations

from datetime import timedelta

from tidings.core.retry import seconds


class Again(Exception):
    """Raise it in a handler to have the delivery tried again after a delay of its choosing.

    It counts as an attempt; when the attempts are used up the delivery becomes a dead letter.

    Args:
        reason: Why, for the attempt log.
        after: Seconds (or a timedelta) until the next attempt; None lets the retry policy decide.

    Raises:
        BadArgument: `after` is negative, infinite or not a number.
    """

    def __init__(self, reason: str = "asked to try again", *, after: float | timedelta | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.after = None if after is None else seconds(after, "Again(after)")


class Dead(Exception):
    """Raise it in a handler to make the delivery a dead letter at once, without further attempts."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
