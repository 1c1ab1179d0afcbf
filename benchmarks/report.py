"""What a run says: a table for people, one JSON object per line for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.measure import Result
from benchmarks.quiet import QUIET

HEADINGS = ("figure", "ours", "floor", "ratio", "rounds from-to", "target", "met", "CPU us", "floor's")
LEFT = 1
"""Columns that are words, and stand at the left."""


def cells(result: Result) -> tuple[str, ...]:
    """One line of the table."""
    figure = result.figure
    if result.error:
        return (figure.title, "failed", "", "", "", f"{figure.target:.2f}", "no", "", "")
    return (
        figure.title,
        figure.shown(result.ours),
        figure.shown(result.floor),
        f"{result.ratio:.2f}",
        f"{result.low:.2f}-{result.high:.2f}",
        f"{figure.target:.2f}",
        "yes" if result.met else "no",
        f"{result.cpu:,.0f}" if result.cpu else "",
        f"{result.floor_cpu:,.0f}" if result.floor_cpu else "",
    )


def show(results: Sequence[Result], others: float, flush: float) -> None:
    """Print the table: with rich on a terminal, in plain columns elsewhere; then what failed.

    Args:
        results: In the order of the table.
        others: Share of the machine that other processes used meanwhile.
        flush: Milliseconds that a flush took.
    """
    if sys.stdout.isatty():
        _rich(results)
    else:
        _plain([HEADINGS, *map(cells, results)])
    met = sum(result.met for result in results)
    print(
        f"{met} of {len(results)} targets met. A ratio is ours over the floor, larger is better. CPU is per operation."
    )
    print(f"A flush of the disk took {flush:.2f} ms: ratios of other disks are others.")
    if others > QUIET:
        print(f"Other processes used {others:.0%} of this machine meanwhile: run it again when it is quiet.")
    for result in results:
        if result.error:
            print(f"\n{result.figure.name}:\n{result.error}", file=sys.stderr)


def _rich(results: Sequence[Result]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for number, heading in enumerate(HEADINGS):
        table.add_column(heading, justify="left" if number < LEFT else "right")
    for result in results:
        table.add_row(*cells(result), style="" if result.met else "yellow")
    Console().print(table)


def _plain(lines: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        padded = (
            cell.ljust(width) if number < LEFT else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        print("  ".join(padded).rstrip())


def write(results: Sequence[Result], path: Path, others: float, flush: float) -> None:
    """Write one object per line, all at once, so that a run that is stopped leaves the last file as it was.

    `ratio` is always `ops_per_s / floor_ops_per_s`. Where a figure is no rate, both are reciprocals (of a latency, of a
    share of a core, of memory), which `unit` says, and `measured` and `floor` say it in its own terms.
    """
    lines = []
    for result in results:
        figure = result.figure
        line = {
            "name": figure.name,
            "ops_per_s": _round(result.ours),
            "floor_ops_per_s": _round(result.floor),
            "ratio": _round(result.ratio),
            "target": figure.target,
            "met": result.met,
            "unit": figure.unit,
            "measured": figure.shown(result.ours) if not result.error else "failed",
            "floor": figure.shown(result.floor) if not result.error else "",
            "ratio_low": _round(result.low),
            "ratio_high": _round(result.high),
            "cpu_us_per_op": _round(result.cpu),
            "floor_cpu_us_per_op": _round(result.floor_cpu),
            "rounds": result.rounds,
            "others_cpu_share": round(others, 2),
            "flush_ms": _round(flush),
            "title": figure.title,
            "note": figure.note,
        }
        lines.append(json.dumps(line))
    new = path.with_suffix(".new")
    new.write_text("\n".join(lines) + "\n")
    new.replace(path)


def _round(number: float) -> float:
    """Four significant digits: more would pretend."""
    return float(f"{number:.4g}")
