"""Deciders: event sourcing. `decide` says what happens, `evolve` what that changes, `initial` how it starts."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields, is_dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from functools import cached_property
from typing import Any, Generic, TypeVar, overload
from uuid import UUID

from typing_extensions import TypeForm

from tidings.core.codec import Codec
from tidings.core.message import MessageType, check_name
from tidings.core.outcome import Again
from tidings.core.retry import Retry
from tidings.core.signature import UNKNOWN, Form, flatten, is_async, location, resolved, split
from tidings.core.subscription import OnDead, Subscription
from tidings.core.transaction import Transaction
from tidings.errors import BadArgument, BadDeclaration, Conflict, NotAMessage, StoreError, Unreadable

S = TypeVar("S")
C = TypeVar("C")
E = TypeVar("E")

REFUSALS_ARE_FINAL = Retry(attempts=1, per={Again: Retry(), Conflict: Retry(), StoreError: Retry()})
"""What `decide` refuses, it would refuse again, for it is pure. What the store says may pass."""

_ATOMS = (str, int, float, complex, bytes, type(None), Decimal, UUID, Enum, datetime, date, time, timedelta, type)


class Decider(Generic[S, C, E]):
    """Event sourcing for one kind of thing: each key has a stream of events, folded into its state.

    Args:
        name: Names the streams (`name:key`) and the group that handles sent commands. It is stored: choose it once.
        initial: State of a key that has no events yet. A mutable one is copied for every fold.
        decide: (state, command) -> the events that follow: an iterator, any iterable, a single event, or None. Pure.
            It refuses a command by raising.
        evolve: (state, event) -> the next state. Pure; it never refuses, for the event has happened.
        events: The event types as a union, where the annotation of `evolve` does not name them. Where `decide` gives
            only some of them, it also tells the type checker the rest.
        commands: The command types as a union, where the annotation of `decide` does not name them.
        retry: How failures of sent commands are tried again. If not given, whatever `decide` raises is final, except
            `Again`; only trouble of the store is tried again.
        on_dead: "skip" lets later commands of a key pass one that was refused, for each is decided on what is true by
            then; "park" holds them until the refused one is redriven or discarded.

    Raises:
        BadDeclaration: The name or `on_dead` cannot be used, or `decide` or `evolve` is no plain function.
    """

    @overload
    def __init__(
        self,
        name: str,
        *,
        initial: S,
        decide: Callable[[S, C], Iterable[E] | E | None],
        evolve: Callable[[S, E], S],
        events: None = None,
        commands: object = None,
        retry: Retry | None = None,
        on_dead: OnDead = "skip",
    ) -> None: ...
    @overload
    def __init__(
        self,
        name: str,
        *,
        initial: S,
        decide: Callable[[S, C], Iterable[E] | E | None],
        evolve: Callable[[S, E], S],
        events: TypeForm[E],
        commands: object = None,
        retry: Retry | None = None,
        on_dead: OnDead = "skip",
    ) -> None: ...
    def __init__(
        self,
        name: str,
        *,
        initial: S,
        decide: Callable[[S, C], Iterable[E] | E | None],
        evolve: Callable[[S, E], S],
        events: object = None,
        commands: object = None,
        retry: Retry | None = None,
        on_dead: OnDead = "skip",
    ) -> None:
        self.name = check_name(name, "a decider")
        if name == "state" or ":" in name:
            cure = "choose another name" if name == "state" else "leave out the colon"
            raise BadDeclaration(
                f"a decider is named {name}", f"{cure}: its streams are named {name}:KEY, as others are"
            )
        for role, function in (("decide", decide), ("evolve", evolve)):
            if not callable(function):
                raise BadDeclaration(f"decider {name}: {role}={function!r} is not callable", "give a function")
            if is_async(function) or inspect.isasyncgenfunction(function):
                cure = "write `def`: it decides from state and command alone; do I/O before, in a handler"
                raise BadDeclaration(f"decider {name}: {location(function)} is async", cure)
        self._initial = initial
        self._shared = _immutable(initial)
        self._decide = decide
        self._evolve = evolve
        self._given = {"events": events, "commands": commands}
        self._retry = retry or REFUSALS_ARE_FINAL
        if on_dead not in {"park", "skip"}:
            raise BadDeclaration(f"decider {name}: on_dead={on_dead!r}", 'on_dead is "park" or "skip"')
        self._on_dead = on_dead

    def __repr__(self) -> str:
        return f"Decider({self.name!r})"

    @property
    def initial(self) -> S:
        """The state of a key without events; a fresh copy where it is mutable."""
        return self._initial if self._shared else copy.deepcopy(self._initial)

    @cached_property
    def events(self) -> tuple[MessageType, ...]:
        """The event types, as `evolve` names them.

        Raises:
            BadDeclaration: They are not named, or are no events.
        """
        return self._types("events", "event", self._evolve, "evolve")

    @cached_property
    def commands(self) -> tuple[MessageType, ...]:
        """The command types, as `decide` names them.

        Raises:
            BadDeclaration: They are not named, are no commands, or have no key.
        """
        found = self._types("commands", "command", self._decide, "decide")
        for kind in found:
            if kind.key_field is None:
                cure = "mark the field that names the stream: `account_id: Key[str]`"
                raise BadDeclaration(f"decider {self.name}: the command {kind.name} has no key", cure)
        return found

    def stream(self, key: str) -> str:
        """The name of the stream of a key."""
        return f"{self.name}:{key}"

    def fold(self, state: S, rows: Iterable[tuple[str, bytes, int]]) -> S:
        """The state after stored events.

        Args:
            state: Before them; `initial` for a whole stream.
            rows: (type, data, version) in order, as a store loads them.

        Raises:
            Unreadable: A stored event is of no type that `evolve` takes, or its data cannot be read.
        """
        decoders, evolve = self._decoders, self._evolve
        for name, data, version in rows:
            try:
                decode = decoders[name]
            except KeyError:
                msg = f"decider {self.name}: the stream holds {name} at version {version}, which evolve does not take"
                cure = f'add it to the annotation of evolve; for a renamed event write `@event(was=("{name}",))`'
                raise Unreadable(msg, cure, type=name, version=version) from None
            state = evolve(state, decode(data))
        return state

    def decide(self, state: S, command: C) -> list[E]:
        """The events that a command leads to.

        Args:
            state: What the command meets.
            command: One of `commands`.

        Returns:
            Events in order; empty when nothing happens.

        Raises:
            BadArgument: The command is not one of this decider's, or an event is for another key.
            BadDeclaration: An event is not one of those that `evolve` takes.
            Exception: Whatever `decide` raises to refuse the command.
        """
        key = self.key_of(command)
        decided = self._decide(state, command)
        found = self._listed(decided)
        self.check(key, found, f"a {type(command).__qualname__}")
        return found

    def check(self, key: str, events: Sequence[object], source: str) -> None:
        """Refuse events that nobody could fold, or that belong to another stream.

        Args:
            key: Of the stream.
            events: What is to be appended.
            source: What leads to them, for the message.

        Raises:
            BadDeclaration: One is not of those that `evolve` takes.
            BadArgument: One is for another key.
        """
        for event in events:
            kind = self._by_class.get(type(event))
            if kind is None:
                named = ", ".join(each.name for each in self.events)
                msg = f"decider {self.name}: {source} led to a {type(event).__qualname__}"
                raise BadDeclaration(msg, f"its events are what evolve takes: {named}")
            if kind.key_field is not None and (other := kind.key_of(event)) not in (None, key):
                msg = f"decider {self.name}: {source} for {key!r} led to a {kind.name} for {other!r}"
                raise BadArgument(msg, "an event belongs to the key of its stream; append it to the other key's")

    def key_of(self, command: C) -> str:
        """The key of a command, which names the stream.

        Raises:
            BadArgument: It is not one of this decider's commands, or its key is None.
        """
        kind = self._commands_by_class.get(type(command))
        if kind is None:
            named = ", ".join(each.name for each in self.commands)
            raise BadArgument(f"decider {self.name} got a {type(command).__qualname__}", f"its commands are: {named}")
        key = kind.key_of(command)
        if key is None:
            raise BadArgument(f"the key of this {kind.name} is None", f"set its {kind.key_field}")
        return key

    async def read(self, key: str, tx: Transaction) -> S:
        """The state of a key as this transaction sees it."""
        return self.fold(self.initial, await tx.load(self.stream(key)))

    async def execute(self, command: C, tx: Transaction) -> int:
        """Load, decide, and append what was decided, in one transaction.

        Returns:
            The stream's version after it.

        Raises:
            WrongVersion: The stream grew meanwhile; load again.
        """
        key = self.key_of(command)
        stream = self.stream(key)
        rows = await tx.load(stream)
        version = rows[-1][2] if rows else 0
        events = self.decide(self.fold(self.initial, rows), command)
        return await tx.append(stream, key, events, version) if events else version

    async def _handle(self, command: C, tx: Transaction) -> None:
        await self.execute(command, tx)

    def subscriptions(self) -> Sequence[Subscription]:
        """One group, named after the decider, that executes the commands sent to it."""
        return (
            Subscription(
                group=self.name,
                types=self.commands,
                handler=self._handle,
                where=location(self._decide),
                takes=("tx",),
                retry=self._retry,
                on_dead=self._on_dead,
            ),
        )

    def message_types(self) -> Sequence[MessageType]:
        """Its events and commands."""
        return (*self.events, *self.commands)

    @cached_property
    def _decoders(self) -> dict[str, Callable[[bytes], E]]:
        return {name: Codec(kind).decode for kind in reversed(self.events) for name in (*kind.was, kind.name)}

    @cached_property
    def _by_class(self) -> dict[type[Any], MessageType]:
        return {kind.cls: kind for kind in self.events}

    @cached_property
    def _commands_by_class(self) -> dict[type[Any], MessageType]:
        return {kind.cls: kind for kind in self.commands}

    def _listed(self, decided: Iterable[E] | E | None) -> list[E]:
        if decided is None:
            return []
        if type(decided) in self._by_class:  # a single event; first, for a model may be iterable itself
            return [decided]  # type: ignore[list-item]
        if isinstance(decided, Iterable) and not isinstance(decided, str | bytes):
            return list(decided)
        return [decided]  # refused by name in decide

    def _types(self, name: str, wanted: str, function: Callable[..., Any], role: str) -> tuple[MessageType, ...]:
        form = self._given[name]
        where = location(function)
        if form is None:
            form = _second(function)
            if form is UNKNOWN:
                cure = f"annotate it with the {wanted} classes or a union of them, or give `{name}=A | B`"
                raise BadDeclaration(f"decider {self.name}: the second parameter of {where} names no type", cure)
        try:
            found: Form = split(form)
        except NotAMessage as error:
            cure = f"annotate the second parameter of {role} with {wanted} classes, or give `{name}=A | B`"
            raise BadDeclaration(f"decider {self.name}: {where}: {error.what}", cure) from error
        for kind in found.types:
            if kind.kind != wanted:
                msg = f"decider {self.name}: {role} takes {kind.name}, which is declared with @{kind.kind}"
                raise BadDeclaration(msg, f"leave it out, or declare it with @{wanted}")
        return found.types


def _second(function: Callable[..., Any]) -> object:
    """The annotation of the second parameter, or UNKNOWN."""
    try:
        parameters = list(inspect.signature(function).parameters)
    except (TypeError, ValueError, NameError):
        return UNKNOWN
    form = resolved(function).get(parameters[1], UNKNOWN) if len(parameters) > 1 else UNKNOWN
    return UNKNOWN if form is Any or any(member in (Any, object) for member in flatten(form)) else form


def _immutable(value: object) -> bool:
    """True where no evolve can change the value in place."""
    if isinstance(value, _ATOMS):
        return True
    if isinstance(value, tuple | frozenset):
        return all(_immutable(item) for item in value)
    if is_dataclass(value) and not isinstance(value, type):
        frozen = type(value).__dataclass_params__.frozen  # type: ignore[attr-defined]
        return frozen and all(_immutable(getattr(value, each.name)) for each in fields(value))
    config = getattr(type(value), "__struct_config__", None)
    if config is not None and config.frozen:
        return all(_immutable(getattr(value, name)) for name in value.__struct_fields__)  # type: ignore[attr-defined]
    return False
