"""The figures: everything the demo counts, asked of the read models in SQL."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tidings import App
from tidings.demo.board import departures, punctuality

TOTALS = {
    "flights": "flights",
    "departed": "departed",
    "arrived": "arrived",
    "cancelled": "cancelled",
    "sum_dep_delay_min": "dep_delay",
    "sum_arr_delay_min": "arr_delay",
    "departed_60_or_more_late": "very_late",
    "events": "flights + departed + arrived + cancelled",
}
BY_CARRIER = {
    "flights": "flights",
    "cancelled": "cancelled",
    "arrived": "arrived",
    "arrived_under_15_late": "in_time",
    "sum_arr_delay": "arr_delay",
}
BY_ORIGIN = {"flights": "flights", "cancelled": "cancelled", "sum_dep_delay": "dep_delay"}

WORST = """
    SELECT flight_id, dep_delay FROM departure WHERE dep_delay IS NOT NULL ORDER BY dep_delay DESC, flight_id LIMIT 5
"""


async def figures(board: App, *, after: int = 0) -> dict[str, Any]:
    """All figures, once the read models know everything up to position `after` of the log."""
    totals = await _sums(board, TOTALS, "'all'", after)
    return {
        **totals.get("all", dict.fromkeys(TOTALS, 0)),
        "by_carrier": await _sums(board, BY_CARRIER, "carrier", after),
        "by_origin": await _sums(board, BY_ORIGIN, "origin", after),
        "worst_5": [list(row) for row in await board.query(departures, WORST, after=after)],
    }


async def _sums(board: App, columns: Mapping[str, str], group: str, after: int) -> dict[str, dict[str, int]]:
    """The sums of columns, by group."""
    sums = ", ".join(f"CAST(sum({column}) AS BIGINT)" for column in columns.values())
    sql = f"SELECT {group}, {sums} FROM punctuality GROUP BY 1 ORDER BY 1"  # noqa: S608 - all of it stands above
    rows = await board.query(punctuality, sql, after=after)
    return {name: dict(zip(columns, values, strict=True)) for name, *values in rows}
