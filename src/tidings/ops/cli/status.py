"""`tidings status`, and `tidings` alone: how the groups stand, and what to do next."""

from __future__ import annotations

import sys
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from tidings.core.retry import seconds
from tidings.ops.cli.face import click
from tidings.ops.cli.failures import CHECK_FAILED
from tidings.ops.cli.output import Output, output_option
from tidings.ops.cli.target import Target, find_app, target_options
from tidings.ops.cli.text import one_line, plural

if TYPE_CHECKING:
    from tidings.core.ports import Store
    from tidings.runtime.app import App

COLUMNS = {
    "group": "group",
    "lag": "lag",
    "oldest_seconds": "oldest s",
    "retrying": "retrying",
    "parked": "parked",
    "dead": "dead",
    "workers": "workers",
}


@click.command()
@target_options
@output_option
@click.option("--max-lag", type=click.IntRange(min=0), metavar="EVENTS", help="Exit with 5 if a group lags more.")
@click.option(
    "--max-age", type=click.FloatRange(min=0), metavar="SECONDS", help="Exit with 5 if an event waits longer."
)
def status(*, target: Target, output: Output, max_lag: int | None, max_age: float | None) -> int:
    """How the groups of an app stand: lag, retries, dead letters, and which worker owns which slots.

    Lag is the number of events that a group has still to handle; oldest is how long the first of them waits.
    """
    max_age = None if max_age is None else seconds(max_age, "--max-age")  # click takes NaN for a number in any range
    app = None if target.url else target.app()
    report = target.on_store(partial(survey, app=app))
    for row in report["groups"]:
        if row["dead"]:
            output.warn(f"{row['group']} has {plural(row['dead'], 'dead letter')}: see `tidings dead ls`")
        if row["gone"]:
            output.warn(f"{row['group']} has no handler in the app any more: see `tidings doctor`")
        elif row["lag"] and not row["owners"]:
            output.warn(f"{row['group']} has {plural(row['lag'], 'event')} to handle and no worker")
    late = [
        row["group"]
        for row in report["groups"]
        if not row["gone"]
        and (
            (max_lag is not None and row["lag"] > max_lag) or (max_age is not None and row["oldest_seconds"] > max_age)
        )
    ]
    if late:
        output.warn(f"too late: {', '.join(late)}")
    if output.form == "json":
        output.data(report)
    else:
        print(_headline(report), file=sys.stderr)
        _show(output, report, empty="no groups yet: run the app once")
    return CHECK_FAILED if late else 0


async def survey(store: Store, app: App | None) -> dict[str, Any]:
    """How a store stands, as data; with the app it is known which of its groups have no handler any more."""
    from tidings.core.url import parse_url
    from tidings.ops.cli.text import iso
    from tidings.ops.survey import group_row, outgoing, timers
    from tidings.runtime.renamed import left_behind

    waiting, first = await timers(store)
    unmoved, age = await outgoing(store, time.time())
    alive = {each.member for each in await store.members() if each.alive}
    backlogs = await store.backlog()
    gone = [] if app is None else left_behind(app.name, app.subscriptions(), backlogs)
    return {
        "store": parse_url(store.url).safe,
        "head": await store.head(),
        "groups": [group_row(backlog, alive) | {"gone": backlog in gone} for backlog in backlogs],
        "workers": sorted(alive),
        "outbox": {"waiting": unmoved, "oldest_seconds": age},
        "timers": {"waiting": waiting, "next": None if first is None else iso(first)},
    }


def show_overview(context: click.Context) -> None:
    """What `tidings` alone prints: the status of the app found here and the next useful command, or the help."""
    spec = find_app()
    if spec is None:
        print(context.get_help())
        return
    target = Target(spec)
    report = target.on_store(partial(survey, app=target.app()))
    print(_headline(report), file=sys.stderr)
    _show(Output(), report)
    print(f"next: {_next_command(spec, report)}", file=sys.stderr)


def _show(output: Output, report: dict[str, Any], empty: str = "") -> None:
    """Print the groups; who owns which of their slots, where somebody does."""
    rows = [row | {"workers": len(row["owners"]), "slots": _shares(row["owners"])} for row in report["groups"]]
    columns = COLUMNS | {"slots": "slots"} if any(row["owners"] for row in rows) else COLUMNS
    output.rows(rows, columns, ids="group", empty=empty)


def _shares(owners: dict[str, list[int]]) -> str:
    """Who owns what: `one 0-7, two 8-15`."""
    found = []
    for owner, slots in sorted(owners.items(), key=lambda item: item[1]):
        runs: list[list[int]] = []
        for slot in slots:
            if runs and slot == runs[-1][-1] + 1:
                runs[-1].append(slot)
            else:
                runs.append([slot])
        spans = "+".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
        found.append(f"{one_line(owner)} {spans}")
    return ", ".join(found)


def _headline(report: dict[str, Any]) -> str:
    waiting = report["timers"]["waiting"]
    parts = [one_line(report["store"]), plural(report["head"], "event"), plural(len(report["workers"]), "worker")]
    if waiting:
        parts.append(f"{plural(waiting, 'timer')} waiting, next {report['timers']['next']}")
    if unmoved := report["outbox"]["waiting"]:
        parts.append(f"{plural(unmoved, 'message')} in the outbox for {report['outbox']['oldest_seconds']:.1f} s")
    return " | ".join(parts)


def _next_command(spec: str, report: dict[str, Any]) -> str:
    groups = report["groups"]
    if any(row["dead"] for row in groups):
        return "tidings dead ls"
    if not any(row["owners"] for row in groups):
        return f"tidings run {spec}"
    return "tidings tail -f"
