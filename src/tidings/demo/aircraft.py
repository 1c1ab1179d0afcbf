"""Aircraft: an arrival that is late makes the next departure of the same aircraft late.

Changing the key: flights are ordered by flight, aircraft by tail number. A handler publishes what the aircraft did
under its tail number, and from there on all that concerns one aircraft is handled in order, one at a time.
"""

from __future__ import annotations

from datetime import datetime

from tidings import Key, Router, Transaction, event
from tidings.demo.messages import LATE, FlightArrived

SCHEMA = """
    CREATE TABLE IF NOT EXISTS leg (
        tailnum TEXT, sched_dep INTEGER, flight_id TEXT, dep_delay INTEGER, arr_delay INTEGER, chain INTEGER DEFAULT 0,
        PRIMARY KEY (tailnum, sched_dep, flight_id)
    )
"""


@event(name="aircraft.flew")
class AircraftFlew:
    """An aircraft completed a flight; delays in minutes."""

    tailnum: Key[str]
    flight_id: str
    sched_dep: datetime
    dep_delay: int
    arr_delay: int


aircraft = Router("aircraft")


@aircraft.on(FlightArrived)
async def by_tail_number(flight: FlightArrived) -> AircraftFlew | None:
    """Tell it again under the aircraft's tail number."""
    if flight.tailnum is None:
        return None
    return AircraftFlew(flight.tailnum, flight.flight_id, flight.sched_dep, flight.dep_delay, flight.delay)


@aircraft.on(AircraftFlew)
async def follow(leg: AircraftFlew, tx: Transaction) -> None:
    """Write down the leg, and how many late arrivals in a row led to each late departure of this aircraft.

    Flights may be reported in any order, so the whole chain is told anew: an aircraft has few legs.
    """
    row = (leg.tailnum, int(leg.sched_dep.timestamp()), leg.flight_id, leg.dep_delay, leg.arr_delay)
    await tx.execute("INSERT INTO leg VALUES (?, ?, ?, ?, ?, 0)", *row)
    sql = "SELECT flight_id, dep_delay, arr_delay, chain FROM leg WHERE tailnum = ? ORDER BY sched_dep, flight_id"
    links, came_late = 0, False
    for flight_id, dep_delay, arr_delay, known in (await tx.execute(sql, leg.tailnum)).fetchall():
        links = links + 1 if came_late and dep_delay >= LATE else 0
        came_late = arr_delay >= LATE
        if links != known:
            sql = "UPDATE leg SET chain = ? WHERE tailnum = ? AND flight_id = ?"
            await tx.execute(sql, links, leg.tailnum, flight_id)
