"""Exactness: whether JSON carries a value so that what is read back equals what was written.

For a class, `Fit` compiles a test that answers yes in well under a microsecond for what messages mostly are. Where it
cannot say yes at once, the value is looked at closely: `refuse_lossy` names what JSON cannot hold at all, and
`refuse_changed` compares what was written with what is read back.
"""

from __future__ import annotations

import collections.abc
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from keyword import iskeyword
from math import isfinite
from types import NoneType
from typing import Any, Literal, get_args, get_origin
from uuid import UUID

from tidings.core.message import KEY, TAG
from tidings.core.model import field_hints, field_names, members, metadata
from tidings.core.strict import MAX_DEPTH
from tidings.errors import BadPayload

Test = Callable[[Any], bool]
Accepts = Mapping[type, Test | None]
"""Types a value may have -> the test that its value passes, None where every value will do."""

_SEQUENCES = {list: list, collections.abc.Sequence: list, collections.abc.Iterable: list, tuple: tuple}
_MAPPINGS = (dict, collections.abc.Mapping, collections.abc.MutableMapping)
_SETS = (set, frozenset, collections.abc.Set, collections.abc.MutableSet)
_OPEN = (Any, object, list, dict)  # annotations that say nothing of what is inside
_CURE = "declare the type of the field, or publish text, numbers, true, false, None, lists and dicts"


class Fit:
    """Whether a message fits its class and is exact in JSON: True means certainly, False means look closely.

    Args:
        cls: The class.
        model: Who reads it back: "msgspec" or "pydantic".
        scope: Names its annotations may use.
    """

    def __init__(self, cls: type[Any], model: str, scope: dict[str, Any] | None = None) -> None:
        self._leaves: dict[Any, Accepts] = {
            str: {str: None},
            int: {int: None},
            bool: {bool: None},
            None: {NoneType: None},
            NoneType: {NoneType: None},
            UUID: {UUID: None},
            date: {date: None},
            float: {float: isfinite},
            Decimal: {Decimal: Decimal.is_finite},
            datetime: {datetime: lambda value: value.tzinfo is UTC},
        }
        if model == "msgspec":  # pydantic reads these by rules of its own
            self._leaves |= {bytes: {bytes: None}, timedelta: {timedelta: None}}
            self._leaves[time] = {time: lambda value: value.tzinfo is None or value.tzinfo is UTC}
        anything: dict[type, Test | None] = {str: None, int: None, bool: None, NoneType: None, float: isfinite}
        anything |= {list: _every(anything), dict: _every_value(_every(anything))}
        self._leaves |= {Any: anything, list: {list: anything[list]}, dict: {dict: anything[dict]}}
        self._known: dict[type, Accepts] = {}
        self._names: dict[str, Any] = {"type": type}  # what expressions may mention
        self._expressions: dict[Test, str] = {}  # of the tests of classes, about `value`
        self.test: Test = self._fields(cls, scope)

    def _fields(self, cls: type[Any], scope: dict[str, Any] | None = None) -> Test:
        """The test of an object by its fields, compiled to one expression: three times as fast as a loop over them."""
        decorators = getattr(cls, "__pydantic_decorators__", None)
        if decorators and (decorators.field_serializers or decorators.model_serializers or decorators.computed_fields):
            return _never
        renamed = getattr(cls, "__pydantic_fields__", {}).values()
        if any(each.exclude or each.validation_alias or each.serialization_alias for each in renamed):
            return _never  # it may not be read under the name it is written by
        hints = field_hints(cls, scope)
        if not all(name.isidentifier() and not iskeyword(name) for name in hints):
            return _never
        fits = [self._condition(f"value.{name}", self._accepts(hint)) for name, hint in hints.items()]
        expression = " and ".join(fits) or "True"
        test: Test = eval(f"lambda value: {expression}", self._names)  # noqa: S307 - made of names of fields
        self._expressions[test] = expression
        return test

    def _condition(self, what: str, accepts: Accepts) -> str:
        """The test of one value as an expression. Args: what: the value, as an expression."""
        names = self._names
        number = len(names)
        if len(accepts) == 1:
            [(names[f"t{number}"], check)] = accepts.items()
            if check is None:
                return f"type({what}) is t{number}"
            names[f"c{number}"] = check
            return f"type({what}) is t{number} and c{number}({what})"
        if any(accepts.values()):
            names[f"c{number}"] = _every(accepts)
            return f"c{number}(({what},))"
        names[f"t{number}"] = frozenset(accepts)
        return f"type({what}) in t{number}"

    def _every(self, accepts: Accepts) -> Test:
        """The test of a list or tuple; where it holds objects of one class, without a call for each."""
        if len(accepts) != 1:
            return _every(accepts)
        [(kind, check)] = accepts.items()
        condition = self._condition("value", {kind: None})
        if check is not None:
            if check not in self._expressions:
                return _every(accepts)
            condition = f"{condition} and {self._expressions[check]}"
        source = f"def test(values):\n for value in values:\n  if not ({condition}): return False\n return True"
        made: dict[str, Test] = {}
        exec(source, self._names, made)  # noqa: S102 - as above
        return made["test"]

    def _accepts(self, hint: Any) -> Accepts:
        if any(note is not KEY and note is not TAG for note in metadata(hint)):
            return {}  # a constraint: reading back decides
        accepted: dict[type, Test | None] = {}
        for member in members(hint):
            accepted |= self._accepts_one(member)
        return accepted

    def _accepts_one(self, hint: Any) -> Accepts:
        if hint in self._leaves:
            return self._leaves[hint]
        origin, arguments = get_origin(hint), get_args(hint)
        if origin is Literal:
            return {type(value): arguments.__contains__ for value in arguments if not isinstance(value, Enum)}
        if origin in _SEQUENCES and (len(arguments) == 1 or arguments[1:] == (...,)):
            return {_SEQUENCES[origin]: self._every(self._accepts(arguments[0]))}
        if origin in _MAPPINGS and arguments[0] is str:
            return {dict: _every_value(self._every(self._accepts(arguments[1])))}
        return self._accepts_class(hint) if isinstance(hint, type) else {}

    def _accepts_class(self, cls: type[Any]) -> Accepts:
        if issubclass(cls, Enum):
            return {cls: None} if all(type(member.value) in {str, int} for member in cls) else {}
        if field_names(cls) and cls not in self._known:
            self._known[cls] = {cls: lambda value: test(value)}  # noqa: PLW0108 - a class may mention itself
            test = self._fields(cls)
            self._known[cls] = {cls: test}
        return self._known.get(cls, {})


