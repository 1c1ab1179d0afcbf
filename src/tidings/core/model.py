"""The classes users bring (dataclass, attrs, msgspec.Struct, pydantic): what their fields are, whoever made them."""

from __future__ import annotations

import dataclasses
import inspect
import sys
from collections.abc import Iterator
from enum import Enum
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from tidings.errors import BadDeclaration

T = TypeVar("T")
Model = Literal["msgspec", "pydantic"]
"""Who reads and writes a class: msgspec (also dataclass and attrs), or pydantic."""

_SINGLE = frozenset({str, int, float, bool, bytes, NoneType})
_NO_OBJECT = (tuple, list, dict, set, frozenset, str, bytes, int, float, Enum)


def as_model(cls: type[T]) -> tuple[type[T], Model]:
    """The class as one that has fields (a plain one becomes a frozen dataclass), and who reads and writes it.

    Raises:
        BadDeclaration: Its JSON would be no object with named fields, or would lose some of them.
    """
    title = getattr(cls, "__qualname__", repr(cls))
    if not isinstance(cls, type) or issubclass(cls, _NO_OBJECT):
        raise _unnamed(title)
    pydantic = sys.modules.get("pydantic")  # a pydantic class exists only where pydantic is loaded already
    if pydantic is not None and issubclass(cls, pydantic.BaseModel):
        if issubclass(cls, pydantic.RootModel):
            raise _unnamed(title)
        return cls, "pydantic"
    config = getattr(cls, "__struct_config__", None)
    if config is not None:
        if config.array_like:
            raise _unnamed(title)
    elif hasattr(cls, "__attrs_attrs__"):
        if "__attrs_attrs__" not in cls.__dict__:
            raise BadDeclaration(f"{title} inherits from an attrs class and is none itself", "put @attrs.frozen on it")
    elif "__dataclass_fields__" not in cls.__dict__:
        cls = _dataclass(cls)
    return cls, "msgspec"


def field_names(cls: type[Any]) -> tuple[str, ...]:
    """The fields of a class, in order; none for a class that is no model."""
    if hasattr(cls, "__struct_fields__"):
        return tuple(cls.__struct_fields__)
    if hasattr(cls, "__attrs_attrs__"):
        return tuple(attribute.name for attribute in cls.__attrs_attrs__)
    if hasattr(cls, "__pydantic_fields__"):
        return tuple(cls.__pydantic_fields__)
    return tuple(each.name for each in dataclasses.fields(cls)) if dataclasses.is_dataclass(cls) else ()


def field_hints(cls: type[Any], scope: dict[str, Any] | None = None) -> dict[str, Any]:
    """Field -> annotation with its markers, in order.

    Args:
        cls: A class that has fields.
        scope: From `scope_of`.

    Raises:
        NameError: An annotation names what cannot be found, perhaps not yet.
    """
    if hasattr(cls, "__pydantic_fields__"):
        fields = cls.__pydantic_fields__.items()
        return {name: Annotated[(it.annotation, *it.metadata)] if it.metadata else it.annotation for name, it in fields}
    found = get_type_hints(cls, localns=scope, include_extras=True)
    if scope is not None:  # msgspec looks in the module only: leave it what was found here
        cls.__annotations__ = {name: found.get(name, hint) for name, hint in inspect.get_annotations(cls).items()}
    return {name: found[name] for name in field_names(cls)}


def as_dicts(value: Any) -> Any:
    """The value with its attrs objects as dicts: msgspec writes those by name and leaves private fields out."""
    if type(value) in _SINGLE:
        return value
    if isinstance(value, list | tuple):
        return [as_dicts(part) for part in value]
    if isinstance(value, dict):
        return {name: as_dicts(part) for name, part in value.items()}
    names = () if hasattr(value, "__struct_fields__") else field_names(type(value))
    return {name: as_dicts(getattr(value, name)) for name in names} if names else value


def scope_of(cls: type[Any]) -> dict[str, Any] | None:
    """The names that a class defined inside a function can use, where its annotations are texts; else None."""
    hints = [hint for each in cls.__mro__[:-1] for hint in inspect.get_annotations(each).values()]
    if "<locals>" not in cls.__qualname__ or not any(isinstance(hint, str) for hint in hints):
        return None
    frame = inspect.currentframe()
    while frame is not None and frame.f_globals.get("__name__", "").startswith("tidings.core."):
        frame = frame.f_back
    return {**(frame.f_locals if frame is not None else {}), cls.__name__: cls}


def members(hint: Any) -> Iterator[Any]:
    """The types a value may have: unions, aliases, `NewType` and `Annotated` opened."""
    while hasattr(hint, "__value__") or hasattr(hint, "__supertype__"):  # `type Id = str`, NewType("Id", str)
        hint = hint.__value__ if hasattr(hint, "__value__") else hint.__supertype__
    if get_origin(hint) in {Union, UnionType}:
        for member in get_args(hint):
            yield from members(member)
    elif get_origin(hint) is Annotated:
        yield from members(get_args(hint)[0])
    else:
        yield hint


def metadata(hint: Any) -> Iterator[object]:
    """What `Annotated` adds to a hint, also to members of a union."""
    while hasattr(hint, "__value__"):
        hint = hint.__value__
    if get_origin(hint) is Annotated:
        yield from get_args(hint)[1:]
        yield from metadata(get_args(hint)[0])
    elif get_origin(hint) in {Union, UnionType}:
        for member in get_args(hint):
            yield from metadata(member)


def _dataclass(cls: type[T]) -> type[T]:
    title = cls.__qualname__
    if "__init__" in cls.__dict__:
        raise BadDeclaration(f"{title} has an __init__ of its own", "annotate its fields instead: `order_id: Key[str]`")
    parent = getattr(cls, "__dataclass_params__", None)
    try:
        return dataclasses.dataclass(frozen=parent is None or parent.frozen)(cls)
    except (TypeError, ValueError) as error:
        raise BadDeclaration(f"{title} cannot be a dataclass: {error}", "correct the field") from error


def _unnamed(title: str) -> BadDeclaration:
    cure = "use a dataclass, attrs, msgspec.Struct or pydantic class"
    return BadDeclaration(f"{title} cannot be a message: its JSON would have no named fields", cure)
