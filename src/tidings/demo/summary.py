"""The summary for people: what happened, asked of the read models and told in sentences and tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from tidings import App
from tidings.demo.board import departures, punctuality
from tidings.demo.progress import Status

# The names come from replicas: the board reads its own copy, whether or not their owner is there.
CARRIERS = """
    SELECT coalesce(c.name, p.carrier), sum(flights), sum(cancelled), sum(arrived), sum(in_time),
        round(1.0 * sum(arr_delay) / nullif(sum(arrived), 0))
    FROM punctuality p LEFT JOIN carriers c ON c.code = p.carrier
    GROUP BY p.carrier ORDER BY sum(flights) DESC, p.carrier
"""
AIRPORTS = """
    SELECT coalesce(a.name, p.origin), sum(flights), sum(cancelled), sum(departed), sum(very_late),
        round(1.0 * sum(dep_delay) / nullif(sum(departed), 0))
    FROM punctuality p LEFT JOIN airports a ON a.code = p.origin
    GROUP BY p.origin ORDER BY sum(flights) DESC, p.origin
"""
LATEST = """
    SELECT d.carrier || d.flight, coalesce(c.name, d.carrier), coalesce(o.name, d.origin), coalesce(t.city, d.dest),
        d.dep_delay
    FROM departure d LEFT JOIN carriers c ON c.code = d.carrier
        LEFT JOIN airports o ON o.code = d.origin LEFT JOIN airports t ON t.code = d.dest
    WHERE d.dep_delay IS NOT NULL ORDER BY d.dep_delay DESC, d.flight_id LIMIT 5
"""
KNOCK_ON = "SELECT count(*), coalesce(max(chain), 0) FROM leg WHERE chain > 0"
FURTHEST = "SELECT tailnum FROM leg ORDER BY chain DESC, tailnum LIMIT 1"


async def tell(
    console: Console, board: App, aircraft: App, figures: dict[str, Any], status: Status, *, busy: int
) -> None:
    """Print the summary."""
    flights, departed, arrived, cancelled, late = (
        f"{figures[name]:,}" for name in ("flights", "departed", "arrived", "cancelled", "departed_60_or_more_late")
    )
    say(
        console,
        f"{flights} flights: {departed} departed, {late} of them an hour late or more; {arrived} arrived; "
        f"{cancelled} were cancelled.",
    )
    airports = await board.query(punctuality, AIRPORTS)
    draw(console, airports, "From", "Flights", "Cancelled", "Departed", "Late 60", "Mean delay")
    carriers = await board.query(punctuality, CARRIERS)
    draw(console, carriers, "Carrier", "Flights", "Cancelled", "Arrived", "In time", "Mean delay")
    latest = await board.query(departures, LATEST)
    draw(console, latest, "Latest", "Carrier", "From", "To", "Minutes")

    console.print()
    [(again, longest)] = await aircraft.store.query(KNOCK_ON)
    for (tailnum,) in await aircraft.store.query(FURTHEST):
        times = f"; {tailnum} did so {longest} times in a row" if longest > 1 else ""
        say(console, f"An aircraft that came late left late again {again:,} times{times}.")
    say(console, f"{status.mails:,} mails told passengers what happened, each counted once.")
    say(console, f"The gateway was busy {busy:,} times in this run, and was tried again.")
    say(console, f"{status.dead:,} messages are dead letters, for a human to look at.")


def say(console: Console, sentence: str) -> None:
    """Print a sentence."""
    console.print(Text(visible(sentence)))


def draw(console: Console, rows: Sequence[Sequence[Any]], *columns: str) -> None:
    """Print rows as a table, framed by lines on a terminal and by nothing elsewhere."""
    table = Table(box=box.SIMPLE_HEAD if console.is_terminal else None, pad_edge=False, show_edge=False)
    for number, name in enumerate(columns):
        numeric = all(isinstance(row[number], int | float | None) for row in rows)
        table.add_column(name, justify="right" if numeric else "left", no_wrap=True)
    for row in rows:
        table.add_row(*(Text(cell(value)) for value in row))
    console.print(Padding(table, (1, 0, 0, 0), expand=False))


def cell(value: object) -> str:
    """A value as text: whole numbers with separators, nothing for nothing."""
    if value is None:
        return ""
    return f"{value:,.0f}" if isinstance(value, int | float) else visible(str(value))


def visible(text: str) -> str:
    """Text from a file that anybody may have written, without what would move the cursor or colour the screen."""
    return "".join(char if char.isprintable() else "?" for char in text)
