"""What comes from a broker, and what it says of what was published."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from tidings.core.binding import PLAIN, Binding
from tidings.core.cloudevent import from_headers
from tidings.core.envelope import Envelope

DEADLINE = 30.0
"""Seconds after which a publication that nobody confirmed counts as unknown."""


class Arrival(msgspec.Struct, frozen=True, gc=False):
    """A message as a broker delivered it; nobody has read it yet.

    Attributes:
        topic: Where it was published.
        body: Its bytes; empty where it had none.
        sent: Its headers as the client of the broker has them.
        place: Where it lay, for people, as its text says: "orders[3] at offset 1200".
        key: The broker's own key, where it has one; orders a message that names none itself.
        token: The adapter's own: what it needs to settle it.
        binding: What the headers mean.
    """

    topic: str
    body: bytes
    sent: Mapping[str, Any]
    place: object
    key: str | None = None
    token: Any = None
    binding: Binding = PLAIN

    @property
    def headers(self) -> dict[str, str]:
        """Names in lower case; CloudEvents attributes are named `ce-...`, whatever the broker calls them.

        Values are plain text, not percent-encoded. What cannot be text is left out.
        """
        return self.binding.plain(self.sent)

    def read(self) -> Envelope:
        """The event in it.

        Raises:
            Unreadable: There is none; says why.
        """
        usual = self.binding.usual(self.sent, self.body)
        if usual is not None:
            return usual
        return from_headers(self.headers, self.body, encoded=False, key=self.key)


class Confirmed(msgspec.Struct, frozen=True, gc=False):
    """The broker keeps it."""


class Rejected(msgspec.Struct, frozen=True, gc=False):
    """The broker does not have it, and will not take it however often it is sent.

    Attributes:
        reason: What is wrong with it, in one line.
        too_large: True where it is only its size.
    """

    reason: str
    too_large: bool = False


class Unknown(msgspec.Struct, frozen=True, gc=False):
    """It may or may not be there, or there is nobody to take it now: it is sent again, with the same id.

    Attributes:
        reason: What happened, in one line.
    """

    reason: str


Result = Confirmed | Rejected | Unknown
