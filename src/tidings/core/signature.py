"""Signatures: which messages a function is for, and what each of its parameters receives."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from types import CellType, SimpleNamespace, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from tidings.core.envelope import Envelope
from tidings.core.message import Gone, MessageType, message_type
from tidings.core.transaction import Transaction
from tidings.errors import BadHandler

Takes = Literal["tx", "envelope", "fetched"]

UNKNOWN: Any = object()
"""Stands for an annotation that is missing or names what cannot be found."""

_EMPTY = CellType()  # equal to a closure's variable that has no value yet
_BY_ANNOTATION: dict[Any, Takes] = {Transaction: "tx", Envelope: "envelope"}
_ALLOWED = "after the message come only `tx: Transaction` and `envelope: Envelope`"


@dataclass(frozen=True)
class Form:
    """The messages that a class or union names.

    Attributes:
        types: The message types in order, without repeats.
        gone: True where `Gone` is part of the union.
    """

    types: tuple[MessageType, ...]
    gone: bool = False


@dataclass(frozen=True)
class Call:
    """How a handler is called.

    Attributes:
        where: "module:qualname (file:line)".
        takes: What each parameter after the message receives, in order.
        is_async: True where calling it gives an awaitable.
    """

    where: str
    takes: tuple[Takes, ...]
    is_async: bool


def split(form: object) -> Form:
    """The messages named by `A`, `A | B`, `State | Gone`, an alias of them, or a part of them in `Annotated`.

    Raises:
        NotAMessage: A member is no message class.
        BadHandler: `Gone` stands without a state.
    """
    members = list(flatten(form))
    gone = Gone in members
    types = tuple(dict.fromkeys(message_type(member) for member in members if member is not Gone))
    if gone and not any(kind.kind == "state" for kind in types):
        raise BadHandler("Gone stands without a state", "name the state whose tombstones are wanted: `Customer | Gone`")
    return Form(types, gone)


def flatten(form: object) -> Iterator[Any]:
    """The members of a union, with aliases and `Annotated` opened; a class is its own only member."""
    while hasattr(form, "__value__"):  # a TypeAliasType: `type Event = A | B`
        form = form.__value__
    if get_origin(form) in (Union, UnionType):
        for member in get_args(form):
            yield from flatten(member)
    elif get_origin(form) is Annotated:
        yield from flatten(get_args(form)[0])
    else:
        yield form


def location(function: Callable[..., Any]) -> str:
    """Where a function is defined: "module:qualname (file:line)"."""
    inner = _innermost(function)
    name = getattr(inner, "__qualname__", type(inner).__qualname__)
    code = getattr(_function(inner), "__code__", None)
    place = f" ({code.co_filename}:{code.co_firstlineno})" if code is not None else ""
    return f"{_module(inner)}:{name}{place}"


def _module(function: object) -> str:
    """The module by the name it is imported under, also where it is the program itself: both are one handler."""
    name = getattr(function, "__module__", None) or "?"
    main = sys.modules.get("__main__")
    if name != "__main__" or main is None:
        return str(name)
    spec, file = getattr(main, "__spec__", None), getattr(main, "__file__", None)
    if spec is not None:
        return str(spec.name)
    return PurePath(file).stem if file else name


def handler_name(function: Callable[..., Any]) -> str | None:
    """The name by which a function's group is called, or None where it has none, as a lambda or a callable object."""
    name = getattr(_innermost(function), "__name__", None)
    return name if isinstance(name, str) and name.isidentifier() else None


def is_async(function: Callable[..., Any]) -> bool:
    """True where calling the function gives an awaitable, also through `functools.partial` and `functools.wraps`."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(_function(_innermost(function)))


def resolved(function: Callable[..., Any], extra: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The parameters' annotations and "return", each resolved on its own; UNKNOWN where a name cannot be found.

    Args:
        function: Any function.
        extra: Names to fall back on: an import under `TYPE_CHECKING` is then found, as is a class of the caller.
    """
    inner = _function(_innermost(function))
    scope = {**(extra or {}), **getattr(inner, "__globals__", {})}
    cells = zip(inner.__code__.co_freevars, inner.__closure__ or (), strict=True) if hasattr(inner, "__code__") else ()
    scope.update({name: cell.cell_contents for name, cell in cells if cell != _EMPTY})
    found: dict[str, Any] = {}
    for name, raw in getattr(inner, "__annotations__", {}).items():
        try:
            found[name] = get_type_hints(SimpleNamespace(__annotations__={name: raw}), scope, include_extras=True)[name]
        except NameError:
            found[name] = UNKNOWN
        except Exception as error:
            msg = f"{location(function)}: the annotation of {name!r} cannot be read: {error}"
            raise BadHandler(msg, "make it a type") from error
    return found


