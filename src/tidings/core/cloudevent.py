"""CloudEvents 1.0: envelopes to and from the outside world, in structured JSON and in binary mode (HTTP headers).

What comes from outside is foreign: the only error is Unreadable. It gets into no history, whatever stream it names, and
its time is stored, not used; headers that would steer this library are ignored. Nothing but JSON is ever decoded.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, unquote_to_bytes

import msgspec

from tidings.core.attributes import JSON, attributes_of, check_headers, envelope_of, refuse
from tidings.core.codec import MAX_BYTES, decode_json, encode_json
from tidings.core.envelope import Envelope
from tidings.core.strict import read_json

__all__ = ["MAX_EVENT", "STRUCTURED", "check_headers", "from_headers", "from_json", "to_headers", "to_json", "to_text"]

STRUCTURED = "application/cloudevents+json"
"""Content type of an event in structured mode."""

MAX_EVENT = MAX_BYTES + 65_536
"""Largest event from outside, bytes: the data and the attributes."""

_JSON_TYPE = re.compile(r"[a-z0-9!#$&^_.+-]+/(?:json|[a-z0-9!#$&^_.+-]+\+json)")
_HEADER_SAFE = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in '"%')


def to_json(envelope: Envelope) -> bytes:
    """The event in structured mode. Data that is no JSON goes as `data_base64`; a tombstone has no data."""
    event: dict[str, Any] = attributes_of(envelope)
    if envelope.data:
        try:
            decode_json(envelope.data)
            event["data"] = msgspec.Raw(envelope.data)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            event["datacontenttype"] = "application/octet-stream"
            event["data_base64"] = base64.b64encode(envelope.data).decode()
    return encode_json(event)


def to_headers(envelope: Envelope) -> dict[str, str]:
    """The headers of the event in binary mode (CloudEvents HTTP binding); the body is `envelope.data`."""
    attributes = attributes_of(envelope)
    content_type = attributes.pop("datacontenttype", None)
    headers = {f"ce-{name}": quote(_canonical(value), safe=_HEADER_SAFE) for name, value in attributes.items()}
    return headers if content_type is None else {**headers, "content-type": str(content_type)}


def from_json(body: bytes, *, own: bool = False, most: int = MAX_EVENT) -> Envelope:
    """The envelope of an event in structured mode; its data stays byte for byte as it came.

    Args:
        body: The event.
        own: True for one that this system itself sent round; see `envelope_of`.
        most: Bytes that it may have.

    Raises:
        Unreadable: It is no CloudEvent 1.0 with JSON data; says why.
    """
    return envelope_of(*_structured(body, most), own=own)


def to_text(envelope: Envelope) -> dict[str, str]:
    """The attributes of the event as plain text, for brokers whose headers are UTF-8; the body is `envelope.data`."""
    return {name: value if type(value) is str else _canonical(value) for name, value in attributes_of(envelope).items()}


def from_headers(
    headers: Mapping[str, str], body: bytes, *, own: bool = False, encoded: bool = True, key: str | None = None
) -> Envelope:
    """The envelope of an event with headers: in binary mode, or in structured mode where the content type says so.

    Headers that are no attributes are ignored. Without `ce-` headers and content type, the body is taken for an event
    in structured mode.

    Args:
        headers: Name -> value; case does not matter in names.
        body: The data, or the whole event.
        own: True for one that this system itself sent round; see `envelope_of`.
        encoded: True where values are percent-encoded, as in HTTP. Otherwise they are plain text, under names in lower
            case, and come from a program that says so.
        key: Of an event that names none itself.

    Raises:
        Unreadable: It is no CloudEvent 1.0 with JSON data; says why.
    """
    given = _lower(headers) if encoded else headers
    encoding = given.get("content-encoding", "identity").strip().lower()
    if encoding not in {"", "identity"}:
        raise refuse(f"the content-encoding is {encoding[:40]!a}", "send it uncompressed")
    attributes = {
        name[3:]: _decoded(name, value) if encoded else value for name, value in given.items() if name.startswith("ce-")
    }
    content_type = given.get("content-type", "" if attributes else STRUCTURED)
    if content_type.strip().lower().startswith("application/cloudevents"):
        if _media_type(content_type) != STRUCTURED:
            raise refuse(f"the content type is {content_type[:80]!a}", f"send one event, as {STRUCTURED}")
        event, data = _structured(body)
        for name, value in attributes.items():
            if name in event and _canonical(event[name]) != value:
                raise refuse(f"the header ce-{name[:40]} and the event differ", "send it in one mode, not in both")
        return envelope_of(_keyed(event, key), data, own=own)
    if not attributes:
        what = f"there are no ce- headers, and the content type is {content_type[:80]!a}"
        raise refuse(what, f"send it as {STRUCTURED}, or its attributes as ce- headers")
    declared = attributes.pop("datacontenttype", None)  # sent over NATS, not over HTTP
    if declared and content_type and declared != content_type:
        raise refuse("ce-datacontenttype and content-type differ", "send content-type only")
    if body:
        attributes["datacontenttype"] = kind = declared or content_type or JSON
        _check_size(body)
        if kind != JSON:
            _check_json_type(kind)
        read_json(body, "the body")
    return envelope_of(_keyed(attributes, key), bytes(body), own=own)


def _keyed(attributes: Mapping[str, Any], key: str | None) -> Mapping[str, Any]:
    named = key is None or "partitionkey" in attributes or "subject" in attributes
    return attributes if named else {**attributes, "partitionkey": key}


def _structured(body: bytes, most: int = MAX_EVENT) -> tuple[dict[str, Any], bytes]:
    """Attributes and data of an event in structured mode."""
    _check_size(body, most)
    event = read_json(body, "the event")
    if not isinstance(event, dict):
        raise refuse(f"it is a JSON {type(event).__name__}, not an object", "send one event, not a batch")
    data, encoded = b"", event.pop("data_base64", None)
    if "data" in event:
        if encoded is not None:
            raise refuse("it has both data and data_base64", "send one of them")
        del event["data"]
        data = bytes(msgspec.json.decode(body, type=dict[str, msgspec.Raw])["data"])
    elif encoded is not None:
        try:
            data = base64.b64decode(encoded, validate=True)
        except (TypeError, ValueError) as error:
            raise refuse("data_base64 is not base64", "encode it as RFC 4648 says") from error
    attributes = {name: value for name, value in event.items() if value is not None}
    if data:
        _check_json_type(attributes.setdefault("datacontenttype", JSON))
    if encoded is not None:
        read_json(data, "data_base64")
    return attributes, data


def _canonical(value: object) -> str:
    """An attribute as text, as CloudEvents writes it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _lower(headers: Mapping[Any, Any]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in headers.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise refuse(f"the header {str(name)[:40]!a} is not text", "headers are text")
        if name.lower() in found:
            raise refuse(f"the header {name[:40]!a} comes twice", "send each header once")
        found[name.lower()] = value
    return found


def _decoded(name: str, value: str) -> str:
    """The value of an attribute's header: unquoted, then percent-decoded once."""
    value = value.strip()
    if len(value) > 1 and value[0] == value[-1] == '"':
        value = re.sub(r"\\(.)", r"\1", value[1:-1])
    if re.search(r"%(?![0-9A-Fa-f]{2})", value):
        raise refuse(f"the header {name[:40]!a} has a % that stands for itself", "write it as %25")
    try:
        return unquote_to_bytes(value).decode()
    except UnicodeError as error:
        raise refuse(f"the header {name[:40]!a} is not UTF-8", "encode it in UTF-8, then with %") from error


def _media_type(content_type: str) -> str | None:
    """The media type in lower case; None where the text is not in UTF-8."""
    kind, *parameters = content_type.lower().split(";")
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "charset" and value.strip().strip('"') not in {"utf-8", "utf8", "us-ascii"}:
            return None
    return kind.strip()


def _check_json_type(content_type: object) -> None:
    kind = _media_type(content_type) if isinstance(content_type, str) else None
    if kind is None or not _JSON_TYPE.fullmatch(kind):
        raise refuse(f"its data is {str(content_type)[:80]!a}", f"only JSON in UTF-8 is read: {JSON}")


def _check_size(body: bytes, most: int = MAX_EVENT) -> None:
    if len(body) > most:
        cure = f"the limit is {most:,}: store the large part elsewhere and send a reference to it"
        raise refuse(f"it has {len(body):,} bytes", cure)
