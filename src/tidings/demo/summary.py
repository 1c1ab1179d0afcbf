"""The summary for people: what happened, asked of the read models and told in sentences and tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Console
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
    SELECT d.carrier || d.flight, coalesce(c.name, d.carrier), coalesce(o.name, d.origin), coalesce(a.city, d.dest),
        substr(d.sched_dep, 1, 10), d.dep_delay
    FROM departure d LEFT JOIN carriers c ON c.code = d.carrier
        LEFT JOIN airports o ON o.code = d.origin LEFT JOIN airports a ON a.code = d.dest
    WHERE d.dep_delay IS NOT NULL ORDER BY d.dep_delay DESC, d.flight_id LIMIT 5
"""
AIRCRAFT = "SELECT count(*), max(chain) FROM leg WHERE chain > 0"
FURTHEST = "SELECT tailnum FROM leg ORDER BY chain DESC, tailnum LIMIT 1"


async def tell(console: Console, board: App, figures: dict[str, Any], status: Status, *, busy: int) -> None:
    """Print the summary."""
    say(
        console,
        f"{figures['flights']:,} flights: {figures['departed']:,} departed, "
        f"{figures['departed_60_or_more_late']:,} of them an hour late or more; {figures['arrived']:,} arrived; "
        f"{figures['cancelled']:,} were cancelled.",
    )
    columns = ("From", "Flights", "Cancelled", "Departed", "60 min late", "Mean delay")
    draw(console, columns, await board.query(punctuality, AIRPORTS))
    columns = ("Carrier", "Flights", "Cancelled", "Arrived", "Under 15 late", "Mean delay")
    draw(console, columns, await board.query(punctuality, CARRIERS))
    columns = ("Latest", "Carrier", "From", "To", "Day", "Minutes")
    draw(console, columns, await board.query(departures, LATEST))
    [(late, longest)] = await board.store.query(AIRCRAFT)
    if late:
        [(tailnum,)] = await board.store.query(FURTHEST)
        say(
            console,
            f"{late:,} departures were late after the same aircraft had arrived late; "
            f"{tailnum} passed it on {longest} times in a row.",
        )
    dead = "dead letter" if status.dead == 1 else "dead letters"
    say(
        console,
        f"{status.mails:,} mails told passengers, each counted once. The gateway was busy {busy:,} times and was tried "
        f"again; {status.dead:,} {dead}.",
    )


def say(console: Console, sentence: str) -> None:
    """Print a sentence."""
    console.print(Text(visible(sentence)), soft_wrap=not console.is_terminal)


def draw(console: Console, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print rows as a table, without its lines where nobody looks at them."""
    table = Table(box=box.SIMPLE_HEAD if console.is_terminal else None, pad_edge=False)
    for number, name in enumerate(columns):
        numeric = all(isinstance(row[number], int | float | None) for row in rows)
        table.add_column(name, justify="right" if numeric else "left", no_wrap=True)
    for row in rows:
        table.add_row(*(Text(cell(value)) for value in row))
    console.print(table)


def cell(value: object) -> str:
    """A value as text: whole numbers with separators, nothing for nothing."""
    if value is None:
        return ""
    return f"{value:,.0f}" if isinstance(value, int | float) else visible(str(value))


def visible(text: str) -> str:
    """Text from a file that anybody may have written, without what would move the cursor or colour the screen."""
    return "".join(char if char.isprintable() else "?" for char in text)
