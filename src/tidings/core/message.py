"""Messages: the decorators that make a class an event, a state or a command, and what they record about it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum, IntEnum, StrEnum
from functools import cached_property
from types import NoneType
from typing import Annotated, Any, Literal, TypeVar, dataclass_transform, overload
from uuid import UUID

from tidings.core.model import Model, as_model, field_hints, members, metadata, scope_of
from tidings.errors import BadArgument, BadDeclaration, NotAMessage

T = TypeVar("T")
Kind = Literal["event", "state", "command"]


class _Marker:
    """What `Key[...]` and `Tag[...]` leave in a field's annotation."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return self.name


KEY = _Marker("tidings.Key")
TAG = _Marker("tidings.Tag")

Key = Annotated[T, KEY]
"""Marks the one field that orders, partitions, names the stream and the replica row: `order_id: Key[str]`."""

Tag = Annotated[T, TAG]
"""Marks a field as a label by which events are queried: `course: Tag[str]`."""

MAX_NAME = 200
MAX_KEY = 512
"""Longest key in bytes of UTF-8. Keys are compared byte for byte: no Unicode normalisation."""

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*(?:[.\-:][A-Za-z0-9_]+)*")
_RESERVED = "tidings."
_SHOWN = 60  # characters of a wrong value in a message


@dataclass(frozen=True)
class MessageType:
    """What a decorator records about a class.

    Attributes:
        cls: The user's class.
        kind: "event", "state" or "command".
        name: Stable name, the CloudEvents `type`.
        schema: Version of the schema, from 1.
        topic: Where it is published, for a command the address of the app that handles it; None keeps it private to its
            app.
        was: Earlier names under which stored messages are still read.
        model: Who reads and writes the class: "msgspec" (also dataclass and attrs) or "pydantic".
        scope: Names of the function that defines the class, when its annotations cannot be found otherwise.
    """

    cls: type[Any]
    kind: Kind
    name: str
    schema: int
    topic: str | None
    was: tuple[str, ...] = ()
    model: Model = field(default="msgspec", compare=False)
    scope: dict[str, Any] | None = field(default=None, compare=False, repr=False)

    @cached_property
    def hints(self) -> dict[str, Any]:
        """Field -> annotation with its markers, in the order of the class; resolved on first use.

        Raises:
            BadDeclaration: An annotation names what cannot be found.
        """
        try:
            return field_hints(self.cls, self.scope)
        except NameError as error:
            msg = f"{self.cls.__qualname__}: an annotation cannot be resolved: {error}"
            raise BadDeclaration(msg, "define or import the named type in the module of the class") from error

    @cached_property
    def key_field(self) -> str | None:
        """Name of the field marked `Key[...]`, or None for a message without a key.

        Raises:
            BadDeclaration: Several fields are marked, or one that cannot be a key, or none in a state.
        """
        marked = list(self._marked(KEY))
        if len(marked) > 1:
            msg = f"{self.cls.__qualname__} marks {len(marked)} fields as Key: {', '.join(marked)}"
            raise BadDeclaration(msg, "a message has one key; use Tag for the other fields")
        if not marked and self.kind == "state":
            msg = f"{self.cls.__qualname__} is a state without a key"
            raise BadDeclaration(msg, "mark the field that names the record: `customer_id: Key[str]`")
        for name in marked:
            for hint in members(self.hints[name]):
                if not _is_key(hint):
                    msg = f"{self.cls.__qualname__}.{name} is a Key of {getattr(hint, '__name__', hint)}"
                    raise BadDeclaration(msg, "a key is text, a whole number or a UUID: Key[str], Key[int], Key[UUID]")
        return marked[0] if marked else None

    @cached_property
    def tag_fields(self) -> tuple[str, ...]:
        """Names of the fields marked `Tag[...]`."""
        return tuple(self._marked(TAG))

    def key_of(self, message: object) -> str | None:
        """The key of a message as text; None where the type has none or the field holds None.

        Raises:
            BadArgument: The key is empty, longer than 512 bytes, or holds NUL or a lone surrogate.
        """
        name = self.key_field
        if name is None:
            return None
        value = getattr(message, name)
        if value is None:
            return None
        return check_key(value, self.name)

    def _marked(self, marker: _Marker) -> Iterator[str]:
        for name, hint in self.hints.items():
            if marker in metadata(hint):
                yield name


