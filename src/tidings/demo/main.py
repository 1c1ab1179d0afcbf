"""The command `tidings demo`."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import click
from rich.console import Console

from tidings.demo import alerts
from tidings.demo.airport import Airport, Stopped
from tidings.demo.datafile import BLIZZARD, count_lines
from tidings.demo.figures import figures
from tidings.demo.progress import progress
from tidings.demo.summary import say, tell
from tidings.errors import BadUrl

MANY = 5
"""Lines that could not be used are shown up to here, then counted."""

WIDE = 200


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object with all figures.")
@click.option("--data", type=click.Path(path_type=Path), default=BLIZZARD, help="Another file of flights (JSON lines).")
@click.option("--store", metavar="URL", help="Keep the data there, as in sqlite:flights.db; else it is thrown away.")
@click.option("--broker", metavar="URL", help="Give each app a store of its own; they meet at this broker.")
@click.option("--only", multiple=True, metavar="APP", help="Run this app alone, until it is stopped; may be repeated.")
@click.option("--speed", type=click.FloatRange(0, min_open=True), help="Times real time; else as fast as it goes.")
def demo(
    *, as_json: bool, data: Path, store: str | None, broker: str | None, only: tuple[str, ...], speed: float | None
) -> None:
    """Two days of real flights through every part of tidings.

    The blizzard of 8 and 9 February 2013 closes New York's airports. Flights are event-sourced, a departure board and
    punctuality are read models with names from replicas, and alerts go out through a mail gateway that fails now and
    then. Kill it at any moment and start it again with the same --store: it ends with the same figures.
    """
    logging.getLogger("tidings").setLevel(logging.ERROR)  # retries are part of the show, which counts them
    lines = count_lines(data)
    try:
        with store_at(store) as url:
            airport = Airport(url, data, lines, speed=speed, broker=broker)
            check_names(only, [app.name for app in airport.apps], broker)
            asyncio.run(fly_apart(airport, only, as_json=as_json) if only else fly(airport, as_json=as_json))
    except Stopped as stopped:
        click.echo("stopped; with the same --store it goes on" if store else "stopped; nothing was kept", err=True)
        sys.exit(128 + stopped.args[0])


def console(*, stderr: bool = False) -> Console:
    """Where people read: as wide as their terminal, and wide enough elsewhere that no line is broken."""
    found = Console(stderr=stderr, highlight=False)
    return found if found.is_terminal else Console(stderr=stderr, highlight=False, width=WIDE)


@contextmanager
def store_at(url: str | None) -> Iterator[str]:
    """The URL of the store: the one given, or a file that is removed afterwards."""
    if url is None:
        with TemporaryDirectory(prefix="tidings-demo-") as folder:
            yield f"sqlite:{folder}/flights.db"
    elif ":memory:" in url:
        raise BadUrl(
            "the six apps of the demo share one store, which memory is not", "give a file, or no --store at all"
        )
    else:
        yield url


def check_names(only: Collection[str], names: Collection[str], broker: str | None) -> None:
    """Refuse apps that are none, and apps that could not meet.

    Raises:
        UsageError: They cannot run alone.
    """
    unknown = sorted(set(only) - set(names))
    if unknown:
        raise click.BadParameter(f"{unknown[0]!r} is none of {', '.join(names)}", param_hint="--only")
    if only and broker is None:
        raise click.UsageError("--only takes a --broker at which the apps meet")


async def fly_apart(airport: Airport, names: Collection[str], *, as_json: bool) -> None:
    """Run some of the apps until they are stopped; the board then prints what it shows."""
    logging.basicConfig(format="%(message)s")
    logging.getLogger("tidings").setLevel(logging.INFO)
    async with airport:
        await airport.run_only(names)
        if "board" in names:
            found = await figures(airport.board)
            click.echo(json.dumps(found, indent=1)) if as_json else say(console(), f"{found['flights']:,} flights")


async def fly(airport: Airport, *, as_json: bool) -> None:
    """Run the airport, and print what came out: data to stdout, everything else to stderr."""
    talk = console(stderr=True)
    async with airport:
        with progress(talk, airport.lines) as show:
            status = await airport.run(show)
        bad = airport.feed.bad
        for reason in bad[:MANY]:
            say(talk, f"put aside: {reason}")
        if len(bad) > MANY:
            say(talk, f"put aside: {len(bad) - MANY:,} more lines")
        found = await figures(airport.board)
        if as_json:
            click.echo(json.dumps(found, indent=1))
        else:
            await tell(console(), airport.board, airport.aircraft, found, status, busy=alerts.gateway.busy)
