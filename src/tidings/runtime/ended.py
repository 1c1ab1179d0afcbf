"""How a delivery ended, on its way to being settled."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from tidings.core.envelope import Envelope
from tidings.core.ports import Append, Delivery, Held


class Ended(msgspec.Struct, frozen=True, gc=False):
    """How one delivery ended.

    Attributes:
        delivery: Which one.
        held: What is kept of it, or None when it is acknowledged.
        append: Messages its handler returned.
        later: Delayed ones.
        committed: True when effects and acknowledgement are in the store already.
    """

    delivery: Delivery
    held: Held | None = None
    append: Sequence[Envelope] = ()
    later: Sequence[Append] = ()
    committed: bool = False
