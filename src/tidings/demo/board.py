"""The departure board and punctuality: two read models, fed by the flights' events.

CQRS: what is asked for is kept ready in tables. Each projection commits its rows together with how far it has read,
so that a counter counts every event once, whatever crashes.
"""

from __future__ import annotations

from tidings import Projection, Replica, Transaction
from tidings.demo.messages import (
    LATE,
    VERY_LATE,
    Airport,
    Carrier,
    FlightArrived,
    FlightCancelled,
    FlightDeparted,
    FlightScheduled,
)

carriers = Replica(Carrier)
airports = Replica(Airport)

departures = Projection(
    "departures",
    schema="""
        CREATE TABLE departure (
            flight_id TEXT PRIMARY KEY, carrier TEXT, flight INTEGER, origin TEXT, dest TEXT, sched_dep TEXT,
            status TEXT, dep_delay INTEGER, arr_delay INTEGER
        )
    """,
)


@departures.on(FlightScheduled)
async def announce(flight: FlightScheduled, tx: Transaction) -> None:
    """Put a new line on the board."""
    await tx.execute(
        "INSERT INTO departure VALUES (?, ?, ?, ?, ?, ?, 'scheduled', NULL, NULL)",
        *(flight.flight_id, flight.carrier, flight.flight, flight.origin, flight.dest, flight.sched_dep.isoformat()),
    )


@departures.on(FlightDeparted)
async def depart(flight: FlightDeparted, tx: Transaction) -> None:
    """Show the delay of departure."""
    sql = "UPDATE departure SET status = 'departed', dep_delay = ? WHERE flight_id = ?"
    await tx.execute(sql, flight.delay, flight.flight_id)


@departures.on(FlightArrived)
async def arrive(flight: FlightArrived, tx: Transaction) -> None:
    """Show the delay of arrival."""
    sql = "UPDATE departure SET status = 'arrived', arr_delay = ? WHERE flight_id = ?"
    await tx.execute(sql, flight.delay, flight.flight_id)


@departures.on(FlightCancelled)
async def cancel(flight: FlightCancelled, tx: Transaction) -> None:
    """Show that it will not leave."""
    await tx.execute("UPDATE departure SET status = 'cancelled' WHERE flight_id = ?", flight.flight_id)


punctuality = Projection(
    "punctuality",
    schema="""
        CREATE TABLE punctuality (
            carrier TEXT, origin TEXT, flights INTEGER DEFAULT 0, cancelled INTEGER DEFAULT 0,
            departed INTEGER DEFAULT 0, very_late INTEGER DEFAULT 0, dep_delay INTEGER DEFAULT 0,
            arrived INTEGER DEFAULT 0, in_time INTEGER DEFAULT 0, arr_delay INTEGER DEFAULT 0,
            PRIMARY KEY (carrier, origin)
        )
    """,
)


@punctuality.on(FlightScheduled)
async def count_flight(flight: FlightScheduled, tx: Transaction) -> None:
    """One more flight of this carrier from here."""
    sql = """INSERT INTO punctuality (carrier, origin, flights) VALUES (?, ?, 1)
        ON CONFLICT (carrier, origin) DO UPDATE SET flights = punctuality.flights + 1"""
    await tx.execute(sql, flight.carrier, flight.origin)


@punctuality.on(FlightDeparted)
async def count_departure(flight: FlightDeparted, tx: Transaction) -> None:
    """One more departure, and its delay."""
    sql = """UPDATE punctuality SET departed = departed + 1, very_late = very_late + ?, dep_delay = dep_delay + ?
        WHERE carrier = ? AND origin = ?"""
    await tx.execute(sql, int(flight.delay >= VERY_LATE), flight.delay, flight.carrier, flight.origin)


@punctuality.on(FlightArrived)
async def count_arrival(flight: FlightArrived, tx: Transaction) -> None:
    """One more arrival, and its delay."""
    sql = """UPDATE punctuality SET arrived = arrived + 1, in_time = in_time + ?, arr_delay = arr_delay + ?
        WHERE carrier = ? AND origin = ?"""
    await tx.execute(sql, int(flight.delay < LATE), flight.delay, flight.carrier, flight.origin)


@punctuality.on(FlightCancelled)
async def count_cancellation(flight: FlightCancelled, tx: Transaction) -> None:
    """One more flight that did not leave."""
    sql = "UPDATE punctuality SET cancelled = cancelled + 1 WHERE carrier = ? AND origin = ?"
    await tx.execute(sql, flight.carrier, flight.origin)
