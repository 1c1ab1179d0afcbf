"""What can be seen of a cluster from outside: whether it is there, who may listen in, what its topics promise."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tidings.brokers.kafka.cluster import Cluster
from tidings.brokers.kafka.settings import Settings
from tidings.core.check import Check
from tidings.errors import BrokerError

_LOCAL = ("localhost", "127.0.0.1", "::1")


def look(settings: Settings) -> Sequence[Check]:
    """How it is set up; blocks."""
    return list(_findings(settings))


def _findings(settings: Settings) -> Iterator[Check]:
    cluster = Cluster(settings)
    try:
        brokers = cluster.brokers()
    except BrokerError as error:
        yield Check("connection", "fail", error.what, error.cure)
        return
    yield Check("connection", "ok", f"{brokers} broker{'s' if brokers > 1 else ''} at {settings.servers}")
    yield _encryption(settings)
    if brokers == 1:
        fix = "use three brokers where what is published must outlive a machine"
        yield Check("copies", "warn", "there is one broker, and so one copy of each message", fix)


def _encryption(settings: Settings) -> Check:
    if settings.secure:
        return Check("encryption", "ok", "the connection is encrypted")
    if settings.url.host in _LOCAL:
        return Check("encryption", "ok", "the connection stays on this machine")
    what = "the password is sent in the clear" if settings.mechanism == "PLAIN" else "the connection is not encrypted"
    return Check("encryption", "warn", what, "add tls=true to the URL")
