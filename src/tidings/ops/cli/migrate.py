"""`tidings migrate`: the schema of a store, and what leads it to the version that this tidings needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tidings.ops.cli.confirm import announce
from tidings.ops.cli.face import click
from tidings.ops.cli.failures import CHECK_FAILED
from tidings.ops.cli.output import Output, output_option
from tidings.ops.cli.root import Suggesting
from tidings.ops.cli.target import Target, target_options
from tidings.ops.cli.text import plural

if TYPE_CHECKING:
    from tidings.core.migration import Migration, Schema

COLUMNS = {"since": "from", "version": "to", "name": "migration"}


@click.group(cls=Suggesting)
def migrate() -> None:
    """The schema of a store: where it stands, what is pending."""


@migrate.command()
@target_options
@output_option
def status(*, target: Target, output: Output) -> int:
    """Which version the schema of a store has, and what is pending. Exits with 5 when something is."""
    schema = target.new_store().schema()
    steps = [_row(step) for step in schema.pending]
    if output.form in ("ndjson", "ids"):
        output.rows(steps, COLUMNS, ids="version")
    else:
        data = {"version": schema.version, "newest": schema.newest, "pending": steps}
        output.thing(data, [_standing(schema), *(_line(step) for step in schema.pending)], ids="version")
    return CHECK_FAILED if schema.pending or schema.version > schema.newest else 0


@migrate.command()
@target_options
@output_option
@click.option("--dry-run", is_flag=True, help="Only say what would happen.")
def up(*, target: Target, output: Output, dry_run: bool) -> None:
    """Lead a store to the schema that this tidings needs; make it where there is none.

    Each step is one transaction: killed at any moment, it has happened or not, and the same command goes on. Stop the
    processes of an older tidings before.
    """
    from tidings.core.url import parse_url
    from tidings.stores.migrate import check

    store = target.new_store()
    schema = store.schema()
    if schema.version > schema.newest:
        check(schema, parse_url(store.url).safe)
    announce(_line(step) for step in schema.pending)
    for step in () if dry_run else schema.pending:
        store.migrate(step)
    done = [_row(step) for step in schema.pending]
    data = {"version": schema.version if dry_run else schema.newest, "steps": done, "dry_run": dry_run}
    count = plural(len(done), "migration")
    said = f"{count} would be run" if dry_run else f"schema {schema.newest}: {count} run"
    output.thing(data, [said], ids="version")


@migrate.command()
@target_options
def sql(*, target: Target) -> None:
    """Print what `up` would run, for those who run it themselves: with another role, or after a look at it."""
    for step in target.new_store().schema().pending:
        print(f"-- {_line(step).strip()}\nBEGIN;")
        for statement in step.statements:
            print(f"\n{statement}")
        print("\nCOMMIT;")


def _standing(schema: Schema) -> str:
    if schema.version > schema.newest:
        return f"schema {schema.version}; this tidings knows {schema.newest} only: pip install --upgrade tidings"
    pending = f"{len(schema.pending)} pending: tidings migrate up" if schema.pending else "nothing is pending"
    return f"schema {schema.version} of {schema.newest}; {pending}" if schema.version else f"no store yet; {pending}"


def _row(step: Migration) -> dict[str, object]:
    return {"since": step.since, "version": step.version, "name": step.name}


def _line(step: Migration) -> str:
    return f"  {step.since} to {step.version}: {step.name}"
