"""Which events a command is about: by type, key and age; and finding the newest of them."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

from tidings.ops.cli.face import click
from tidings.ops.cli.failures import BadCommand

if TYPE_CHECKING:
    from tidings.core.envelope import Envelope
    from tidings.core.ports import Store

F = TypeVar("F", bound=Callable[..., Any])

WINDOW = 1000
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True)
class Filter:
    """A condition on events.

    Attributes:
        types: Names of types; empty means all.
        key: The key, or None for all.
        since: Published at or after this, microseconds since 1970 UTC; 0 means all.
    """

    types: tuple[str, ...] = ()
    key: str | None = None
    since: int = 0

    async def read(self, store: Store, after: int, until: int, limit: int = WINDOW) -> tuple[list[Envelope], int]:
        """Events after a position that fit, and the position to go on from."""
        from tidings.core.envelope import slot_of

        slots = None if self.key is None else [slot_of(self.key)]
        found = await store.read(after, until, limit, types=self.types or None, slots=slots)
        reached = found[-1].position if len(found) == limit else until
        return [envelope for envelope in found if self._fits(envelope)], reached

    async def newest(self, store: Store, limit: int) -> list[Envelope]:
        """The last `limit` events that fit, in log order."""
        found: list[Envelope] = []
        until = await store.head()
        window = WINDOW
        while until > 0 and len(found) < limit:
            start = max(0, until - window)
            part = [envelope async for envelope in self.each(store, start, until)]
            found[:0] = part[-(limit - len(found)) :]
            if not part and self.since and await self._is_before(store, start, until):
                break
            until, window = start, min(window * 2, 64_000)
        return found

    async def each(self, store: Store, after: int, until: int) -> AsyncIterator[Envelope]:
        """Events that fit with after < position <= until, in log order."""
        while after < until:
            found, after = await self.read(store, after, until)
            for envelope in found:
                yield envelope

    def _fits(self, envelope: Envelope) -> bool:
        return (self.key is None or envelope.key == self.key) and envelope.time >= self.since

    async def _is_before(self, store: Store, after: int, until: int) -> bool:
        last = await store.read(max(after, until - 1), until, 1)
        return bool(last) and last[-1].time < self.since


def filter_options(command: F) -> F:
    """Give a command `--type`, `--key` and `--since`."""
    by_type = click.option("--type", "types", multiple=True, metavar="NAME", help="Only this type; may be repeated.")
    by_key = click.option("--key", help="Only this key.")
    by_age = click.option(
        "--since",
        metavar="AGE",
        callback=lambda _context, _option, text: parse_since(text, time.time()),
        help="Only events of the last 10m, 2h or 3d, or since a time like 2026-11-23T08:00Z.",
    )
    return by_type(by_key(by_age(command)))


def parse_since(text: str | None, now: float) -> int:
    """An age (`30s`, `10m`, `2h`, `3d`) or a time (ISO 8601) as microseconds since 1970 UTC; 0 for None.

    Args:
        text: What the user wrote.
        now: Seconds since 1970 UTC.

    Raises:
        BadCommand: It is neither.
    """
    if text is None:
        return 0
    age = re.fullmatch(r"(\d{1,9}(?:\.\d{1,6})?)\s*([smhd])", text.strip())
    if age:
        return int((now - float(age[1]) * _UNITS[age[2]]) * 1_000_000)
    try:
        when = datetime.fromisoformat(text.strip())
    except ValueError:
        msg = f"--since {text} is neither an age nor a time"
        raise BadCommand(msg, "write 30s, 10m, 2h or 3d, or a time like 2026-11-23T08:00Z") from None
    return int((when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() * 1_000_000)
