"""`tidings events`: list events, show one, trace what came of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tidings.errors import NotFound
from tidings.ops.cli.face import click
from tidings.ops.cli.filters import WINDOW, Filter, filter_options
from tidings.ops.cli.output import Output, output_option
from tidings.ops.cli.root import Suggesting
from tidings.ops.cli.target import Target, target_options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tidings.core.envelope import Envelope
    from tidings.core.ports import Store


@click.group(cls=Suggesting)
def events() -> None:
    """List, show and trace events."""


@events.command()
@target_options
@filter_options
@output_option
@click.option("--after", type=click.IntRange(min=0), metavar="POSITION", help="The first ones after this position.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=50, show_default=True, help="At most this many.")
def ls(
    *,
    target: Target,
    types: tuple[str, ...],
    key: str | None,
    since: int,
    output: Output,
    after: int | None,
    limit: int,
) -> None:
    """List the newest events, or with --after the first ones after a position; in log order."""
    wanted = Filter(types, key, since)

    async def read(store: Store) -> tuple[Sequence[Envelope], int]:
        head = await store.head()
        if after is None:
            return await wanted.newest(store, limit), head
        found: list[Envelope] = []
        position = after
        while position < head and len(found) < limit:
            some, position = await wanted.read(store, position, head, WINDOW)
            found.extend(some)
        return found[:limit], head

    found, head = target.on_store(read)
    from tidings.ops.cli.rows import EVENT_COLUMNS, event_row

    if len(found) == limit and after is not None and found[-1].position < head:
        output.warn(f"more may follow: --after {found[-1].position}")
    output.rows([event_row(one) for one in found], EVENT_COLUMNS, ids="id", empty=f"none of {head:,} events fits")


@events.command()
@target_options
@output_option
@click.argument("event_id", metavar="ID")
def show(*, target: Target, output: Output, event_id: str) -> None:
    """Show one event with all its attributes; ID is its id or its position."""
    found = target.on_store(lambda store: find(store, event_id))
    from tidings.ops.cli.rows import event_row, event_text

    if len(found) > 1:
        output.warn(
            f"{len(found)} events have this id, from {', '.join(one.source for one in found)}; this is the first"
        )
    output.thing(event_row(found[0]), event_text(found[0]), ids="id")


@events.command()
@target_options
@output_option
@click.argument("event_id", metavar="ID")
def trace(*, target: Target, output: Output, event_id: str) -> None:
    """Show the conversation of an event as a tree: what caused what, and what failed.

    ID is the id or the position of any event of the conversation.
    """
    from tidings.ops.cli.trace import Trace, read_trace

    async def read(store: Store) -> Trace:
        return await read_trace(store, (await find(store, event_id))[0])

    found = target.on_store(read)
    if output.form in ("ndjson", "ids"):
        from tidings.ops.cli.rows import EVENT_COLUMNS

        for row in found.rows():
            output.row(row, EVENT_COLUMNS, ids="id")
    else:
        output.thing(found.data(), found.text(), ids="conversation")


async def find(store: Store, event_id: str) -> Sequence[Envelope]:
    """The events with this id, or the one at this position.

    Raises:
        NotFound: There is none.
    """
    found = await store.find(id=event_id)
    if not found and event_id.isdecimal() and 0 < int(event_id) < 2**63:
        found = await store.read(int(event_id) - 1, int(event_id), 1)
    if not found:
        msg = f"no event has the id or position {event_id}"
        raise NotFound(msg, "see `tidings events ls`; one that waits for its time has no position yet")
    return found
