"""Columns: how the fields of a state become the columns of a table, and a row becomes the state again."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum
from types import NoneType
from typing import Any, Literal, get_args, get_origin
from uuid import UUID

import msgspec

from tidings.core.codec import Codec, encode_json
from tidings.core.message import MessageType
from tidings.core.schema import check_table
from tidings.core.signature import flatten
from tidings.errors import BadDeclaration

Kind = Literal["text", "int", "bool", "float", "blob", "json"]

_SQL = {"text": "TEXT", "int": "INTEGER", "bool": "INTEGER", "float": "REAL", "blob": "BLOB", "json": "TEXT"}
_EXACT: dict[Any, Kind] = {str: "text", int: "int", bool: "bool", float: "float", bytes: "blob"}
_AS_TEXT = (datetime, date, time, Decimal, UUID)


@dataclass(frozen=True)
class Column:
    """One field of a state as a column.

    Attributes:
        name: Of the field and of the column.
        json_name: Of the field in JSON, which differs where the class renames it.
        kind: What is stored: a plain value, the text of a JSON string, or JSON.
        null: True where NULL may stand, for None.
        exact: True where the value is stored as it is.
    """

    name: str
    json_name: str
    kind: Kind
    null: bool
    exact: bool

    @property
    def sql(self) -> str:
        """Its definition, without constraints that only a primary key has."""
        return f'"{self.name}" {_SQL[self.kind]}{"" if self.null else " NOT NULL"}'


class Columns:
    """The columns of one state type, compiled once.

    Args:
        kind: The state type.
        owner: What they belong to, for messages: "replica customers".

    Raises:
        BadDeclaration: A field cannot be a column, or the key is no text, whole number or UUID.
    """

    def __init__(self, kind: MessageType, owner: str) -> None:
        self.kind = kind
        self.columns = tuple(_column(kind, name, json_name, owner) for name, json_name in _fields(kind))
        taken: set[str] = {"_version", "_time", "_position"}
        for column in self.columns:
            if column.name.lower() in taken:
                raise BadDeclaration(f"{owner}: the column {column.name} exists twice", "rename the field")
            taken.add(column.name.lower())
        self.key = next(column for column in self.columns if column.name == kind.key_field)
        if self.key.null or self.key.kind not in ("text", "int"):
            cure = "the key of a state is a str, int or UUID"
            raise BadDeclaration(f"{owner}: {kind.key_field} cannot be a primary key", cure)
        self.key_of: Callable[[Any], str | int] = int if self.key.kind == "int" else str
        self._codec = Codec(kind)

    def decode(self, data: bytes) -> Any:
        """The state that these bytes hold."""
        return self._codec.decode(data)

    def row(self, record: Any) -> list[Any]:
        """The values of a state, in the order of the columns."""
        content = self._codec.content(record)
        row: list[Any] = []
        for column in self.columns:
            value = content[column.json_name] if isinstance(content, dict) else getattr(content, column.name)
            if column.exact or value is None:
                row.append(int(value) if column.kind == "bool" and value is not None else value)
            elif column.kind == "json":
                row.append(self._codec.write(value).decode())
            else:
                row.append(msgspec.to_builtins(value))
        return row

    def record(self, row: Sequence[Any]) -> Any:
        """The state that a row holds: the row becomes the message's JSON again, and that is decoded as ever.

        Raises:
            Unreadable: The row was changed by hand into something that is no such state.
        """
        fields: dict[str, Any] = {}
        for column, value in zip(self.columns, row, strict=True):
            if column.kind == "json" and value is not None:
                fields[column.json_name] = msgspec.Raw(value.encode())
            elif column.kind == "bool" and value is not None:
                fields[column.json_name] = bool(value)
            else:
                fields[column.json_name] = value
        return self._codec.decode(encode_json(fields))


def _fields(kind: MessageType) -> list[tuple[str, str]]:
    """(field, name in JSON) of a class of any of the four models, in order."""
    cls = kind.cls
    if kind.model == "pydantic":
        fields = cls.model_fields.items()
        return [(name, each.serialization_alias or name) for name, each in fields if not each.exclude]
    if hasattr(cls, "__struct_fields__"):
        return list(zip(cls.__struct_fields__, cls.__struct_encode_fields__, strict=True))
    if hasattr(cls, "__attrs_attrs__"):
        return [(attribute.name, attribute.name) for attribute in cls.__attrs_attrs__]
    return [(each.name, each.name) for each in dataclasses.fields(cls)]


def _column(kind: MessageType, name: str, json_name: str, owner: str) -> Column:
    check_table(name, owner)
    members = [getattr(member, "__supertype__", member) for member in flatten(kind.hints[name])]
    present = [member for member in members if member not in (NoneType, None)]
    found = {_kind(member) for member in present}
    plain, exact = found.pop() if len(found) == 1 else ("json", False)
    null = len(present) < len(members) or any(member in (Any, object) for member in members)
    return Column(name, json_name, plain, null, exact)


def _kind(hint: Any) -> tuple[Kind, bool]:
    """What is stored for values of a type, and whether they are stored as they are."""
    if hint in _EXACT:
        return _EXACT[hint], True
    if isinstance(hint, type) and issubclass(hint, _AS_TEXT):
        return "text", False
    values = get_args(hint) if get_origin(hint) is Literal else ()
    if isinstance(hint, type) and issubclass(hint, Enum):
        values = tuple(member.value for member in hint)
    if values and all(type(value) is str for value in values):
        return "text", False
    if values and all(type(value) is int for value in values):
        return "int", False
    return "json", False
