"""Envelopes as Kafka carries them: CloudEvents in binary mode, attributes as headers, the key as the record's key."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from tidings.core.binding import Binding
from tidings.core.cloudevent import to_text
from tidings.core.envelope import Envelope

_PREFIXES = ("ce_", "ce-", "cloudevents_", "cloudevents:")
"""How senders begin the names of attributes; the binding for Kafka says `ce_`."""


def headers_of(envelope: Envelope) -> list[tuple[str, str | bytes | None]]:
    """The headers of a record; its key is that of the envelope, its value the data, and none for a tombstone."""
    attributes = to_text(envelope).items()
    return [("content-type" if name == "datacontenttype" else f"ce_{name}", value) for name, value in attributes]


def plain(headers: Mapping[str, Any]) -> dict[str, str]:
    """The headers of a record, as an arrival has them; of several with one name the last one counts."""
    found: dict[str, str] = {}
    for name, value in headers.items():
        try:
            found[_name(name)] = value.decode() if value else ""
        except UnicodeDecodeError:
            found.pop(_name(name), None)
    return found


def key_from(key: bytes | None) -> str | None:
    """The key of a record, where it is text; a number in bytes, as Java's clients write it, mostly has a NUL in it."""
    try:
        return key.decode() if key and b"\0" not in key else None
    except UnicodeDecodeError:
        return None


@lru_cache(4096)
def _name(name: str) -> str:
    name = name.lower()
    for prefix in _PREFIXES:
        if name.startswith(prefix):
            return f"ce-{name[len(prefix) :]}"
    return name


BINDING = Binding(plain, "ce_")
"""How records carry events."""
