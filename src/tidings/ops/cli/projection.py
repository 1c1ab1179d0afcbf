"""`tidings projection`: list read models, rebuild one."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import TYPE_CHECKING, Any

from tidings.errors import NotFound
from tidings.ops.cli.confirm import announce, confirm, mutation_options
from tidings.ops.cli.face import click
from tidings.ops.cli.failures import BadCommand
from tidings.ops.cli.output import Output, output_option
from tidings.ops.cli.progress import Progress
from tidings.ops.cli.root import Suggesting
from tidings.ops.cli.target import Target, target_options
from tidings.ops.cli.text import plural

if TYPE_CHECKING:
    from tidings.core.ports import Store
    from tidings.runtime.app import App

COLUMNS = {
    "name": "projection",
    "app": "app",
    "tables": "tables",
    "lag": "lag",
    "oldest_seconds": "oldest s",
    "dead": "dead",
    "state": "state",
}


@click.group(cls=Suggesting)
def projection() -> None:
    """List and rebuild projections."""


@projection.command()
@target_options
@output_option
def ls(*, target: Target, output: Output) -> None:
    """List projections and replicas with their tables, and how far each is.

    With an app, those whose code differs from the code that filled their tables show as changed.
    """
    app = None if target.url is not None else target.app()
    rows = target.on_store(lambda store: _rows(store, app))
    shown = [row | {"tables": " ".join(row["tables"])} for row in rows]
    output.rows(rows if output.form == "json" else shown, COLUMNS, ids="name", empty="no projections yet")


@projection.command()
@target_options
@output_option
@mutation_options
@click.argument("name")
def rebuild(*, target: Target, output: Output, yes: bool, dry_run: bool, name: str) -> None:
    """Drop the tables of a projection and run history through its handlers again.

    Nothing but its own tables changes: no event is published. Until it ends, queries find the tables incomplete.
    """
    if target.url is not None:
        msg = "a rebuild runs the code of the projection, which a store does not have"
        raise BadCommand(msg, "name the app instead: --app MODULE:APP")
    app = target.app()
    group = f"{app.name}.{name.removeprefix(f'{app.name}.')}"
    found = [row for row in target.on_store(lambda store: _rows(store, app)) if row["group"] == group]
    if not found:
        names = [part.name for part in app.parts if any(each.schema for each in part.subscriptions())]
        msg = f"{app.name} has no projection {name} in this store"
        raise NotFound(msg, f"its projections: {', '.join(names) or 'none'}; a new one starts by itself")
    row = found[0]
    total = target.on_store(_head)
    tables = ", ".join(row["tables"])
    announce([f"  {group}: {tables} will be dropped and filled again from {plural(total, 'event')}"])
    done = 0
    if not dry_run:
        confirm(f"rebuild {name}?", yes=yes)
        with Progress("rebuild", total, "event") as progress:
            try:
                asyncio.run(app.rebuild(row["name"], progress.update))
            except BaseException:
                print(f"{name} is incomplete; run it again, or let a worker go on with it", file=sys.stderr)
                raise
            done = progress.done
    data = {"projection": row["name"], "events": total, "replayed": done, "dry_run": dry_run}
    said = (
        f"{total:,} events would be replayed" if dry_run else f"{row['name']} is rebuilt from {plural(done, 'event')}"
    )
    output.thing(data, [said], ids="projection")


async def _rows(store: Store, app: App | None) -> list[dict[str, Any]]:
    from tidings.ops.survey import group_row, views

    code = {} if app is None else {f"{app.name}.{one.group}": one.fingerprint for one in app.subscriptions()}
    filled = await views(store)
    rows = []
    for backlog in await store.backlog():
        if backlog.group not in filled:
            continue
        fingerprint, tables = filled[backlog.group]
        owner, _dot, name = backlog.group.partition(".")
        state = "behind" if backlog.lag else "up to date"
        if app is not None and owner == app.name and backlog.group not in code:
            state = "no handler"
        elif fingerprint is not None and code.get(backlog.group, fingerprint) not in (None, fingerprint):
            state = "changed"
        rows.append({"name": name, "app": owner, "tables": json.loads(tables), "state": state} | group_row(backlog))
    return rows


async def _head(store: Store) -> int:
    return await store.head()