def types_of(hint: Any, scope: dict[str, Any] | None = None) -> tuple[set[Any], bool]:
    """Every type a class or hint mentions, those of its fields included; and whether values may nest without end.

    Args:
        hint: Where to begin.
        scope: Names the annotations of a class may use.
    """
    visited: set[Any] = set()
    endless = False

    def visit(hint: Any, above: tuple[Any, ...]) -> None:
        nonlocal endless
        for member in members(hint):
            endless = endless or member in above or member in _OPEN
            if member in visited:
                continue
            visited.add(member)
            own = isinstance(member, type) and field_names(member)
            for part in (*get_args(member), *(field_hints(member, None if above else scope).values() if own else ())):
                visit(part, (*above, member))

    visit(hint, ())
    return {get_origin(member) or member for member in visited}, endless


def holds_set(types: set[Any]) -> bool:
    """True where a set is among the types: JSON has none, and its order would differ from process to process."""
    return not types.isdisjoint(_SETS)


def refuse_lossy(value: Any, write: Callable[[Any], bytes], path: str = "data", depth: int = 0) -> None:
    """Do nothing when JSON can hold the value.

    Args:
        value: Any value.
        write: Writes a single value as JSON, or raises.
        path: How it is called.
        depth: Levels above it.

    Raises:
        BadPayload: It holds what JSON would lose or change; names the first such place.
    """
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, float | Decimal):
        if not (value.is_finite() if isinstance(value, Decimal) else isfinite(value)):
            raise _bad(path, f"is {value}, which JSON cannot hold", "publish None, or a number")
    elif isinstance(value, datetime):
        _check_moment(value, path)
    elif isinstance(value, set | frozenset):
        raise _bad(path, "is a set; JSON has none, and its order would be lost", "publish a sorted list")
    elif not _has_parts(value):
        _check_leaf(value, write, path)
    elif depth >= MAX_DEPTH:
        raise _bad(path, f"nests deeper than {MAX_DEPTH} levels", "flatten the message")
    else:
        for name in value if isinstance(value, dict) else ():
            _check_name(name, write, path)
        for segment, part in _parts(value):
            refuse_lossy(part, write, path + segment, depth + 1)


