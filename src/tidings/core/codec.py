"""The codec: messages to JSON and back. msgspec does the work; this file decides what may pass.

What is read back equals what was written, whoever made the class. What JSON cannot carry so is refused before anything
is written: NaN and infinity, datetimes without a time zone, lone surrogates, sets, values of another type than the
declared one, nesting beyond MAX_DEPTH. Datetimes are written in UTC.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import msgspec

from tidings.core.exact import Fit, holds_set, in_utc, refuse_changed, refuse_lossy, types_of
from tidings.core.message import MessageType
from tidings.core.model import as_dicts
from tidings.core.strict import is_deep, place_of, too_deep
from tidings.errors import BadDeclaration, BadPayload, PayloadTooLarge, Unreadable

MAX_BYTES = 1_000_000
"""Largest encoded message, bytes: what every broker takes, with room for attributes."""

encode_json: Callable[[object], bytes] = msgspec.json.Encoder().encode
decode_json: Callable[[bytes], Any] = msgspec.json.Decoder().decode


class Codec:
    """Encodes and decodes one message type. Built once per type; holds no state between calls."""

    def __init__(self, kind: MessageType, most: int = MAX_BYTES) -> None:
        """Compile reading, writing and the test of exactness.

        Args:
            kind: What it encodes and decodes.
            most: Bytes that an encoded message may have.

        Raises:
            BadDeclaration: The class has a field that cannot be read back, such as a set.
        """
        self.kind = kind
        self._most = most
        cls = kind.cls
        hints = kind.hints  # first of all: it makes the annotations of a local class known to msgspec
        try:
            types, self._endless = types_of(cls, kind.scope)
            self._read = _pydantic_reader(cls) if kind.model == "pydantic" else msgspec.json.Decoder(cls).decode
        except (NameError, TypeError) as error:
            raise BadDeclaration(
                f"{cls.__qualname__} cannot be read: {error}", "change the type of that field"
            ) from error
        if holds_set(types):
            names = ", ".join(name for name, hint in hints.items() if holds_set(types_of(hint)[0]))
            raise BadDeclaration(f"{cls.__qualname__} has a set in {names}", "JSON has none: declare tuple[str, ...]")
        self._content: Callable[[Any], Any] | None = None
        self.write: Callable[[Any], bytes] = encode_json  # of a part of the content, too
        if kind.model == "pydantic":
            self._content, self.write = _pydantic_writer()
        elif any(hasattr(each, "__attrs_attrs__") for each in types):
            self._content = as_dicts
        self._fits = Fit(cls, kind.model, kind.scope).test
        self._has_times = datetime in types
        self._decode = self._read_closely if self._endless or self._has_times else self._read

    def encode(self, message: Any) -> bytes:
        """The message as UTF-8 JSON, fields in the order of the class.

        Raises:
            BadPayload: A value cannot be written, or would be read back as another; `data["path"]` names the field.
            PayloadTooLarge: It has more bytes than it may have.
        """
        try:
            if self._fits(message):
                data = self.write(message if self._content is None else self._content(message))
            else:
                data = self._write_closely(message)
        except BadPayload:
            raise
        except Exception as error:  # whatever msgspec, pydantic or a property of the user's class raises
            refuse_lossy(message, self.write)  # names the field; msgspec only names the type
            msg = f"{self.kind.name} cannot be written as JSON: {error}"
            raise BadPayload(msg, "publish text, numbers, datetimes, lists and dicts", path="data") from error
        if self._endless and is_deep(data):
            refuse_lossy(message, self.write)  # names the place
        if len(data) > self._most:
            msg = f"{self.kind.name} has {len(data):,} bytes of JSON; the limit is {self._most:,}"
            cure = "store the large part elsewhere and publish a reference to it"
            if self._most <= MAX_BYTES:
                cure += "; or name a place for it in the URL of the broker: claims=, see docs/brokers.md"
            raise PayloadTooLarge(msg, cure, size=len(data), limit=self._most)
        return data

    def content(self, message: Any) -> Any:
        """What is written of a message: a dict by names in JSON, or the message itself where msgspec writes it."""
        return message if self._content is None else self._content(message)

    def decode(self, data: bytes) -> Any:
        """The message that these bytes hold.

        Raises:
            Unreadable: They are not JSON of this type; `data["path"]` names the field.
        """
        try:
            return self._decode(data)
        except Unreadable:
            raise
        except Exception as error:  # whatever msgspec, pydantic or a validator of the user's class raises
            path, reason = _place(error)
            msg = f"{self.kind.name} cannot be read: {path}: {reason}"
            raise Unreadable(msg, "see the raw data with `tidings dead show`", path=path) from error

    def _read_closely(self, data: bytes) -> Any:
        """Read what msgspec alone would take too much of: any depth, and times that others write."""
        if self._endless and is_deep(data):
            raise too_deep(self.kind.name)
        message = self._read(data)
        if self._has_times and not self._fits(message):
            refuse_lossy(message, self.write)
        return message

    def _write_closely(self, message: Any) -> bytes:
        """Write a message that does not fit its class at first sight, as one who read it would write it.

        A whole number in a field of floats is then written as a float, whoever made the class.
        """
        refuse_lossy(message, self.write)
        content = self.content(message)
        if self.kind.model == "msgspec":
            content = msgspec.to_builtins(content, builtin_types=(datetime,))
        data = self.write(in_utc(content))
        try:
            read = self._read(data)
        except Exception as error:
            path, reason = _place(error)
            msg = f"{self.kind.name} could not be read back: {path}: {reason}"
            raise BadPayload(msg, "give the field a value of its declared type", path=path) from error
        refuse_changed(message, read)
        return self.write(self.content(read))


def _pydantic_reader(cls: Any) -> Callable[[bytes], Any]:
    def read(data: bytes) -> Any:
        decode_json(data)  # pydantic takes NaN and other things that are not JSON
        return cls.model_validate_json(data, strict=True)

    return read


def _pydantic_writer() -> tuple[Callable[[Any], Any], Callable[[Any], bytes]]:
    """What turns an object into dicts, and what writes them: types of pydantic's own as the text they stand for."""
    from pydantic_core import to_jsonable_python

    write = msgspec.json.Encoder(enc_hook=to_jsonable_python).encode
    return lambda message: message.model_dump(by_alias=True, warnings=False), write


def _place(error: Exception) -> tuple[str, str]:
    """Where reading stumbled, as a path, and why."""
    if isinstance(error, BadPayload):
        path = str(error.data["path"])
        return path, error.what.removeprefix(path).strip()
    details = getattr(error, "errors", None)  # pydantic
    if callable(details) and (found := details(include_url=False)):
        path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in found[0]["loc"])
        return f"data{path}", str(found[0]["msg"])
    if isinstance(error, msgspec.MsgspecError):
        return place_of(error, "data")
    return "data", str(error).partition("\n")[0] or type(error).__name__
