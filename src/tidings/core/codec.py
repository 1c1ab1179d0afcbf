"""The codec: messages to JSON and back. msgspec does the work; this file decides what may pass.

What JSON cannot carry faithfully is refused before anything is written: NaN and infinity, naive datetimes, lone
surrogates, sets and other objects in untyped fields, nesting beyond MAX_DEPTH.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import datetime
from typing import Any

import msgspec

from tidings.core.message import MessageType
from tidings.errors import BadPayload, PayloadTooLarge, Unreadable

MAX_DEPTH = 100
MAX_BYTES = 1_000_000
"""Largest encoded message, bytes: what every broker takes, with room for attributes."""

_encoder = msgspec.json.Encoder()
encode_json: Callable[[object], bytes] = _encoder.encode
decode_json: Callable[[bytes], Any] = msgspec.json.Decoder().decode

_EXACT = frozenset({str, int, bool, bytes, type(None)})


class Codec:
    """Encodes and decodes one message type. Built once per type; holds no state between calls."""

    def __init__(self, kind: MessageType) -> None:
        """Compile the decoder and decide whether values need a check beyond what msgspec does."""
        self.kind = kind
        self._check = not _is_plain(kind)
        if kind.model == "pydantic":
            self._decode: Callable[[bytes], Any] = kind.cls.model_validate_json
        else:
            self._decode = msgspec.json.Decoder(kind.cls).decode

    def encode(self, message: Any) -> bytes:
        """The message as UTF-8 JSON, fields in the order of the class.

        Raises:
            BadPayload: A value cannot be written; `data["path"]` names the field.
            PayloadTooLarge: More than MAX_BYTES.
        """
        content = message.model_dump(mode="python") if self.kind.model == "pydantic" else message
        try:
            if self._check:
                _walk(content, "data", 0)
            data = encode_json(content)
        except BadPayload:
            raise
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            _walk(content, "data", 0)  # names the field; msgspec only names the type
            msg = f"{self.kind.name} cannot be written as JSON: {error}"
            raise BadPayload(msg, "use str, int, float, bool, datetime, Decimal, UUID, lists and dicts", path="data") from error
        if len(data) > MAX_BYTES:
            msg = f"{self.kind.name} has {len(data):,} bytes of JSON; the limit is {MAX_BYTES:,}"
            cure = "store the large part elsewhere and publish a reference to it"
            raise PayloadTooLarge(msg, cure, size=len(data), limit=MAX_BYTES)
        return data

    def decode(self, data: bytes) -> Any:
        """The message that these bytes hold.

        Raises:
            Unreadable: They are not JSON of this type; the message says which field.
        """
        try:
            return self._decode(data)
        except (msgspec.MsgspecError, ValueError, TypeError, RecursionError) as error:
            first = str(error).splitlines()[0] if str(error) else type(error).__name__
            msg = f"{self.kind.name} cannot be read: {first}"
            raise Unreadable(msg, "see the raw data with `tidings dead show`") from error


def _is_plain(kind: MessageType) -> bool:
    """True where every field is of a type for which msgspec's JSON is exact, so that no walk is needed."""
    for hint in kind.hints.values():
        inner = getattr(hint, "__origin__", hint) if getattr(hint, "__metadata__", None) else hint
        members = getattr(inner, "__args__", None) if not isinstance(inner, type) or hasattr(inner, "__args__") else None
        if inner in _EXACT or (members and getattr(inner, "__module__", "") == "types" and set(members) <= _EXACT):
            continue
        return False
    return True


def _walk(value: Any, path: str, depth: int) -> None:
    """Refuse, with its path, the first value that JSON would lose or change."""
    cls = type(value)
    if cls is str:
        try:
            value.encode()
        except UnicodeEncodeError:
            msg = f"{path} holds a lone surrogate"
            raise BadPayload(msg, "decode the text it came from with the right encoding", path=path) from None
        return
    if cls in (bool, type(None)):
        return
    if isinstance(value, int):
        if not -(2**63) <= value < 2**64:
            msg = f"{path} is an integer of {value.bit_length()} bits; the range is -2^63 to 2^64 - 1"
            raise BadPayload(msg, "publish it as text or Decimal", path=path)
        return
    if isinstance(value, float):
        if not math.isfinite(value):
            msg = f"{path} is {value}, which JSON cannot hold"
            raise BadPayload(msg, "publish None, or a number", path=path)
        return
    if isinstance(value, datetime):
        if value.tzinfo is None:
            msg = f"{path} is a datetime without a time zone: {value.isoformat()}"
            raise BadPayload(msg, "use an aware datetime: datetime.now(UTC)", path=path)
        return
    if depth >= MAX_DEPTH:
        msg = f"{path[:120]} nests deeper than {MAX_DEPTH} levels"
        raise BadPayload(msg, "flatten the message", path=path[:120])
    if isinstance(value, dict):
        for key, item in value.items():
            _walk(key, f"{path} key", depth + 1)
            _walk(item, f"{path}.{key}", depth + 1)
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            _walk(item, f"{path}[{index}]", depth + 1)
    elif isinstance(value, set | frozenset):
        msg = f"{path} is a set, whose order is lost"
        raise BadPayload(msg, "publish a sorted list", path=path)
    elif hasattr(value, "__struct_fields__"):
        for name in value.__struct_fields__:
            _walk(getattr(value, name), f"{path}.{name}", depth + 1)
    elif hasattr(value, "__attrs_attrs__"):
        for attribute in value.__attrs_attrs__:
            _walk(getattr(value, attribute.name), f"{path}.{attribute.name}", depth + 1)
    elif hasattr(value, "__dataclass_fields__"):
        for name in value.__dataclass_fields__:
            _walk(getattr(value, name), f"{path}.{name}", depth + 1)
    else:
        _encode_leaf(value, path)


def _encode_leaf(value: Any, path: str) -> None:
    try:
        encode_json(value)
    except (TypeError, ValueError, OverflowError) as error:
        msg = f"{path} is a {type(value).__qualname__}, which cannot be written as JSON"
        cure = "use str, int, float, bool, datetime, Decimal, UUID, lists and dicts"
        raise BadPayload(msg, cure, path=path) from error
