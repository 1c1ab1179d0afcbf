"""Alerts by mail, through a gateway that fails now and then.

Event notification: a handler reacts to an event, and what it returns is published with its acknowledgement. The
three steps are three handlers, so that a mail which cannot be sent holds up nothing but itself.
"""

from __future__ import annotations

import zlib

from tidings import Key, Retry, Router, Transaction, event
from tidings.demo.messages import VERY_LATE, FlightCancelled, FlightDeparted

SCHEMA = "CREATE TABLE IF NOT EXISTS mail (flight_id TEXT, text TEXT)"


@event(topic="alerts", name="alert.raised")
class AlertRaised:
    """Passengers of a flight have to be told something."""

    flight_id: Key[str]
    text: str


@event(name="mail.sent")  # without a topic: it stays in this app
class MailSent:
    """The gateway took a mail."""

    flight_id: Key[str]
    text: str


class GatewayBusy(Exception):
    """The gateway cannot take a mail just now."""


class AddressUnknown(Exception):
    """The gateway will never deliver this mail."""


class MailGateway:
    """Stands for a mail service: busy at the first try of every tenth mail, and 1 address in 150 does not exist.

    Which ones follows from the key alone, so that every run shows the same.

    Attributes:
        busy: How often it was busy.
    """

    def __init__(self) -> None:
        """Start with nobody served yet."""
        self.busy = 0
        self._tried: set[str] = set()

    async def send(self, key: str) -> None:
        """Send a mail, or say why not."""
        chance = zlib.crc32(key.encode())
        if chance % 150 == 0:
            raise AddressUnknown(f"no mailbox for {key}")
        if chance % 10 == 0 and key not in self._tried:
            self._tried.add(key)
            self.busy += 1
            raise GatewayBusy("too many mails, try again")


alerts = Router("alerts")
gateway = MailGateway()


@alerts.on(FlightCancelled | FlightDeparted)
async def raise_alert(flight: FlightCancelled | FlightDeparted) -> AlertRaised | None:
    """Decide whether passengers have to be told."""
    match flight:
        case FlightCancelled():
            return AlertRaised(flight.flight_id, f"{flight.origin}-{flight.dest} is cancelled")
        case FlightDeparted(delay=delay) if delay >= VERY_LATE:
            return AlertRaised(flight.flight_id, f"{flight.origin}-{flight.dest} left {delay} minutes late")
    return None


@alerts.on(AlertRaised, retry=Retry(attempts=20, initial=0.05, maximum=1.0, never=(AddressUnknown,)))
async def send_mail(alert: AlertRaised) -> MailSent:
    """Send the mail: at least once, as nobody can take back a mail when this process dies behind it."""
    await gateway.send(alert.flight_id)
    return MailSent(alert.flight_id, alert.text)


@alerts.on(MailSent)
async def count_mail(mail: MailSent, tx: Transaction) -> None:
    """Keep account of the mails: exactly once, as the row and the acknowledgement commit together."""
    await tx.execute("INSERT INTO mail VALUES (?, ?)", mail.flight_id, mail.text)