@dataclass(frozen=True)
class Gone:
    """Says that the record of a key no longer exists: `publish(Gone(Customer, "c-1"))`.

    Args:
        state: The state class.
        key: Its key.
    """

    state: type[Any]
    key: Any


def check_key(value: object, owner: str) -> str:
    """A key as text, when it can be stored and sent everywhere.

    Args:
        value: Text, a whole number or a UUID.
        owner: Whose key it is, for the message.

    Raises:
        BadArgument: It is empty, longer than 512 bytes of UTF-8, or holds NUL or a lone surrogate.
    """
    key = value if type(value) is str else str(value)
    try:
        size = len(key.encode())
    except UnicodeEncodeError:
        msg = f"{owner}: the key {key!r} holds a lone surrogate"
        raise BadArgument(msg, "decode the text it came from with the right encoding") from None
    if not 0 < size <= MAX_KEY or "\0" in key:
        msg = f"{owner}: the key {_short(key)} has {size} bytes{' and a NUL' if chr(0) in key else ''}"
        raise BadArgument(msg, f"a key has 1 to {MAX_KEY} bytes of UTF-8 without NUL; None means unordered")
    return key


def check_name(name: str, what: str) -> str:
    """The name itself, when it is a stable name: letters, digits and `_`, parts joined by `.`, `-` or `:`.

    Raises:
        BadDeclaration: It is empty, too long, of another form or reserved.
    """
    if not isinstance(name, str) or len(name) > MAX_NAME or not _NAME.fullmatch(name) or name.startswith(_RESERVED):
        msg = f"{what} is named {_short(name)}"
        cure = (
            f"use letters, digits and _ in parts joined by . - or :, starting with a letter, at most {MAX_NAME} "
            f"characters, not starting with {_RESERVED!r}"
        )
        raise BadDeclaration(msg, cure)
    return name


def check_app(name: str, what: str) -> str:
    """The name itself, when an app can have it.

    Raises:
        BadDeclaration: It is no stable name, or has a dot.
    """
    if "." in check_name(name, what):
        raise BadDeclaration(f"{what} is named {name!r}", "leave out the dot: it ends the app's name in groups")
    return name


def address_of(app: str) -> str:
    """The topic of what is for one app alone: its commands, and what other apps answer it."""
    return f"{_RESERVED}{app}"


def addressee(topic: str) -> str | None:
    """The app that alone receives what is published to a topic; None for a topic that all may subscribe to."""
    return topic.removeprefix(_RESERVED) if topic.startswith(_RESERVED) else None


def _is_key(hint: Any) -> bool:
    """True for types whose `str()` is what their JSON holds."""
    if not isinstance(hint, type) or hint is bool:
        return False
    return issubclass(hint, StrEnum | IntEnum if issubclass(hint, Enum) else str | int | UUID | NoneType)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def message_type(cls: object) -> MessageType:
    """What a decorator recorded about this very class (not about a parent of it).

    Raises:
        NotAMessage: The object is no class that carries `@event`, `@state` or `@command`.
    """
    found = cls.__dict__.get("__tidings__") if isinstance(cls, type) else None
    if isinstance(found, MessageType):
        return found
    named = cls.__qualname__ if isinstance(cls, type) else f"a {type(cls).__qualname__}"
    msg = f"{named} is not a message"
    if getattr(cls, "__module__", None) == "builtins" or not isinstance(cls, type):
        raise NotAMessage(msg, "give an object of your own class, decorated with `@event(topic=...)`")
    raise NotAMessage(msg, f"decorate the class: `@event(topic=...)` above `class {named}`")