def inspect_handler(function: Callable[..., Any], form: Form, *, fetched: bool = False) -> Call:
    """Check that a function can handle these messages, and find out how it is called.

    Args:
        function: The user's function.
        form: What it is subscribed to.
        fetched: True where its second parameter receives what `fetch` returned.

    Raises:
        BadHandler: It cannot be called as declared; names where it is defined.
    """
    where = location(function)
    if inspect.isgeneratorfunction(_innermost(function)) or inspect.isasyncgenfunction(_innermost(function)):
        raise BadHandler(f"{where} yields", "return a list of messages")
    extra = {"Transaction": Transaction, "Envelope": Envelope, "Gone": Gone}
    extra.update({kind.cls.__name__: kind.cls for kind in form.types})
    hints = resolved(function, extra)
    positional = _positional(function, where)
    first = 2 if fetched else 1
    if len(positional) < first:
        cure = "take the message, then what `fetch` returned" if fetched else "take the message as the first parameter"
        raise BadHandler(f"{where} takes {len(positional)} parameters", cure)
    _check_message(hints.get(positional[0].name, UNKNOWN), form, where)
    takes = _takes(positional[first:], hints, where)
    asynchronous = is_async(function)
    if "tx" in takes and not asynchronous:
        raise BadHandler(f"{where} takes tx but is a plain function", "write `async def`; statements then run at once")
    return Call(where, ("fetched", *takes) if fetched else takes, asynchronous)


def _takes(parameters: list[inspect.Parameter], hints: dict[str, Any], where: str) -> tuple[Takes, ...]:
    takes: list[Takes] = []
    optional = ""
    for parameter in parameters:
        hint = hints.get(parameter.name, UNKNOWN)
        what = _BY_ANNOTATION.get(hint) if isinstance(hint, type) else None
        if what is None and (parameter.default is not parameter.empty or parameter.kind is parameter.VAR_POSITIONAL):
            optional = parameter.name  # keeps its default; nothing can be passed behind it
            continue
        if what is None:
            known = (
                "has no annotation"
                if parameter.annotation is parameter.empty
                else f"is annotated {hint_name(hint, parameter)}"
            )
            raise BadHandler(f"{where}: the parameter {parameter.name!r} {known}", _ALLOWED)
        if what in takes:
            raise BadHandler(f"{where} takes {what} twice", "remove one of the parameters")
        if optional:
            raise BadHandler(
                f"{where}: {parameter.name!r} comes after {optional!r}, which has a default", "move it forward"
            )
        takes.append(what)
    return tuple(takes)


def hint_name(hint: Any, parameter: inspect.Parameter) -> str:
    """An annotation as its author wrote it, for messages."""
    raw = parameter.annotation if isinstance(parameter.annotation, str) else None
    return raw or getattr(hint, "__name__", None) or repr(hint)


def _positional(function: Callable[..., Any], where: str) -> list[inspect.Parameter]:
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (ValueError, TypeError, NameError) as error:
        raise BadHandler(f"{where} has no signature that can be read: {error}", "wrap it in an `async def`") from error
    for parameter in parameters:
        if parameter.kind is parameter.KEYWORD_ONLY and parameter.default is parameter.empty:
            raise BadHandler(f"{where}: {parameter.name!r} is keyword-only", "remove the `*` in front of it")
    return [each for each in parameters if each.kind not in (each.KEYWORD_ONLY, each.VAR_KEYWORD)]


def _check_message(hint: Any, form: Form, where: str) -> None:
    """Refuse a first parameter whose annotation does not admit every subscribed message."""
    if hint is UNKNOWN:
        return
    members = list(flatten(hint))
    if not all(isinstance(member, type) and member is not Any for member in members):
        return  # a type variable, a protocol with parameters: the type checker's part
    wanted = [kind.cls for kind in form.types] + ([Gone] if form.gone else [])
    for cls in wanted:
        if not any(member is object or _is_subclass(cls, member) for member in members):
            named = " | ".join(member.__name__ for member in members)
            asked = " | ".join(each.__name__ for each in wanted)
            msg = f"{where} is subscribed to {asked} but takes {named}"
            raise BadHandler(msg, f"annotate the message as {asked}, or subscribe to {named} only")


def _is_subclass(cls: type, member: type) -> bool:
    try:
        return issubclass(cls, member)
    except TypeError:  # a protocol with attributes
        return True


def _innermost(function: Any) -> Any:
    """The function that a person wrote, behind partials, `functools.wraps` and bound methods."""
    while True:
        if isinstance(function, functools.partial):
            function = function.func
        elif hasattr(function, "__wrapped__"):
            function = function.__wrapped__
        elif inspect.ismethod(function):
            function = function.__func__
        else:
            return function


def _function(inner: Any) -> Any:
    """The function itself, or the `__call__` of a callable object."""
    return inner if inspect.isfunction(inner) else getattr(type(inner), "__call__", inner)  # noqa: B004 - not asking whether
