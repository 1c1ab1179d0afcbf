"""What the apps tell each other. Nothing else is shared between them."""

from __future__ import annotations

from datetime import datetime

from tidings import Key, command, event, state

# ---- commands: requests that flights may refuse; sent by feed ------------------------------------


@command(app="flights", name="flight.record-schedule")
class RecordSchedule:
    """Record that a flight is planned."""

    flight_id: Key[str]
    carrier: str
    flight: int
    origin: str
    dest: str
    sched_dep: datetime
    sched_arr: datetime
    tailnum: str | None = None


@command(app="flights", name="flight.record-departure")
class RecordDeparture:
    """Record that a flight left; `delay` in minutes, negative when early."""

    flight_id: Key[str]
    delay: int


@command(app="flights", name="flight.record-arrival")
class RecordArrival:
    """Record that a flight came down; `delay` in minutes, negative when early."""

    flight_id: Key[str]
    delay: int


@command(app="flights", name="flight.record-cancellation")
class RecordCancellation:
    """Record that a flight will not leave."""

    flight_id: Key[str]


Command = RecordSchedule | RecordDeparture | RecordArrival | RecordCancellation

# ---- flights: what happened, with what a reader needs to know about it; published by flights -----


@event(topic="flights", name="flight.scheduled")
class FlightScheduled:
    """A flight is planned."""

    flight_id: Key[str]
    carrier: str
    flight: int
    origin: str
    dest: str
    sched_dep: datetime
    sched_arr: datetime
    tailnum: str | None


@event(topic="flights", name="flight.departed")
class FlightDeparted:
    """A flight left, `delay` minutes late."""

    flight_id: Key[str]
    carrier: str
    origin: str
    dest: str
    delay: int


@event(topic="flights", name="flight.arrived")
class FlightArrived:
    """A flight came down, `delay` minutes late; it had left `dep_delay` minutes late."""

    flight_id: Key[str]
    carrier: str
    origin: str
    tailnum: str | None
    sched_dep: datetime
    dep_delay: int
    delay: int


@event(topic="flights", name="flight.cancelled")
class FlightCancelled:
    """A flight will not leave."""

    flight_id: Key[str]
    carrier: str
    origin: str
    dest: str


FlightEvent = FlightScheduled | FlightDeparted | FlightArrived | FlightCancelled

LATE, VERY_LATE = 15, 60
"""Minutes: what counts as late in the statistics, and what passengers are told about."""

# ---- names: the whole record of one code, for whoever keeps a copy; published by names -----------


@state(topic="carriers", name="carrier")
class Carrier:
    """An airline."""

    code: Key[str]
    name: str


@state(topic="airports", name="airport")
class Airport:
    """An airport and the city it serves."""

    code: Key[str]
    name: str
    city: str
