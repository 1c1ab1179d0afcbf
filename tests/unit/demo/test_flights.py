"""Which moves of a flight are possible, told as sentences: these tests need no app and no store."""

from datetime import UTC, datetime

import pytest

from tidings.demo.board import departures, punctuality
from tidings.demo.flights import Impossible, flights
from tidings.demo.messages import (
    FlightArrived,
    FlightCancelled,
    FlightDeparted,
    FlightScheduled,
    RecordArrival,
    RecordCancellation,
    RecordDeparture,
    RecordSchedule,
)
from tidings.testing.given import given

NOON, TWO = datetime(2013, 2, 8, 12, tzinfo=UTC), datetime(2013, 2, 8, 14, tzinfo=UTC)
PLAN = ("DL1", "DL", 1, "JFK", "ATL", NOON, TWO, "N1")

scheduled = FlightScheduled(*PLAN)
departed = FlightDeparted("DL1", "DL", "JFK", "ATL", 20)
arrived = FlightArrived("DL1", "DL", "JFK", "N1", NOON, 20, 5)
cancelled = FlightCancelled("DL1", "DL", "JFK", "ATL")

schedule = RecordSchedule(*PLAN)
depart = RecordDeparture("DL1", 20)
arrive = RecordArrival("DL1", 5)
cancel = RecordCancellation("DL1")


@pytest.mark.parametrize(
    ("history", "command", "event"),
    [
        ([], schedule, scheduled),
        ([scheduled], depart, departed),
        ([scheduled, departed], arrive, arrived),
        ([scheduled], cancel, cancelled),
    ],
)
def test_a_possible_move_happens(history, command, event) -> None:
    given(flights, *history).when(command).then(event)


@pytest.mark.parametrize("command", [schedule, depart, arrive])
def test_what_is_known_already_changes_nothing(command) -> None:
    given(flights, scheduled, departed, arrived).when(command).then_nothing()


def test_a_cancellation_may_be_repeated() -> None:
    given(flights, scheduled, cancelled).when(cancel).then_nothing()


@pytest.mark.parametrize(
    ("history", "command"),
    [
        ([], depart),
        ([], arrive),
        ([], cancel),
        ([scheduled], arrive),
        ([scheduled], RecordSchedule("DL1", "DL", 2, "JFK", "ATL", NOON, TWO, "N1")),
        ([scheduled, departed], RecordDeparture("DL1", 21)),
        ([scheduled, departed], cancel),
        ([scheduled, departed, arrived], RecordArrival("DL1", 6)),
        ([scheduled, cancelled], depart),
    ],
)
def test_an_impossible_move_is_refused(history, command) -> None:
    given(flights, *history).when(command).raises(Impossible, match="DL1")


async def test_the_board_shows_how_a_flight_went() -> None:
    board = given(departures, scheduled, departed, arrived)
    sql = "SELECT flight_id, carrier, status, dep_delay, arr_delay FROM departure"
    assert await board.rows(sql) == [("DL1", "DL", "arrived", 20, 5)]


async def test_punctuality_counts_each_carrier_at_each_airport() -> None:
    other = FlightScheduled("DL2", "DL", 2, "JFK", "BOS", NOON, TWO, None)
    table = given(punctuality, scheduled, departed, arrived, other, FlightCancelled("DL2", "DL", "JFK", "BOS"))
    sql = (
        "SELECT carrier, origin, flights, cancelled, departed, dep_delay, arrived, in_time, arr_delay FROM punctuality"
    )
    assert await table.rows(sql) == [("DL", "JFK", 2, 1, 1, 20, 1, 1, 5)]
