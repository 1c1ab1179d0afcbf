"""CloudEvents 1.0: envelopes to and from the outside world, in structured JSON and in binary mode (HTTP headers).

What comes from outside is foreign: everything is checked, and the only error is Unreadable. The sender's claims about
streams, versions and times are read, not believed; attributes and headers that would steer this library are ignored.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote, unquote_to_bytes

import msgspec

from tidings.core.codec import MAX_BYTES, decode_json, encode_json
from tidings.core.envelope import Envelope, slot_of
from tidings.core.message import MAX_KEY, MAX_NAME
from tidings.core.strict import read_json
from tidings.errors import BadArgument, Unreadable

STRUCTURED = "application/cloudevents+json"
"""Content type of an event in structured mode."""

MAX_EVENT = MAX_BYTES + 65_536
"""Largest event from outside, bytes: the data and the attributes."""

MAX_HEADERS = 64
"""Most extension attributes of one event."""

MAX_HEADER_BYTES = 16_384
"""Most bytes of extension attributes of one event, as JSON."""

MAX_ID = 512
"""Longest id from outside, bytes; the same for the ids of causes."""

MAX_SOURCE = 2_048
"""Longest source from outside, bytes."""

_JSON = "application/json"
_JSON_TYPE = re.compile(r"[a-z0-9!#$&^_.+-]+/(?:json|[a-z0-9!#$&^_.+-]+\+json)")
_NAME = re.compile(r"[a-z0-9]{1,64}")
_REFERENCE = re.compile(r"(?:[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=]|%[0-9A-Fa-f]{2})+")
_TRACE = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?:-[!-~]*)?")
_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:)(\d\d)(?:\.(\d+))?(Z|[+-]\d\d:\d\d)", re.ASCII | re.IGNORECASE)
_NOT_TEXT = re.compile(  # what a CloudEvents String must not hold: controls, surrogates, noncharacters
    "[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef"
    + "".join(chr(plane << 16 | 0xFFFE) + chr(plane << 16 | 0xFFFF) for plane in range(17))
    + "]"
)
_HEADER_SAFE = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in '"%')
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_INT32 = 2**31

_OURS = frozenset(
    """specversion id source type subject time datacontenttype dataschema data partitionkey dataversion topic
    correlationid causationid streamid streamversion""".split()
)
_KEPT = ("datacontenttype", "dataschema", "subject")  # attributes for which an envelope has no field of its own


# ---- out -------------------------------------------------------------------------------------------------------------


def to_json(envelope: Envelope) -> bytes:
    """The event in structured mode. Data that is no JSON goes as `data_base64`; a tombstone has no data."""
    event = _attributes(envelope)
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
    attributes = _attributes(envelope)
    content_type = attributes.pop("datacontenttype", None)
    headers = {f"ce-{name}": quote(_canonical(value), safe=_HEADER_SAFE) for name, value in attributes.items()}
    return headers if content_type is None else {**headers, "content-type": content_type}


def check_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Extension attributes a user gives to a message, when they can be sent everywhere.

    Args:
        headers: Name -> text. Names are lower-case letters and digits; `traceparent` starts or joins a trace.

    Raises:
        BadArgument: A name or value cannot be used, or there are too many; names the header.
    """
    if len(headers) > MAX_HEADERS:
        raise BadArgument(f"{len(headers)} headers are given", f"a message has at most {MAX_HEADERS}")
    for name, value in headers.items():
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            cure = "use lower-case letters and digits, as CloudEvents does"
            if isinstance(name, str) and name.lower().startswith("ce-"):
                cure = "leave out the prefix: a broker's adapter adds it"
            raise BadArgument(f"the header name {str(name)[:40]!r} cannot be used", cure)
        if name in _OURS or name.startswith("tidings"):
            raise BadArgument(f"the header {name!r} is set by tidings itself", "choose another name")
        if not isinstance(value, str):
            raise BadArgument(f"the header {name!r} is a {type(value).__qualname__}", "give it as text: str(...)")
        if found := _NOT_TEXT.search(value):
            msg = f"the header {name!r} holds {found[0]!a} at character {found.start() + 1}"
            raise BadArgument(msg, "headers hold printable text: no line feeds, no control characters")
    if (trace := headers.get("traceparent")) is not None and not _TRACE.fullmatch(trace):
        raise BadArgument(f"the header traceparent is {trace[:80]!r}", "give it as W3C Trace Context writes it: 00-...")
    size = len(encode_json(headers))
    if size > MAX_HEADER_BYTES:
        raise BadArgument(
            f"the headers have {size:,} bytes", f"a message has at most {MAX_HEADER_BYTES:,} bytes of them"
        )
    return dict(headers)


