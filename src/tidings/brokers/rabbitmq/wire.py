"""Messages as RabbitMQ carries them: CloudEvents in binary mode, and whatever strangers send.

There is no official binding of CloudEvents to AMQP 0-9-1. We send what the binding to AMQP 1.0 prefers: a header
`cloudEvents_<name>` for each attribute, and `content-type` as the property of that name. We read `cloudEvents:<name>`,
`ce-<name>` and `ce_<name>` as well, and events in structured mode.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from pika import spec

from tidings.core.binding import Binding
from tidings.core.cloudevent import to_text
from tidings.core.envelope import Envelope

_PREFIXES = ("cloudevents_", "cloudevents:", "ce-", "ce_")
_LONGEST = 255
"""Bytes of a short string of AMQP, such as a routing key."""


def headers_of(envelope: Envelope) -> tuple[dict[str, str], str | None]:
    """The headers and the content type of an envelope; its data is the body."""
    attributes = to_text(envelope)
    content_type = attributes.pop("datacontenttype", None)
    return {f"cloudEvents_{name}": value for name, value in attributes.items()}, content_type


def properties_of(headers: Mapping[str, str], content_type: str | None, message_id: str) -> Any:
    """The properties of a persistent message.

    Args:
        headers: Of the event.
        content_type: Of its data, None where it has none.
        message_id: Of this attempt to send it. It tells which attempt comes back when two of one event are under way.
    """
    return spec.BasicProperties(content_type=content_type, headers=headers, delivery_mode=2, message_id=message_id)


def address_of(envelope: Envelope) -> str:
    """The routing key: the key, or the id of a message without one, which only spreads it over the shards."""
    key = envelope.id if envelope.key is None else envelope.key
    if len(key) > _LONGEST // 4 and len(key.encode()) > _LONGEST:
        return hashlib.sha256(key.encode()).hexdigest()
    return key


def sent_in(properties: Any) -> dict[str, Any]:
    """The headers of a message as they came: texts may be in bytes."""
    found: dict[str, Any] = properties.headers or {}
    for name, value in (("content-type", properties.content_type), ("content-encoding", properties.content_encoding)):
        if isinstance(value, str):
            found[name] = value.encode()
    return found


def plain(sent: Mapping[str, Any]) -> dict[str, str]:
    """Headers as the runtime reads them: names in lower case, attributes named `ce-...`, text only."""
    found: dict[str, str] = {}
    for name, value in sent.items():
        text = value if type(value) is str else _text(value)
        if text is not None and isinstance(name, str):
            found[_name(name)] = text
    return found


BINDING = Binding(plain, "cloudEvents_")
"""How messages carry events."""


@lru_cache(maxsize=1024)
def _name(name: str) -> str:
    name = name.lower()
    prefix = next((prefix for prefix in _PREFIXES if name.startswith(prefix)), None)
    return f"ce-{name[len(prefix) :]}" if prefix else name


def _text(value: object) -> str | None:
    """A value that is no text as CloudEvents writes it; None for what has no such form."""
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return str(int(value))
        case bytes():
            try:
                return value.decode()
            except UnicodeDecodeError:
                return None
        case datetime():
            return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    return None
