"""Flights, event-sourced: commands come in, facts go out, and what cannot be is refused.

Event sourcing: `decide` and `evolve` are pure functions. The history of a flight is its stream of events; what is known
about it is what `evolve` makes of that history.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from tidings import Decider
from tidings.demo.messages import (
    Command,
    FlightArrived,
    FlightCancelled,
    FlightDeparted,
    FlightEvent,
    FlightScheduled,
    RecordArrival,
    RecordCancellation,
    RecordDeparture,
    RecordSchedule,
)


class Impossible(Exception):
    """What should be recorded contradicts what is known about the flight."""


@dataclass(frozen=True)
class Flight:
    """What is known about a flight."""

    status: Literal["unknown", "scheduled", "departed", "arrived", "cancelled"] = "unknown"
    plan: FlightScheduled | None = None
    dep_delay: int = 0
    history: tuple[FlightEvent, ...] = ()


def decide(flight: Flight, command: Command) -> Iterator[FlightEvent]:
    """The event that follows; none where the command only repeats what is known."""
    happened = as_event(flight, command)
    match flight.status, happened:
        case (
            ("unknown", FlightScheduled())
            | ("scheduled", FlightDeparted() | FlightCancelled())
            | ("departed", FlightArrived())
        ):
            yield happened
        case _ if happened not in flight.history:
            raise Impossible(f"{command.flight_id} is {flight.status}, which {command} contradicts")


def as_event(flight: Flight, command: Command) -> FlightEvent:
    """What the command says, as an event; what it leaves out is known from the plan."""
    id, plan = command.flight_id, flight.plan
    if isinstance(command, RecordSchedule):
        return FlightScheduled(
            id,
            command.carrier,
            command.flight,
            command.origin,
            command.dest,
            command.sched_dep,
            command.sched_arr,
            command.tailnum,
        )
    if plan is None:
        raise Impossible(f"{id} was never scheduled, which {command} takes for granted")
    match command:
        case RecordDeparture(delay=delay):
            return FlightDeparted(id, plan.carrier, plan.origin, plan.dest, delay)
        case RecordArrival(delay=delay):
            return FlightArrived(id, plan.carrier, plan.origin, plan.tailnum, plan.sched_dep, flight.dep_delay, delay)
        case RecordCancellation():
            return FlightCancelled(id, plan.carrier, plan.origin, plan.dest)


def evolve(flight: Flight, happened: FlightEvent) -> Flight:
    """What is known after one more event."""
    history = (*flight.history, happened)
    match happened:
        case FlightScheduled():
            return replace(flight, status="scheduled", plan=happened, history=history)
        case FlightDeparted(delay=delay):
            return replace(flight, status="departed", dep_delay=delay, history=history)
        case FlightArrived():
            return replace(flight, status="arrived", history=history)
        case FlightCancelled():
            return replace(flight, status="cancelled", history=history)


# A contradiction becomes a dead letter at once, for a human to look at; what comes after it is decided all the same.
flights = Decider("flight", initial=Flight(), decide=decide, evolve=evolve)