def refuse_changed(written: Any, read: Any, path: str = "data") -> None:
    """Do nothing when what is read back equals what was written, a list in place of a tuple apart.

    Raises:
        BadPayload: It differs; names the first such place.
    """
    if type(written) is type(read) and written == read:
        return
    if _has_parts(written):
        if _alike(written, read):
            for (segment, part), (_, other) in zip(_parts(written), _parts(read), strict=True):
                refuse_changed(part, other, path + segment)
            return
    elif not _has_parts(read) and written == read:
        return
    kind, other = type(written).__qualname__, type(read).__qualname__
    change = f"a {other}" if kind != other else "another value"
    cure = "give the class val_json_bytes='base64'" if isinstance(written, bytes) else _CURE
    raise _bad(path, f"is a {kind}; it would be read back as {change}", cure)


def in_utc(content: Any) -> Any:
    """Content made of lists and dicts with every datetime in UTC."""
    if isinstance(content, datetime):
        return content.astimezone(UTC)
    if isinstance(content, dict):
        return {in_utc(key): in_utc(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [in_utc(value) for value in content]
    return content


def _never(_value: object) -> bool:
    return False


def _every(accepts: Accepts) -> Test:
    """The test of a list or tuple."""

    def test(values: Any) -> bool:
        for value in values:
            kind = type(value)
            if kind not in accepts or ((check := accepts[kind]) is not None and not check(value)):
                return False
        return True

    return test


def _every_value(every: Test) -> Test:
    """The test of a dict, whose values are tested by `every`."""
    return lambda value: all(type(key) is str for key in value) and every(value.values())


def _parts(value: Any) -> list[tuple[str, Any]]:
    """What a value consists of: path segment and value; nothing for a single value."""
    if isinstance(value, dict):
        return [(f".{key}", part) for key, part in value.items()]
    if isinstance(value, list | tuple):
        return [(f"[{index}]", part) for index, part in enumerate(value)]
    return [(f".{name}", getattr(value, name, None)) for name in field_names(type(value))]


def _alike(written: Any, read: Any) -> bool:
    """True where two values that have parts have the same ones."""
    if isinstance(written, dict):
        return isinstance(read, dict) and list(written) == list(read)
    if isinstance(written, list | tuple):
        return isinstance(read, list | tuple) and len(written) == len(read)
    return type(written) is type(read)


def _has_parts(value: Any) -> bool:
    return isinstance(value, dict | list | tuple) or bool(field_names(type(value)))


def _check_moment(value: datetime, path: str) -> None:
    if value.utcoffset() is None:
        raise _bad(path, f"is a datetime without a time zone: {value}", "use an aware one: datetime.now(UTC)")
    try:
        value.astimezone(UTC)
    except OverflowError:
        raise _bad(path, f"is before the year 1 or after 9999 in UTC: {value}", "publish a date in range") from None


def _check_name(name: Any, write: Callable[[Any], bytes], path: str) -> None:
    try:
        write({name: None})
    except Exception as error:
        raise _bad(path, f"has the name {ascii(name)[:40]}, which JSON cannot hold", "use text for names") from error


def _check_leaf(value: Any, write: Callable[[Any], bytes], path: str) -> None:
    try:
        write(value)
    except UnicodeEncodeError:
        raise _bad(path, "holds a lone surrogate", "decode the text it came from with the right encoding") from None
    except ValueError as error:  # a whole number of more than 4,300 digits
        raise _bad(path, f"cannot be written: {error}", "publish it as text") from error
    except Exception as error:
        raise _bad(path, f"is a {type(value).__qualname__}, which cannot be written as JSON", _CURE) from error


def _bad(path: str, what: str, cure: str) -> BadPayload:
    shown = path if len(path) <= _LONGEST_PATH else f"{path[:_LONGEST_PATH]}..."
    return BadPayload(f"{shown} {what}", cure, path=shown)


_LONGEST_PATH = 200