def _attributes(envelope: Envelope) -> dict[str, Any]:
    found = {
        "specversion": "1.0",
        "id": envelope.id,
        "source": envelope.source,
        "type": envelope.type,
        "time": _written(envelope.time),
        "subject": envelope.key,
        "datacontenttype": _JSON if envelope.data else None,
        "partitionkey": envelope.key,
        "dataversion": envelope.schema,
        "topic": envelope.topic,
        "streamid": envelope.stream,
        "streamversion": envelope.version,
        "correlationid": envelope.correlation,
        "causationid": envelope.causation,
        "traceparent": envelope.traceparent,
    }
    if envelope.headers:
        found.update(decode_json(envelope.headers))
    return {name: value for name, value in found.items() if value is not None}


def _canonical(value: str | int | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _written(time: int) -> str | None:
    try:
        moment = _EPOCH + timedelta(microseconds=time)
    except OverflowError:
        return None
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z") if time else None


# ---- in --------------------------------------------------------------------------------------------------------------


def from_json(body: bytes) -> Envelope:
    """The envelope of an event in structured mode; position 0, and time 0 where the sender gave none.

    The data stays byte for byte as it came.

    Raises:
        Unreadable: It is no CloudEvent 1.0 with JSON data; says why.
    """
    return _envelope(*_structured(body))


def from_headers(headers: Mapping[str, str], body: bytes) -> Envelope:
    """The envelope of an event with headers: in binary mode, or in structured mode as the content type says.

    Headers that are no attributes are ignored, those that would steer this library among them. Without `ce-` headers
    and content type the body is taken for structured JSON.

    Raises:
        Unreadable: It is no CloudEvent 1.0 with JSON data; says why.
    """
    given = _lower(headers)
    encoding = given.get("content-encoding", "identity").strip().lower()
    if encoding not in {"", "identity"}:
        raise _refuse(f"the body is compressed: content-encoding {encoding[:40]!r}", "send it uncompressed")
    attributes = {name[3:]: _header(name, value) for name, value in given.items() if name.startswith("ce-")}
    content_type = given.get("content-type")
    if content_type is None and not attributes:
        return from_json(body)
    if content_type is not None and content_type.strip().lower().startswith("application/cloudevents"):
        if _media_type(content_type) != STRUCTURED:
            raise _refuse(f"the content type is {content_type[:80]!r}", f"send one event as {STRUCTURED}")
        event, data = _structured(body)
        for name, value in attributes.items():
            if name in event and _canonical(event[name]) != value:
                raise _refuse(f"the header ce-{name} and the event differ", "send an event in one mode, not in both")
        return _envelope(event, data)
    if not attributes:
        what = f"there are no ce- headers, and the content type {(content_type or '')[:80]!r} is not an event's"
        raise _refuse(what, f"send the event as {STRUCTURED}, or its attributes as ce- headers")
    if attributes.setdefault("datacontenttype", content_type or _JSON) != (content_type or _JSON):
        raise _refuse("ce-datacontenttype and content-type differ", "send content-type only")
    if body:
        _check_json_type(attributes["datacontenttype"])
        _check_size(body)
        read_json(body, "the body")
    else:
        del attributes["datacontenttype"]
    return _envelope(attributes, bytes(body))


def _structured(body: bytes) -> tuple[dict[str, Any], bytes]:
    """Attributes and data of an event in structured mode."""
    _check_size(body)
    event = read_json(body, "the event")
    if not isinstance(event, dict):
        raise _refuse(f"the event is a JSON {type(event).__name__}, not an object", "send one event, not a batch")
    data, encoded = b"", event.pop("data_base64", None)
    if "data" in event:
        if encoded is not None:
            raise _refuse("the event has both data and data_base64", "send one of them")
        del event["data"]
        data = bytes(msgspec.json.decode(body, type=dict[str, msgspec.Raw])["data"])
    elif encoded is not None:
        try:
            data = base64.b64decode(encoded, validate=True)
        except (TypeError, ValueError, binascii.Error) as error:
            raise _refuse("data_base64 is not base64", "encode it as RFC 4648 says") from error
    attributes = {name: value for name, value in event.items() if value is not None}
    if data:
        _check_json_type(attributes.setdefault("datacontenttype", _JSON))
        if encoded is not None:
            read_json(data, "data_base64")
    return attributes, data


def _envelope(attributes: dict[str, Any], data: bytes) -> Envelope:
    """Check every attribute; what an envelope has no field for becomes its headers."""
    for name, value in attributes.items():
        _check_attribute(name, value)
    if (version := _text(attributes, "specversion")) != "1.0":
        raise _refuse(f"specversion is {version!r}", "send CloudEvents 1.0")
    id, source, type_ = _text(attributes, "id"), _text(attributes, "source"), _text(attributes, "type")
    if id is None or source is None or type_ is None:
        missing = [name for name in ("id", "source", "type") if name not in attributes]
        raise _refuse(f"{' and '.join(missing)} missing", "every CloudEvent has id, source and type")
    _check_length("id", id, MAX_ID)
    _check_length("source", source, MAX_SOURCE)
    _check_length("type", type_, MAX_NAME)
    if not _REFERENCE.fullmatch(source):
        raise _refuse(f"source {source[:80]!a} is no URI reference", "encode other characters with %")
    if type_.startswith("tidings."):
        raise _refuse(f"type {type_[:80]!r} is reserved", "choose another name")
    subject = _text(attributes, "subject")
    key = _text(attributes, "partitionkey") or subject
    if key is not None:
        _check_length("partitionkey" if "partitionkey" in attributes else "subject", key, MAX_KEY)
        if "\0" in key:
            raise _refuse("the key holds NUL", "a key is text without NUL")
    rest = {
        name: value
        for name, value in attributes.items()
        if name not in _OURS and name != "traceparent" and not name.startswith("tidings")
    }
    kept = {name: value for name in _KEPT if (value := _text(attributes, name)) is not None}
    if kept.get("datacontenttype") == _JSON:
        del kept["datacontenttype"]
    if subject == key:
        kept.pop("subject", None)
    headers = encode_json(kept | rest) if kept or rest else None
    if headers is not None and (len(rest) > MAX_HEADERS or len(headers) > MAX_HEADER_BYTES):
        limit = f"at most {MAX_HEADERS} extension attributes in {MAX_HEADER_BYTES:,} bytes are taken"
        raise _refuse(f"the event has {len(rest)} extension attributes in {len(headers):,} bytes", limit)
    trace = attributes.get("traceparent")
    return Envelope(
        position=0,
        id=id,
        source=source,
        type=type_,
        schema=_number(attributes, "dataversion") or 1,
        topic=_short(attributes, "topic"),
        key=key,
        slot=slot_of(id if key is None else key),
        stream=_short(attributes, "streamid", MAX_NAME + MAX_KEY),
        version=_number(attributes, "streamversion"),
        time=_microseconds(_text(attributes, "time")),
        correlation=_short(attributes, "correlationid", MAX_ID),
        causation=_short(attributes, "causationid", MAX_ID),
        traceparent=trace if isinstance(trace, str) and _TRACE.fullmatch(trace) else None,  # W3C: else start anew
        headers=headers,
        data=data,
    )


def _check_attribute(name: str, value: object) -> None:
    if not _NAME.fullmatch(name) and not name.startswith("tidings"):
        raise _refuse(f"the attribute name {name[:40]!a} is not allowed", "use lower-case letters and digits")
    if isinstance(value, str):
        if name not in {"subject", "partitionkey"} and (found := _NOT_TEXT.search(value)):
            what = f"{name} holds {found[0]!a} at character {found.start() + 1}"
            raise _refuse(what, "attributes hold printable text")
    elif not isinstance(value, int) or not -_INT32 <= value < _INT32:
        raise _refuse(f"{name} is neither text, nor a whole number of 32 bits, nor true or false", "send it as text")


def _text(attributes: Mapping[str, Any], name: str) -> str | None:
    value = attributes.get(name)
    if value is not None and not (isinstance(value, str) and value):
        raise _refuse(f"{name} is {value!r}", f"{name} is text that is not empty")
    return value


def _short(attributes: Mapping[str, Any], name: str, limit: int = MAX_NAME) -> str | None:
    value = _text(attributes, name)
    if value is not None:
        _check_length(name, value, limit)
    return value


def _number(attributes: Mapping[str, Any], name: str) -> int | None:
    value = attributes.get(name)
    if value is None:
        return None
    text = _canonical(value)
    if not (text.isascii() and text.isdecimal() and len(text) <= len(str(_INT32)) and 0 < int(text) < _INT32):
        raise _refuse(f"{name} is {text[:40]!r}", f"{name} is a whole number from 1 to {_INT32 - 1}")
    return int(text)


def _microseconds(time: str | None) -> int:
    if time is None:
        return 0
    found = _TIME.fullmatch(time)
    try:
        if found is None:
            raise ValueError
        minute, second, fraction, zone = found.groups()
        leap = second == "60"  # RFC 3339 allows the leap second; datetime does not
        moment = datetime.fromisoformat(f"{minute}{'59' if leap else second}{zone}".upper())
        micros = int((fraction or "0")[:6].ljust(6, "0"))
        return (moment - _EPOCH) // _MICROSECOND + micros + (1_000_000 if leap else 0)
    except (ValueError, OverflowError) as error:
        raise _refuse(f"time is {time[:40]!r}", "send a timestamp as RFC 3339 writes it") from error


def _lower(headers: Mapping[str, str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in headers.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise _refuse(f"the header {str(name)[:40]!a} is not text", "headers are text")
        if name.lower() in found:
            raise _refuse(f"the header {name[:40]!a} comes twice", "send each header once")
        found[name.lower()] = value
    return found


def _header(name: str, value: str) -> str:
    """The value of an attribute's header: unquoted, then percent-decoded once."""
    value = value.strip()
    if len(value) > 1 and value[0] == value[-1] == '"':
        value = re.sub(r"\\(.)", r"\1", value[1:-1])
    if re.search(r"%(?![0-9A-Fa-f]{2})", value):
        raise _refuse(f"the header {name[:40]!a} has a % that stands for itself", "write it as %25")
    try:
        return unquote_to_bytes(value).decode()
    except UnicodeError as error:
        raise _refuse(f"the header {name[:40]!a} is not UTF-8", "encode it in UTF-8, then with %") from error


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
        raise _refuse(f"the data is {str(content_type)[:80]!a}", "only JSON in UTF-8 is read: application/json")


def _check_size(body: bytes) -> None:
    if len(body) > MAX_EVENT:
        what = f"the event has {len(body):,} bytes"
        raise _refuse(what, f"the limit is {MAX_EVENT:,}: store the large part elsewhere and send a reference to it")


def _check_length(name: str, value: str, limit: int) -> None:
    if (size := len(value.encode())) > limit:
        raise _refuse(f"{name} has {size:,} bytes", f"the limit is {limit}")


def _refuse(what: str, cure: str) -> Unreadable:
    return Unreadable(f"no CloudEvent: {what}", cure)
