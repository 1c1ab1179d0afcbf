"""The attributes of an event as CloudEvents 1.0 names them: of an envelope, and checked when they come from outside."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from tidings.core.codec import decode_json, encode_json
from tidings.core.envelope import STATES, Envelope, slot_of
from tidings.core.message import MAX_KEY, MAX_NAME
from tidings.core.strict import place_of
from tidings.errors import BadArgument, Unreadable

JSON = "application/json"
"""Content type of data that says nothing else."""

STATES_WANTED, STATE_AGAIN = "tidings.states-wanted", "tidings.state-again"
"""Types by which a replica asks for current states, and gets them."""

ANSWER = "tidings.answer"
"""Type of the answer to a request."""

EXPIRY, REPLY_TO = "expirytime", "replyto"
"""Attributes of a request: its deadline, and the app that waits for the answer."""

OUTSIDE = "outside"
"""Topic of an event from outside that names none."""

MAX_HEADERS = 64
"""Most extension attributes of one event."""

MAX_HEADER_BYTES = 16_384
"""Most bytes of extension attributes of one event, as JSON."""

CLAIM = ("dataref", "datasha256", "datasize")
"""Of an event whose data lie elsewhere: where, which and how many bytes; see `tidings.core.claim`."""

CLAIM_BYTES = 1_024
"""Room for them beside other extension attributes."""

MAX_ID = 512
"""Longest id from outside, characters; the same for the ids of causes."""

TRACE = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?:-[!-~]*)?")
"""A `traceparent` as W3C Trace Context writes it."""

_NAME = re.compile(r"[a-z0-9]{1,64}")
_NOT_TEXT = re.compile(  # what a CloudEvents String must not hold: controls, surrogates, noncharacters
    "[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef"
    + "".join(chr(plane << 16 | 0xFFFE) + chr(plane << 16 | 0xFFFF) for plane in range(17))
    + "]"
)
_REFERENCE = re.compile(r"(?:[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=]|%[0-9A-Fa-f]{2})+")  # RFC 3986
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_INT32 = 2**31

_Text = Annotated[str, Meta(min_length=1)]
_Name = Annotated[str, Meta(min_length=1, max_length=MAX_NAME)]
_Id = Annotated[str, Meta(min_length=1, max_length=MAX_ID)]
_Key = Annotated[str, Meta(min_length=1, max_length=MAX_KEY)]


class _Event(msgspec.Struct):
    """The attributes this library knows, and what they may hold."""

    specversion: Literal["1.0"]
    id: _Id
    source: Annotated[str, Meta(min_length=1, max_length=2_048)]
    type: _Name
    subject: _Text | None = None
    time: Annotated[datetime, Meta(tz=True)] | None = None
    datacontenttype: _Text | None = None
    dataschema: _Text | None = None
    partitionkey: _Key | None = None
    dataversion: int | str = 1
    topic: _Name | None = None
    streamid: Annotated[str, Meta(min_length=1, max_length=MAX_NAME + MAX_KEY)] | None = None
    streamversion: int | str | None = None
    correlationid: _Id | None = None
    causationid: _Id | None = None


_OURS = frozenset(_Event.__struct_fields__)
_KEYS = frozenset({"subject", "partitionkey"})  # the text of a key may be any
_FROM_OUTSIDE = frozenset({STATES_WANTED, STATE_AGAIN, ANSWER})  # the only reserved types that come from there
_KEPT = ("subject", "datacontenttype", "dataschema")  # for which an envelope has no field of its own


def attributes_of(envelope: Envelope) -> dict[str, str | int | bool]:
    """The attributes of an envelope, those it has, in the order in which they are sent."""
    found: dict[str, Any] = {
        "specversion": "1.0",
        "id": envelope.id,
        "source": envelope.source,
        "type": envelope.type,
        "time": timestamp(envelope.time),
        "subject": envelope.key,
        "datacontenttype": JSON if envelope.data else None,
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


def envelope_of(attributes: Mapping[str, Any], data: bytes, *, own: bool = False) -> Envelope:
    """The envelope of an event from outside: position 0, and time 0 where the sender gave none.

    Attributes an envelope has no field for become its headers. Those whose names begin with `tidings` are ignored, and
    so is a malformed `traceparent`, as W3C Trace Context asks.

    Args:
        attributes: Name -> value, as they came.
        data: The data, as it came.
        own: True for an event that this system itself sent round: its stream and version are believed, and without a
            topic it is private. Anybody else's event is public and belongs to no history here; only of a state the
            version is believed, for its owner alone can know it.

    Raises:
        Unreadable: An attribute is missing, or is not what CloudEvents 1.0 and the limits here allow.
    """
    if attributes.keys() <= _OURS:
        rest: dict[str, Any] = {}
    else:
        attributes = {name: value for name, value in attributes.items() if not name.startswith("tidings")}
        rest = {name: value for name, value in attributes.items() if name not in _OURS}
    event, key = _checked(attributes)
    trace = rest.pop("traceparent", None)
    version = None if event.streamversion is None else whole_number("streamversion", event.streamversion)
    believed = own or (version is not None and event.streamid == f"{STATES}{event.type}:{key}")
    if len(rest) > MAX_HEADERS and len(rest.keys() - set(CLAIM)) > MAX_HEADERS:
        raise refuse(f"it has {len(rest)} extension attributes", f"at most {MAX_HEADERS} are taken")
    kept = {name: value for name in _KEPT if (value := getattr(event, name)) is not None}
    if kept.get("subject") == key:
        kept.pop("subject", None)
    if kept.get("datacontenttype") == JSON:
        del kept["datacontenttype"]
    headers = encode_json(kept | rest) if kept or rest else None
    if headers is not None and len(headers) > MAX_HEADER_BYTES + CLAIM_BYTES * ("dataref" in rest):
        raise refuse(f"its extension attributes have {len(headers):,} bytes", f"at most {MAX_HEADER_BYTES:,} are taken")
    return Envelope(
        position=0,
        id=event.id,
        source=event.source,
        type=event.type,
        schema=whole_number("dataversion", event.dataversion),
        topic=event.topic or (None if own else OUTSIDE),
        key=key,
        slot=slot_of(event.id if key is None else key),
        stream=event.streamid if believed else None,
        version=version if believed else None,
        time=0 if event.time is None else microseconds(event.time),
        correlation=event.correlationid,
        causation=event.causationid,
        traceparent=trace if isinstance(trace, str) and TRACE.fullmatch(trace) else None,
        headers=headers,
        data=data,
    )


def _checked(attributes: Mapping[str, Any]) -> tuple[_Event, str | None]:
    """The attributes this library knows, and the key."""
    text = "".join([value for name, value in attributes.items() if type(value) is str and name not in _KEYS])
    is_usual = attributes.keys() <= _OURS and set(map(type, attributes.values())) <= {str, int}
    if not (is_usual and text.isascii() and text.isprintable()):
        for name, value in attributes.items():
            _check(name, value)
    try:
        event = msgspec.convert(attributes, _Event)
        key = event.partitionkey
        if key is None and event.subject is not None:
            key = msgspec.convert(event.subject, _Key)
    except msgspec.ValidationError as error:
        name, reason = place_of(error, "")
        raise refuse(f"{name.lstrip('.') or 'subject'}: {reason}", "see the CloudEvents specification") from error
    if not _REFERENCE.fullmatch(event.source):
        raise refuse(f"source {event.source[:80]!a} is no URI reference", "encode other characters with %")
    if event.type.startswith("tidings.") and event.type not in _FROM_OUTSIDE:
        raise refuse(f"type {event.type[:80]!r} is reserved", "choose another name")
    if key is not None and ("\0" in key or len(key.encode()) > MAX_KEY):
        raise refuse(f"its key is {key[:40]!a}", f"a key has 1 to {MAX_KEY} bytes of UTF-8 without NUL")
    return event, key


def check_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Extension attributes a user gives to a message, when they can be sent everywhere.

    Args:
        headers: Name -> text. Names are lower-case letters and digits; `traceparent` starts or joins a trace.

    Raises:
        BadArgument: A name or value cannot be used, or there are too many; names the header.
    """
    given: object = headers  # a caller without a type checker may give anything
    if not isinstance(given, Mapping):
        raise BadArgument(f"the headers are a {type(given).__qualname__}", 'give a dict: headers={"tenant": "acme"}')
    if len(headers) > MAX_HEADERS:
        raise BadArgument(f"{len(headers)} headers are given", f"a message has at most {MAX_HEADERS}")
    for name, value in headers.items():
        _check_header(name, value)
    if (trace := headers.get("traceparent")) is not None and not TRACE.fullmatch(trace):
        raise BadArgument(f"the header traceparent is {trace[:80]!r}", "give it as W3C Trace Context writes it: 00-...")
    size = len(encode_json(headers))
    if size > MAX_HEADER_BYTES:
        raise BadArgument(
            f"the headers have {size:,} bytes", f"a message has at most {MAX_HEADER_BYTES:,} bytes of them"
        )
    return dict(headers)


