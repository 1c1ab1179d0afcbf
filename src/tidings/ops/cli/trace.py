"""The causation tree of a conversation: command, events, the events their handlers published, and what failed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tidings.ops.cli.rows import event_row, held_row
from tidings.ops.cli.text import iso, one_line
from tidings.ops.survey import held_at

if TYPE_CHECKING:
    from tidings.core.envelope import Envelope
    from tidings.core.operations import Held
    from tidings.core.ports import Store

DEEPEST = 30
"""Deeper levels of the tree are not indented further, so that a long chain stays readable."""


@dataclass(frozen=True)
class Trace:
    """A conversation.

    Attributes:
        events: In log order.
        held: Deliveries of them that failed or wait.
    """

    events: list[Envelope]
    held: list[Held]

    def data(self) -> dict[str, Any]:
        """As data: a flat list in which `causation` points to the parent, however deep the tree is."""
        conversation = self.events[0].conversation
        return {"conversation": conversation, "events": list(self.rows()), "held": [held_row(one) for one in self.held]}

    def rows(self) -> Iterator[dict[str, Any]]:
        """The events as rows, parents before children, each with its depth."""
        for envelope, depth, _last in self._walk():
            yield event_row(envelope) | {"depth": depth}

    def text(self) -> Iterator[str]:
        """The tree for people."""
        bars = ("├─ ", "└─ ", "│  ", "✗") if _speaks("├└│✗") else ("|- ", "`- ", "|  ", "x")
        failed: dict[int, list[Held]] = {}
        for one in self.held:
            failed.setdefault(one.position, []).append(one)
        open_levels: list[bool] = []  # for each level above: does a sibling still follow?
        for envelope, depth, last in self._walk():
            del open_levels[depth:]
            above = open_levels[1:][-DEEPEST:]
            lead = "".join(bars[2] if goes_on else "   " for goes_on in above)
            branch = "" if depth == 0 else bars[1] if last else bars[0]
            open_levels.append(not last)
            yield f"{lead}{branch}{_describe(envelope)}"
            below = f"{lead}{'' if depth == 0 else '   ' if last else bars[2]}"
            for one in failed.get(envelope.position, ()):
                yield f"{below}   {bars[3]} {_describe_held(one)}"

    def _walk(self) -> Iterator[tuple[Envelope, int, bool]]:
        """Every event, its depth, and whether no sibling follows; without recursion, as chains are long."""
        first: dict[str, int] = {}
        for envelope in self.events:
            first.setdefault(envelope.id, envelope.position)
        children: dict[str | None, list[Envelope]] = {}
        for envelope in self.events:  # a cause comes before its effect, so that nothing goes round in circles
            is_here = first.get(envelope.causation or "", envelope.position) < envelope.position
            children.setdefault(envelope.causation if is_here else None, []).append(envelope)
        todo = [(one, 0, index == 0) for index, one in enumerate(reversed(children.get(None, [])))]
        seen: set[int] = set()
        while todo:
            envelope, depth, last = todo.pop()
            if envelope.position in seen:  # two sources may use one id
                continue
            seen.add(envelope.position)
            yield envelope, depth, last
            below = reversed(children.get(envelope.id, []))
            todo.extend((one, depth + 1, index == 0) for index, one in enumerate(below))


async def read_trace(store: Store, envelope: Envelope) -> Trace:
    """The conversation that an event belongs to."""
    conversation = envelope.conversation
    found = {one.position: one for one in await store.find(correlation=conversation)}
    found |= {one.position: one for one in await store.find(id=conversation)}
    found[envelope.position] = envelope
    events = [found[position] for position in sorted(found)]
    ids = await held_at(store, sorted(found))
    held = sorted(await store.held(ids=ids, limit=len(ids)), key=lambda one: one.id) if ids else []
    return Trace(events, held)


def _describe(envelope: Envelope) -> str:
    key = "" if envelope.key is None else f" {one_line(envelope.key, 60)}"
    from_whom = f"{one_line(envelope.source, 60)}  {one_line(envelope.id, 60)}"
    return f"{one_line(envelope.type)}{key}  #{envelope.position}  {iso(envelope.time)}  {from_whom}"


def _describe_held(held: Held) -> str:
    states = {"dead": f"dead letter {held.id}", "retry": f"attempt {held.attempt + 1} comes"}
    return f"{states.get(held.state, 'parked')}: {one_line(held.group)}: {one_line(held.reason)}"


def _speaks(characters: str) -> bool:
    try:
        characters.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True