def _declare(
    cls: type[T], kind: Kind, *, topic: str | None, name: str | None, version: int, was: tuple[str, ...]
) -> type[T]:
    title = getattr(cls, "__qualname__", repr(cls))
    given: object = cls  # a caller without a type checker may give anything
    if not isinstance(given, type):
        option = "app" if kind == "command" else "topic"
        cure = f'decorate a class, and give its {option} by name: `@{kind}({option}="orders")`'
        raise BadDeclaration(f"{title} cannot be a message: it is no class", cure)
    if "__tidings__" in getattr(cls, "__dict__", ()):
        raise BadDeclaration(f"{title} is declared a message twice", "keep one of the decorators")
    cls, model = as_model(cls)
    check_name(cls.__name__ if name is None else name, f"the message class {title}")
    if kind == "state" and ":" in (name or title):
        raise BadDeclaration(f"the state {title} is named {name!r}", "leave out the colon: it ends the name in streams")
    if isinstance(version, bool) or not isinstance(version, int) or not 1 <= version < 2**31:  # as CloudEvents has it
        raise BadDeclaration(f"{title} has version={version!r}", "versions are whole numbers from 1 to 2147483647")
    if topic is not None and kind != "command":
        check_name(topic, f"the topic of {title}")
    if not isinstance(was, tuple):
        raise BadDeclaration(f"{title} has was={was!r}", f"give the earlier names as a tuple: was=({was!r},)")
    for old in was:
        check_name(old, f"an earlier name of {title}")
    found = MessageType(cls, kind, name or cls.__name__, version, topic, was, model, scope_of(cls))
    try:
        _ = found.key_field
    except BadDeclaration as error:
        if not isinstance(error.__cause__, NameError):  # what is defined further down is found when the app starts
            raise
    cls.__tidings__ = found  # type: ignore[attr-defined]
    return cls


@overload
def event(cls: type[T], /) -> type[T]: ...
@overload
def event(
    *, topic: str | None = None, name: str | None = None, version: int = 1, was: tuple[str, ...] = ()
) -> Callable[[type[T]], type[T]]: ...
@dataclass_transform(frozen_default=True)
def event(
    cls: type[T] | None = None,
    /,
    *,
    topic: str | None = None,
    name: str | None = None,
    version: int = 1,
    was: tuple[str, ...] = (),
) -> type[T] | Callable[[type[T]], type[T]]:
    """Declare an event: a fact, named in the past tense.

    The class becomes a frozen dataclass unless it already is a dataclass, attrs, msgspec.Struct or pydantic class.

    Args:
        cls: The class, when used without parentheses.
        topic: Where it is published. None keeps it in its own store, for histories, projections and handlers of the
            same app.
        name: Stable name; the class's own name if not given. Never an import path, so that code can move.
        version: Version of the schema, from 1. Raise it when a change would break readers.
        was: Earlier names of the same event; messages stored under them are still read.

    Returns:
        The class, registered.

    Raises:
        BadDeclaration: A name, version or the class itself cannot be used.
    """

    def declare(cls: type[T]) -> type[T]:
        return _declare(cls, "event", topic=topic, name=name, version=version, was=was)

    return declare if cls is None else declare(cls)


@dataclass_transform(frozen_default=True)
def state(*, topic: str, name: str | None = None, version: int = 1) -> Callable[[type[T]], type[T]]:
    """Declare a state: the whole current record of one key, published so that others can keep a replica.

    Args:
        topic: Where it is published.
        name: Stable name; the class's own name if not given. Give it when you rename the class: the versions of the
            records are counted by name, so that there are no earlier ones.
        version: Version of the schema, from 1.

    Returns:
        A decorator that registers the class; its `Key` field names the record.

    Raises:
        BadDeclaration: A name, version or the class itself cannot be used.
    """
    return lambda cls: _declare(cls, "state", topic=topic, name=name, version=version, was=())


@overload
def command(cls: type[T], /) -> type[T]: ...
@overload
def command(
    *, app: str | None = None, name: str | None = None, version: int = 1, was: tuple[str, ...] = ()
) -> Callable[[type[T]], type[T]]: ...
@dataclass_transform(frozen_default=True)
def command(
    cls: type[T] | None = None,
    /,
    *,
    app: str | None = None,
    name: str | None = None,
    version: int = 1,
    was: tuple[str, ...] = (),
) -> type[T] | Callable[[type[T]], type[T]]:
    """Declare a command: it asks for something and may be refused, and has exactly one handler.

    Args:
        cls: The class, when used without parentheses.
        app: Name of the app that handles it, and no other may; None for a command that stays in its own app.
        name: Stable name; the class's own name if not given.
        version: Version of the schema, from 1.
        was: Earlier names of the same command.

    Returns:
        The class, registered.

    Raises:
        BadDeclaration: A name, version or the class itself cannot be used.
    """

    def declare(cls: type[T]) -> type[T]:
        topic = None if app is None else address_of(check_app(app, f"the app that handles {cls.__name__}"))
        return _declare(cls, "command", topic=topic, name=name, version=version, was=was)

    return declare if cls is None else declare(cls)