def refuse(what: str, cure: str) -> Unreadable:
    """The error for what came from outside and is no event."""
    return Unreadable(f"no CloudEvent: {what}", cure)


def _check_header(name: object, value: object) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        prefixed = isinstance(name, str) and name.lower().startswith("ce-")
        cure = "leave out ce-, a broker's adapter adds it" if prefixed else "use lower-case letters and digits only"
        raise BadArgument(f"the header name {str(name)[:40]!r} cannot be used", cure)
    if name in _OURS or name in CLAIM or name in {"data", REPLY_TO} or name.startswith("tidings"):
        raise BadArgument(f"the header {name!r} is set by tidings itself", "choose another name")
    if not isinstance(value, str):
        raise BadArgument(f"the header {name!r} is a {type(value).__qualname__}", "give it as text: str(...)")
    if found := _NOT_TEXT.search(value):
        msg = f"the header {name!r} holds {found[0]!a} at character {found.start() + 1}"
        raise BadArgument(msg, "headers hold printable text: no line feeds, no control characters")


def _check(name: str, value: object) -> None:
    if not _NAME.fullmatch(name) or name == "data":
        raise refuse(f"the attribute name {name[:40]!a} is not allowed", "use lower-case letters and digits")
    if isinstance(value, str):
        if name not in _KEYS and (found := _NOT_TEXT.search(value)):
            what = f"{name} holds {found[0]!a} at character {found.start() + 1}"
            raise refuse(what, "attributes hold printable text")
    elif not isinstance(value, int) or not -_INT32 <= value < _INT32:
        raise refuse(f"{name} is not text, a whole number of 32 bits, true or false", "send it as text")


@lru_cache(1024, typed=True)
def whole_number(name: str, value: int | str) -> int:
    """The value of an attribute that counts from 1. Raises Unreadable."""
    text = str(value)
    if not (text.isascii() and text.isdecimal() and len(text) <= len(str(_INT32)) and 0 < int(text) < _INT32):
        raise refuse(f"{name} is {text[:40]!a}", f"it is a whole number from 1 to {_INT32 - 1}")
    return int(text)


def microseconds(moment: datetime) -> int:
    """An aware datetime as microseconds since 1970 UTC."""
    return (moment - _EPOCH) // _MICROSECOND


def timestamp(time: int) -> str | None:
    """Microseconds since 1970 UTC as CloudEvents writes a time; None for 0, and beyond the year 9999."""
    try:
        moment = _EPOCH + timedelta(microseconds=time)
    except OverflowError:
        return None
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z") if time else None
