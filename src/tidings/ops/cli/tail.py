"""`tidings tail`: the newest events, and those that come."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tidings.ops.cli.face import click
from tidings.ops.cli.filters import Filter, filter_options
from tidings.ops.cli.output import Output, output_option
from tidings.ops.cli.target import Target, target_options

if TYPE_CHECKING:
    from tidings.core.ports import Store

COLUMNS = {"position": "position", "time": "time", "type": "type", "key": "key", "data": "data"}


@click.command()
@target_options
@filter_options
@output_option
@click.option(
    "-n", "--lines", type=click.IntRange(0, 100_000), default=10, show_default=True, help="Events to begin with."
)
@click.option("-f", "--follow", is_flag=True, help="Go on with new events until Ctrl-C.")
def tail(
    *, target: Target, types: tuple[str, ...], key: str | None, since: int, output: Output, lines: int, follow: bool
) -> None:
    """Show the newest events, and with -f those that come.

    Every line is flushed when it is written. With `-o ndjson` (or json) each line is one event.
    """
    wanted = Filter(types, key, since)

    async def show(store: Store) -> None:
        from tidings.ops.cli.rows import event_row

        position = await store.head()
        output.names(COLUMNS)
        for envelope in await wanted.newest(store, lines if not since else 100_000):
            if envelope.position <= position:
                output.row(event_row(envelope), COLUMNS, ids="id")
        while follow:
            await store.grown(position, 1.0)
            head = await store.head()
            while position < head:
                found, position = await wanted.read(store, position, head)
                for envelope in found:
                    output.row(event_row(envelope), COLUMNS, ids="id")

    target.on_store(show)
