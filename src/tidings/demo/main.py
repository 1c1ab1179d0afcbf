"""The command `tidings demo`."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import Iterator
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
@click.option("--speed", type=click.FloatRange(0, min_open=True), help="Times real time; else as fast as it goes.")
def demo(*, as_json: bool, data: Path, store: str | None, speed: float | None) -> None:
    """Two days of real flights through every part of tidings.

    The blizzard of 8 and 9 February 2013 closes New York's airports. Flights are event-sourced, a departure board and
    punctuality are read models with names from replicas, and alerts go out through a mail gateway that fails now and
    then. Kill it at any moment and start it again with the same --store: it ends with the same figures.
    """
    logging.getLogger("tidings").setLevel(logging.ERROR)  # retries are part of the show, which counts them
    lines = count_lines(data)
    try:
        with store_at(store) as url:
            asyncio.run(fly(Airport(url, data, lines, speed=speed), as_json=as_json))
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
            await tell(console(), airport.board, found, status, busy=alerts.gateway.busy)
