"""`tidings groups repair`: go on where the log has lost its end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tidings.ops.cli.confirm import announce, confirm, mutation_options
from tidings.ops.cli.face import click
from tidings.ops.cli.output import Output, output_option
from tidings.ops.cli.root import Suggesting
from tidings.ops.cli.target import Target, target_options
from tidings.ops.cli.text import plural

if TYPE_CHECKING:
    from tidings.core.ports import Store

COLUMNS = {"group": "group", "finished": "finished", "head": "log ends at", "repaired": "repaired"}
_FINISHED = "SELECT name, max(checkpoint) FROM tidings_slot GROUP BY name ORDER BY name"


@click.group(cls=Suggesting)
def groups() -> None:
    """Repair groups."""


@groups.command()
@target_options
@output_option
@mutation_options
@click.option("--to", metavar="POSITION", type=click.IntRange(0), help="Go on after this one instead.")
def repair(*, target: Target, output: Output, yes: bool, dry_run: bool, to: int | None) -> None:
    """Set groups that have finished more than the log holds back to where it ends.

    A log loses its end where an older copy of it alone was put back; better put back a whole backup, if there is one.
    What the groups did with the lost events stays done. What was published since then is not handled, unless --to
    names a position before it; what is published from now on is.
    """
    rows = target.on_store(_ahead)
    announce(
        f"  {row['group']}: has finished position {row['finished']:,}, and the log ends at {row['head']:,}; it will go "
        f"on after {row['head'] if to is None else min(to, row['head']):,}; if it is a projection, rebuild it then"
        for row in rows
    )
    if rows and not dry_run:
        confirm(f"repair {plural(len(rows), 'group')}?", yes=yes)
        target.on_store(lambda store: _repair(store, rows, to))
    output.rows(rows, COLUMNS, ids="group", empty="no group has finished more than the log holds")


async def _ahead(store: Store) -> list[dict[str, Any]]:
    head = await store.head()
    found = await store.query(_FINISHED)
    return [
        {"group": name, "finished": finished, "head": head, "repaired": False}
        for name, finished in found
        if finished > head
    ]


async def _repair(store: Store, rows: list[dict[str, Any]], to: int | None) -> None:
    from tidings.core.operations import Repair

    for row in rows:
        row["repaired"] = bool(await store.write(Repair(row["group"], to)))
