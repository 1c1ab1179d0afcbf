"""Projections: code that keeps a table of one's own up to date with events; the table is the read model."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Concatenate, ParamSpec, TypeVar

from typing_extensions import TypeForm

from tidings.core.fingerprint import fingerprint
from tidings.core.message import Gone, MessageType, check_name
from tidings.core.retry import Retry
from tidings.core.schema import Schema, parse_schema
from tidings.core.signature import Call, Form, inspect_handler, location, split
from tidings.core.subscription import Start, Subscription
from tidings.errors import BadDeclaration, BadHandler

E = TypeVar("E")
P = ParamSpec("P")
Apply = Callable[..., Awaitable[None]]


@dataclass(frozen=True)
class _Entry:
    form: Form
    function: Apply


class Projection:
    """A read model: a table, and the handlers that fill it from the log in strict order.

    The checkpoint is written in the transaction of the handlers, so that each event counts once. A rebuild drops the
    table and runs history through the handlers again; they therefore write to their own table and nothing else.

    Args:
        name: Names the group. It is stored: choose it once.
        schema: CREATE TABLE and CREATE INDEX statements, run when the group is new.
        retry: How failures are tried again.
        start: Where it starts when it is new: "earliest", "latest", or the position after which it starts.

    Raises:
        BadDeclaration: The name or the schema cannot be used.
    """

    def __init__(self, name: str, *, schema: str, retry: Retry | None = None, start: Start = "earliest") -> None:
        self.name = check_name(name, "a projection")
        self.schema: Schema = parse_schema(schema, f"projection {name}")
        self._retry = retry or Retry()
        self._start = start
        self._entries: list[_Entry] = []

    def __repr__(self) -> str:
        return f"Projection({self.name!r})"

    def on(
        self, types: TypeForm[E]
    ) -> Callable[[Callable[Concatenate[E, P], Awaitable[None]]], Callable[Concatenate[E, P], Awaitable[None]]]:
        """Register the decorated function for one message type or a union of them (`A | B`).

        The function is async; it takes the event and, by annotation, `tx: Transaction` and `envelope: Envelope`.
        Several functions for one type run in the order of declaration.

        Args:
            types: The message class, or a union of classes. `State | Gone` includes the tombstones of the state.

        Returns:
            A decorator that returns the function unchanged.

        Raises:
            NotAMessage: One of the types is no message class.
        """
        form = split(types)

        def register(
            function: Callable[Concatenate[E, P], Awaitable[None]],
        ) -> Callable[Concatenate[E, P], Awaitable[None]]:
            if not callable(function):
                raise BadHandler(f"{function!r} is not callable", f"put `@{self.name}.on(...)` above an `async def`")
            self._entries.append(_Entry(form, function))
            return function

        return register

    def subscriptions(self) -> Sequence[Subscription]:
        """One group with one slot: strict log order over all keys.

        Raises:
            BadDeclaration: It has no handlers.
            BadHandler: A handler cannot be called as declared.
        """
        if not self._entries:
            raise BadDeclaration(f"projection {self.name} has no handlers", f"add one: `@{self.name}.on(Event)`")
        calls = [self._inspect(entry) for entry in self._entries]
        enveloped = any("envelope" in call.takes for call in calls)
        forms = [entry.form for entry in self._entries]
        return (
            Subscription(
                group=self.name,
                types=self.message_types(),
                handler=self._dispatcher(calls, enveloped=enveloped),
                where=location(self._entries[0].function),
                takes=("tx", "envelope") if enveloped else ("tx",),
                retry=self._retry,
                concurrency=1,
                slots=1,
                start=self._start,
                schema=";\n".join(self.schema.statements),
                fingerprint=self.fingerprint,
                tombstones=any(form.gone for form in forms),
            ),
        )

    def message_types(self) -> tuple[MessageType, ...]:
        """Every message type that has a handler here."""
        return tuple(dict.fromkeys(kind for entry in self._entries for kind in entry.form.types))

    @cached_property
    def fingerprint(self) -> str | None:
        """Of the schema and the handlers' code; None where their source cannot be found."""
        names = [",".join(kind.name for kind in entry.form.types) for entry in self._entries]
        return fingerprint((*self.schema.statements, *names), (entry.function for entry in self._entries))

    def _inspect(self, entry: _Entry) -> Call:
        call = inspect_handler(entry.function, entry.form)
        if not call.is_async or "tx" not in call.takes:
            cure = "write `async def handler(event: ..., tx: Transaction) -> None`"
            raise BadHandler(f"{call.where} of projection {self.name} takes no tx", cure)
        return call

    def _dispatcher(self, calls: Sequence[Call], *, enveloped: bool) -> Apply:
        """What the runtime calls for each event: as little as possible between it and the user's function."""
        wanted = ("tx", "envelope") if enveloped else ("tx",)
        adapted = [
            (entry.form, _adapt(entry.function, call.takes, wanted))
            for entry, call in zip(self._entries, calls, strict=True)
        ]
        if len(adapted) == 1:
            return adapted[0][1]
        by_class: dict[type[Any], Apply] = {}
        gone: dict[type[Any], Apply] = {}
        for kind in self.message_types():
            by_class[kind.cls] = _in_turn([call for form, call in adapted if kind in form.types])
            gone[kind.cls] = _in_turn([call for form, call in adapted if kind in form.types and form.gone])
        by_class[Gone] = lambda record, *rest: gone[record.state](record, *rest)
        if enveloped:
            return lambda event, tx, envelope: by_class[type(event)](event, tx, envelope)
        return lambda event, tx: by_class[type(event)](event, tx)


def _adapt(function: Apply, takes: Sequence[str], wanted: Sequence[str]) -> Apply:
    """The function, called as (event, tx) or (event, tx, envelope) whatever the order of its own parameters."""
    if tuple(takes) == tuple(wanted):
        return function
    if tuple(takes) == ("tx",):
        return lambda event, tx, _envelope: function(event, tx)
    return lambda event, tx, envelope: function(event, envelope, tx)


def _in_turn(functions: Sequence[Apply]) -> Apply:
    """One function for all of them, in order; a single one stays itself."""
    if len(functions) == 1:
        return functions[0]

    async def each(*arguments: object) -> None:
        for function in functions:
            await function(*arguments)

    return each
