"""`tidings dead`: list and show dead letters."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tidings.errors import NotFound
from tidings.ops.cli.face import click
from tidings.ops.cli.output import Output, output_option
from tidings.ops.cli.redrive import discard, known_group, redrive
from tidings.ops.cli.root import Suggesting
from tidings.ops.cli.target import Target, target_options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tidings.core.operations import Held
    from tidings.core.ports import Store


@click.group(cls=Suggesting)
def dead() -> None:
    """List, show, redrive and discard dead letters."""


dead.add_command(redrive)
dead.add_command(discard)


@dead.command()
@target_options
@output_option
@click.option("--group", help="Only of this group.")
@click.option("--key", help="Only of this key.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=100, show_default=True, help="At most this many.")
def ls(*, target: Target, output: Output, group: str | None, key: str | None, limit: int) -> None:
    """List the newest dead letters."""

    async def read(store: Store) -> tuple[Sequence[Held], int]:
        from tidings.ops.survey import dead_by_group

        name = await known_group(store, group)
        found = await store.held(state="dead", group=name, key=key, limit=limit)
        return found, sum((await dead_by_group(store, name, key)).values())

    found, total = target.on_store(read)
    from tidings.ops.cli.rows import HELD_COLUMNS, held_row

    if len(found) < total:
        output.warn(f"the newest {len(found):,} of {total:,} dead letters; --limit shows more")
    output.rows([held_row(one) for one in found], HELD_COLUMNS, ids="id", empty="no dead letters")


@dead.command()
@target_options
@output_option
@click.argument("number", metavar="ID", type=click.IntRange(0, 2**63 - 1))
def show(*, target: Target, output: Output, number: int) -> None:
    """Show a dead letter: headers, data, error, traceback and the log of its attempts.

    Deliveries that are parked or retried can be shown the same way.
    """
    found = target.on_store(lambda store: store.held(ids=[number]))
    if not found:
        msg = f"there is no dead letter {number}"
        raise NotFound(msg, "see `tidings dead ls`; it may have been redriven or discarded")
    from tidings.ops.cli.rows import held_row, held_text

    output.thing(held_row(found[0]), held_text(found[0]), ids="id")
