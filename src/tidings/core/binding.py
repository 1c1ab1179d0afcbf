"""Bindings: how brokers carry the attributes of events as headers, and the short way to read them.

Most events have the same few attributes, all of them ASCII. They are read straight from the headers as the client of
the broker has them, where the long way makes texts and dicts of them first: a quarter of the price. Whatever is unusual
takes the long way, and both come to the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from functools import lru_cache
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from tidings.core.attributes import JSON, MAX_ID, OUTSIDE, TRACE, envelope_of, microseconds, whole_number
from tidings.core.cloudevent import MAX_EVENT
from tidings.core.envelope import STATES, Envelope, slot_of
from tidings.core.message import MAX_KEY, MAX_NAME
from tidings.core.strict import read_json
from tidings.errors import Unreadable

_Bytes = Annotated[bytes, Meta(min_length=1)]
_Id = Annotated[bytes, Meta(min_length=1, max_length=MAX_ID)]
_Key = Annotated[bytes, Meta(min_length=1, max_length=MAX_KEY)]
_Stream = Annotated[bytes, Meta(min_length=1, max_length=MAX_NAME + MAX_KEY)]
_moment = msgspec.json.Decoder(Annotated[datetime, Meta(tz=True)]).decode


class _Usual(msgspec.Struct, gc=False):
    """The headers of what most events are; b"" stands for what is not there."""

    specversion: bytes
    id: _Id
    source: bytes
    type: bytes
    subject: bytes
    partitionkey: _Key
    datacontenttype: bytes
    topic: bytes = OUTSIDE.encode()
    dataversion: bytes = b"1"
    time: _Bytes = b""
    streamid: _Stream = b""
    streamversion: _Bytes = b""
    correlationid: _Id = b""
    causationid: _Id = b""
    traceparent: _Bytes = b""


class Binding:
    """How a broker carries events: their attributes as headers, in bytes or in whatever its client makes of them.

    Attributes:
        plain: Makes plain headers, as `Arrival.headers` has them, of those of the client.
    """

    def __init__(self, plain: Callable[[Mapping[str, Any]], dict[str, str]], prefix: str = "ce-") -> None:
        """Args: plain: see above. prefix: with which names of attributes begin when we send them."""
        self.plain = plain
        names = {name: f"{prefix}{name}" for name in _Usual.__struct_fields__} | {"datacontenttype": "content-type"}
        fields = [(each.name, each.type, each.default) for each in msgspec.structs.fields(_Usual)]
        self._usual: Any = msgspec.defstruct("Usual", fields, rename=names, forbid_unknown_fields=True, gc=False)

    def usual(self, headers: Mapping[str, Any], body: bytes) -> Envelope | None:
        """The event, if it is as most are; None where it takes a closer look, be it to refuse it.

        Raises:
            Unreadable: The body is no JSON, or not so that everybody reads the same.
        """
        if not 0 < len(body) <= MAX_EVENT:
            return None
        try:
            event: _Usual = msgspec.convert(headers, self._usual)
            alike = _alike(
                event.specversion, event.source, event.type, event.datacontenttype, event.topic, event.dataversion
            )
            if alike is None or event.subject != event.partitionkey or b"\\" in event.time:
                return None
            id, key = event.id.decode(), event.partitionkey.decode()
            time = microseconds(_moment(b'"%b"' % event.time)) if event.time else 0
            correlation, causation = event.correlationid.decode(), event.causationid.decode()
            stream, version = event.streamid.decode(), None
            trace = event.traceparent.decode()
            if event.streamversion:
                version = whole_number("streamversion", event.streamversion.decode())
        except (msgspec.DecodeError, UnicodeError, Unreadable):
            return None
        text = f"{id}{key}{correlation}{causation}{stream}"
        if not (text.isascii() and text.isprintable()) or (trace and not TRACE.fullmatch(trace)):
            return None
        read_json(body, "the body")
        is_state = version is not None and stream == f"{STATES}{alike.type}:{key}"
        return Envelope(
            0,
            id,
            alike.source,
            alike.type,
            alike.schema,
            alike.topic,
            key,
            slot_of(key),
            stream if is_state else None,
            version if is_state else None,
            time,
            correlation or None,
            causation or None,
            trace or None,
            None,
            body,
        )


@lru_cache(1024)
def _alike(*values: bytes) -> Envelope | None:
    """What events have in common that share these attributes; None where they take a closer look."""
    names = ("specversion", "source", "type", "datacontenttype", "topic", "dataversion")
    try:
        attributes = {name: value.decode("ascii") for name, value in zip(names, values, strict=True)}
        if attributes.pop("datacontenttype") != JSON or not all(map(str.isprintable, attributes.values())):
            return None
        return envelope_of({**attributes, "id": "1", "subject": "k", "partitionkey": "k"}, b"{}")
    except (UnicodeError, Unreadable):
        return None


def _decoded(headers: Mapping[str, Any]) -> dict[str, str]:
    return {name: value.decode() if type(value) is bytes else value for name, value in headers.items()}


PLAIN = Binding(_decoded)
"""Of headers that are plain, or would be if their values were not in bytes."""
