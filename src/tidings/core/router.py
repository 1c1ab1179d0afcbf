"""Routers: collect handlers with `@router.on(...)` and check, before anything runs, that each can be called."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from inspect import isfunction
from typing import Any, Concatenate, ParamSpec, TypeVar, overload

from typing_extensions import TypeForm

from tidings.core.guarantees import Needs
from tidings.core.message import MessageType, address_of, check_name
from tidings.core.retry import Retry
from tidings.core.schema import parse_schema
from tidings.core.signature import Form, handler_name, inspect_handler, location, split
from tidings.core.subscription import OnDead, Start, Subscription
from tidings.errors import BadDeclaration, BadHandler, GroupConflict

E = TypeVar("E")
F = TypeVar("F")
R = TypeVar("R")
T = TypeVar("T")
P = ParamSpec("P")


@dataclass(frozen=True)
class _Entry:
    """One `.on(...)`: its function and options, checked when the app starts."""

    form: Form
    function: Callable[..., Any]
    group: str
    options: dict[str, Any]


class Router:
    """A collection of handlers, declared without I/O and handed to an app.

    Args:
        name: Shown in messages; handlers are told apart by their groups, not by their router.
    """

    def __init__(self, name: str = "router") -> None:
        self._name = check_name(name, "a router")
        self._entries: list[_Entry] = []

    @property
    def name(self) -> str:
        """The name given."""
        return self._name

    @overload
    def on(
        self,
        types: TypeForm[E],
        *,
        group: str | None = None,
        retry: Retry | None = None,
        needs: Needs | None = None,
        concurrency: int = 16,
        start: Start = "earliest",
        on_dead: OnDead = "park",
        newest: bool = False,
        fetch: None = None,
    ) -> Callable[[Callable[Concatenate[E, P], R]], Callable[Concatenate[E, P], R]]: ...
    @overload
    def on(
        self,
        types: TypeForm[E],
        *,
        fetch: Callable[[E], Awaitable[F]],
        group: str | None = None,
        retry: Retry | None = None,
        needs: Needs | None = None,
        concurrency: int = 16,
        start: Start = "earliest",
        on_dead: OnDead = "park",
        newest: bool = False,
    ) -> Callable[[Callable[Concatenate[E, F, P], R]], Callable[Concatenate[E, F, P], R]]: ...
    def on(
        self,
        types: object,
        *,
        group: str | None = None,
        retry: Retry | None = None,
        needs: Needs | None = None,
        concurrency: int = 16,
        start: Start = "earliest",
        on_dead: OnDead = "park",
        newest: bool = False,
        fetch: Callable[[Any], Awaitable[Any]] | None = None,
    ) -> Any:
        """Register the decorated function as the handler of one message type or of a union of them (`A | B`).

        The function takes the message, then, by annotation and in any order, `tx: Transaction` and
        `envelope: Envelope`. It may be plain (it then runs in a thread, without `tx`). It returns a message, an
        iterable of messages, or None; what it returns is published together with the acknowledgement.

        Args:
            types: The message class, or a union of classes. `State | Gone` includes the tombstones of the state.
            group: Name of the group; the function's own name if not given. Workers of a group share its deliveries.
            retry: How failures are tried again; `Retry()` if not given.
            needs: What the handler needs of the broker.
            concurrency: Keys handled at once, 1 or more. One key is always handled in order.
            start: Where the group starts when it is new: "earliest", "latest", or the position after which it starts.
            on_dead: "park" holds later messages of a key with a dead letter; "skip" lets them pass.
            newest: Handle only the newest waiting message of each key and type; older ones are acknowledged unseen.
            fetch: Called with the message first; its result is the function's second argument.

        Returns:
            A decorator that returns the function unchanged.

        Raises:
            NotAMessage: One of the types is no message class.
            BadHandler: The function is not callable, or an option is out of its range. Its signature is checked when
                the app starts, so that annotations may name what is defined further down.
        """

        def register(function: Any) -> Any:
            if not callable(function):
                raise BadHandler(f"{function!r} is not callable", "put `@app.on(...)` above an `async def`")
            if isinstance(function, type):
                raise BadHandler(f"{location(function)} is a class", "handlers are functions, one per group")
            where = location(function)
            _check_numbers(concurrency, start, on_dead, where)
            options = {
                "retry": _option(retry, Retry, "retry", where),
                "needs": _option(needs, Needs, "needs", where),
                "concurrency": concurrency,
                "start": start,
                "on_dead": on_dead,
                "newest": newest,
                "fetch": fetch,
            }
            if fetch is not None and not callable(fetch):
                raise BadHandler(f"{where}: fetch={fetch!r} is not callable", "give an async function of the message")
            name = group if group is not None else handler_name(function)
            if name is None:
                raise BadHandler(f"{where} has no name of its own", 'name its group: `on(..., group="receipts")`')
            self._entries.append(_Entry(form, function, check_name(name, f"the group of {where}"), options))
            return function

        if isfunction(types):
            cure = "name what it handles: `@app.on(OrderPlaced)`"
            raise BadHandler(f"`on` stands above {location(types)} without parentheses", cure)
        form = split(types)
        return register

    def subscriptions(self) -> Sequence[Subscription]:
        """The handlers, each with its group, in the order of declaration.

        Raises:
            BadHandler: A handler cannot be called as declared, or two share a group or a command.
        """
        found = [self._subscription(entry) for entry in self._entries]
        check_together(found)
        return found

    def message_types(self) -> Sequence[MessageType]:
        """Every message type that has a handler here."""
        return tuple(dict.fromkeys(kind for entry in self._entries for kind in entry.form.types))

    @staticmethod
    def _subscription(entry: _Entry) -> Subscription:
        call = inspect_handler(entry.function, entry.form, fetched=entry.options["fetch"] is not None)
        return Subscription(
            group=entry.group,
            types=entry.form.types,
            handler=entry.function,
            where=call.where,
            takes=call.takes,
            is_async=call.is_async,
            tombstones=entry.form.gone,
            **entry.options,
        )


def check_together(subscriptions: Sequence[Subscription]) -> None:
    """Refuse what cannot run in one app: two handlers in one group, a command with two handlers, a table made twice.

    Args:
        subscriptions: All of one app, of its own handlers and of its parts.

    Raises:
        BadHandler: Names both places; or a handler takes two classes that read one stored name.
        BadDeclaration: Two parts create one table.
    """
    groups: dict[str, str] = {}
    commands: dict[str, str] = {}
    tables: dict[str, str] = {}
    for subscription in subscriptions:
        where = subscription.where
        if subscription.group in groups:
            other, cure = groups[subscription.group], 'rename one, or give it a group: `on(..., group="receipts")`'
            if other == where:
                cure = "subscribe it once: `on(A | B)`"
            raise BadHandler(f"two handlers share the group {subscription.group!r}: {other} and {where}", cure)
        groups[subscription.group] = where
        _check_names(subscription)
        for kind in subscription.commands:
            if kind.name in commands:
                msg = f"the command {kind.name} is handled twice: by {commands[kind.name]} and by {where}"
                raise BadHandler(msg, "a command has exactly one handler: remove one, or publish an event")
            commands[kind.name] = where
        for table in parse_schema(subscription.schema, where).tables if subscription.schema else ():
            if table.lower() in tables:
                msg = f"two parts create the table {table}: {tables[table.lower()]} and {where}"
                raise BadDeclaration(msg, 'rename one of the tables; a replica takes `table="..."`')
            tables[table.lower()] = where


def check_commands(app: str, subscriptions: Sequence[Subscription]) -> None:
    """Refuse to handle commands of another app: one app alone receives each, wherever the others keep their stores.

    Args:
        app: Name of the app whose subscriptions these are.
        subscriptions: All of them.

    Raises:
        GroupConflict: Names the command, its handler and the app that it belongs to.
    """
    for subscription in subscriptions:
        for kind in subscription.commands:
            if kind.topic not in {None, address_of(app)}:
                owner = str(kind.topic).removeprefix(address_of(""))
                msg = f"the app {app} handles the command {kind.name}, which belongs to the app {owner}"
                cure = f'move {subscription.where} there, or declare `@command(app="{app}")`; many may handle an event'
                raise GroupConflict(msg, cure, command=kind.name, app=app, owner=owner)


def _check_names(subscription: Subscription) -> None:
    """Refuse two classes that read messages stored under one name: nobody could say which one it is."""
    known: dict[str, MessageType] = {}
    for kind in subscription.types:
        for name in (kind.name, *kind.was):
            other = known.setdefault(name, kind)
            if other is not kind:
                msg = f"{subscription.where} takes both {other.cls.__qualname__} and {kind.cls.__qualname__}"
                raise BadHandler(f"{msg}, which read the same stored name {name!r}", "drop one of them, or its `was=`")


def _option(value: T | None, cls: type[T], name: str, where: str) -> T:
    if value is None:
        return cls()
    if not isinstance(value, cls):
        raise BadHandler(f"{where}: {name}={value!r}", f"give a {cls.__name__}: `{name}={cls.__name__}(...)`")
    return value


def _check_numbers(concurrency: object, start: object, on_dead: object, where: str) -> None:
    if isinstance(concurrency, bool) or not isinstance(concurrency, int) or concurrency < 1:
        raise BadHandler(f"{where}: concurrency={concurrency!r}", "concurrency is a whole number of 1 or more")
    position = isinstance(start, int) and not isinstance(start, bool) and start >= 0
    if not position and start not in ("earliest", "latest"):
        raise BadHandler(f"{where}: start={start!r}", 'start is "earliest", "latest" or a position of 0 or more')
    if on_dead not in ("park", "skip"):
        raise BadHandler(f"{where}: on_dead={on_dead!r}", 'on_dead is "park" or "skip"')
