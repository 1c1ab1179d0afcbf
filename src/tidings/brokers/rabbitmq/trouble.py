"""What goes wrong with RabbitMQ, as errors that say what, where and the cure."""

from __future__ import annotations

import re
import ssl
from typing import NamedTuple

from pika import exceptions

from tidings.brokers.rabbitmq.settings import Settings
from tidings.errors import BrokerError, BrokerRefused, BrokerUnavailable

REFUSED, NOT_FOUND, LOCKED, UNFIT = 403, 404, 405, 406
"""Reply codes of AMQP that end a channel."""

_THERE = "is it running, and is this its port?"
_UNEQUAL = re.compile(
    r"inequivalent arg '(?P<name>[^']*)' for (?P<what>\w+) '(?P<which>.*?)' in vhost .*?:"
    r" received (?:the value )?(?P<wanted>.*?)(?: of type '\w+')? but current is (?:the value )?"
    r"(?P<found>.*?)(?: of type '\w+')?$"
)


class Ending(NamedTuple):
    """Why a connection or a channel ended.

    Attributes:
        code: AMQP's reply code; 0 where no server gave one.
        text: What the server said, or what happened.
    """

    code: int
    text: str


class Ended(Exception):
    """The server ended a channel instead of answering, or the connection under it ended."""

    def __init__(self, ending: Ending) -> None:
        super().__init__(f"{ending.code} {ending.text}")
        self.ending = ending


def ending_of(error: BaseException) -> Ending:
    """Why something ended, from what pika says about it."""
    code = getattr(error, "reply_code", 0)
    text = getattr(error, "reply_text", None) if code else None
    return Ending(int(code), str(text) if text else _plain(_root(error)))


def trouble_of(settings: Settings, error: BaseException) -> BrokerError:
    """Why a connection could not be made."""
    cause = _root(error)
    if isinstance(cause, ssl.SSLError):
        return _tls_trouble(settings, cause)
    text, where = str(cause), f"RabbitMQ at {settings.place}"
    if "ACCESS_REFUSED" in text and "vhost" not in text:
        cure = "check the user and the password; guest may connect from the same machine only"
        return BrokerRefused(f"{where} refuses the user {settings.user!r}", cure)
    if "NOT_ALLOWED" in text and "not found" in text:
        cure = f"create it: rabbitmqctl add_vhost {settings.vhost}; or correct the URL"
        return BrokerRefused(f"{where} has no vhost {settings.vhost!r}", cure)
    if "NOT_ALLOWED" in text and "refused" in text and "down" not in text:
        cure = f"""permit it: rabbitmqctl set_permissions -p {settings.vhost} {settings.user} ".*" ".*" ".*\""""
        return BrokerRefused(f"{where} refuses the vhost {settings.vhost!r} to the user {settings.user!r}", cure)
    if isinstance(cause, exceptions.IncompatibleProtocolError):
        cure = "is it a RabbitMQ that is starting? Where this port is for TLS, write amqps:// in the URL."
        return unavailable(settings, "it ended the connection before it said anything", cure)
    return unavailable(settings, _plain(cause))


def _tls_trouble(settings: Settings, cause: ssl.SSLError) -> BrokerError:
    where = f"RabbitMQ at {settings.place}"
    if isinstance(cause, ssl.SSLCertVerificationError):
        cure = "name the authority that signed it in the URL: ?ca=/path/to/ca.pem"
        if "mismatch" in str(cause.verify_message):
            cure = "name the host in the URL as the certificate does"
        return BrokerRefused(f"{where}: its certificate is not trusted: {cause.verify_message}", cure)
    cure = "is this its port for TLS (5671)? Does it want a certificate (cert, certkey)?"
    return BrokerUnavailable(f"{where}: no TLS connection: {cause.reason or cause}", cure)


def unavailable(settings: Settings, what: str, cure: str = _THERE) -> BrokerUnavailable:
    """The server cannot be reached."""
    waits = "What is published waits in the log meanwhile"
    return BrokerUnavailable(f"RabbitMQ at {settings.place} cannot be reached: {what}", f"{cure} {waits}")


def refusal_of(settings: Settings, error: Ended, needed: str = "") -> BrokerError:
    """What the server refused over a channel.

    Args:
        settings: Where.
        error: What it said.
        needed: All of the arguments of a queue that was declared.
    """
    code, text = error.ending
    where, said = f"RabbitMQ at {settings.place}", re.sub(r"^[A-Z_]+ - ", "", text).strip()
    if (unequal := _UNEQUAL.search(text)) is not None:
        which = f"{unequal['what']} {unequal['which']}"
        what = f"{where}: the {which} has {unequal['name']} {unequal['found']}, needed is {unequal['wanted']}"
        cure = f"delete the {which} once nothing waits there, or choose another name of the app or another vhost"
        return BrokerRefused(f"{what} (of {needed})" if needed else what, cure)
    cures = {
        REFUSED: f"permit it: rabbitmqctl set_permissions -p {settings.vhost} {settings.user} CONFIGURE WRITE READ",
        NOT_FOUND: "declare it, or use topology=declare",
        LOCKED: "see which connection uses it alone",
        UNFIT: "see what the server's log says about it",
    }
    if code in cures:
        return BrokerRefused(f"{where}: {said}", cures[code])
    if "unknown exchange type" in text:
        cure = "rabbitmq-plugins enable rabbitmq_consistent_hash_exchange; or leave out shards="
        return BrokerRefused(f"{where} cannot spread a topic over shards", cure)
    return BrokerUnavailable(f"{where}: {said}", "it is tried again")


def _root(error: BaseException) -> BaseException:
    """The cause that pika wraps into the phases of its work."""
    while True:
        inner = getattr(error, "exceptions", None) or [getattr(error, "exception", None), *error.args[:1]]
        found = next((each for each in reversed(inner) if isinstance(each, BaseException)), None)
        if found is None:
            return error
        error = found


def _plain(error: BaseException) -> str:
    if isinstance(error, OSError):
        return error.strerror or str(error) or type(error).__name__
    if isinstance(error, TimeoutError | exceptions.AMQPHeartbeatTimeout):
        return "it does not answer"
    return str(error) or type(error).__name__
