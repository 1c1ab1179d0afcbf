"""How a server is set up, seen over a connection of its own."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import re
import uuid
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from pika import BasicProperties

from tidings.brokers.rabbitmq.connection import Connection, settle
from tidings.brokers.rabbitmq.settings import UNVERIFIED, Settings
from tidings.brokers.rabbitmq.topology import Exchange, Topology, declare
from tidings.brokers.rabbitmq.trouble import Ended, refusal_of
from tidings.core.check import Check, Verdict
from tidings.errors import BrokerError

_OLDEST = (3, 10)
_SOON = 0.5
"""Seconds within which a server says that it takes no messages."""


def look(settings: Settings, topology: Topology) -> Sequence[Check]:
    """Connect, look around, and leave no trace. Blocks."""

    async def collect() -> list[Check]:
        return [check async for check in _checks(settings, topology)]

    with ThreadPoolExecutor(1) as thread:  # the caller's may have a loop that runs
        return thread.submit(asyncio.run, collect()).result()


async def _checks(settings: Settings, topology: Topology) -> AsyncIterator[Check]:
    try:
        connection = await Connection.open(settings, "look")
    except BrokerError as error:
        yield Check("server", "fail", error.what, error.cure)
        return
    try:
        yield _server(settings, connection)
        yield _encryption(settings)
        yield await _permission(settings, connection, topology)
        if settings.shards > 1:
            yield await _shards(settings, connection)
        yield await _alarm(connection)  # last: in an alarm the server listens no more to whoever has published
    finally:
        await connection.close()


def _server(settings: Settings, connection: Connection) -> Check:
    found = f"{connection.server} at {settings.place}, vhost {settings.vhost!r}"
    version = re.match(r"RabbitMQ (\d+)\.(\d+)", connection.server)
    if version is None or (int(version[1]), int(version[2])) < _OLDEST:
        return Check("server", "warn", found, "tested with RabbitMQ 3.10; older versions lack what quorum queues need")
    return Check("server", "ok", found)


def _encryption(settings: Settings) -> Check:
    try:
        near = ipaddress.ip_address(settings.host).is_loopback
    except ValueError:
        near = settings.host == "localhost"
    if settings.tls is None and not near:
        return Check("encryption", "warn", "password and messages can be read on the way", "use amqps://")
    if settings.trusting:
        return Check("encryption", "warn", UNVERIFIED, "name who signed its certificate, with ca=, and drop verify=")
    return Check("encryption", "ok", "TLS" if settings.tls else "none needed: the server is on this machine")


async def _alarm(connection: Connection) -> Check:
    """A server tells those who publish that it is short of memory or disk; the message goes to nobody."""
    blocked: asyncio.Future[str | None] = connection.loop.create_future()
    connection.on_blocked(lambda reason: settle(blocked, reason))
    try:
        channel = await connection.channel()
        channel.raw.basic_publish("", f"tidings-doctor-{uuid.uuid4()}", b"", BasicProperties(delivery_mode=1))
        told: list[asyncio.Future[Any]] = [blocked, channel.ended]
        await asyncio.wait(told, timeout=_SOON, return_when=asyncio.FIRST_COMPLETED)
    except Ended:
        pass
    if blocked.done() and blocked.result():
        cure = "free memory or disk there: rabbitmqctl status shows the limits; what is published waits in the log"
        return Check("alarm", "fail", f"it takes no messages: {blocked.result()}", cure)
    return Check("alarm", "ok", "it takes messages")


async def _permission(settings: Settings, connection: Connection, topology: Topology) -> Check:
    """May this user declare what an app needs? A queue that only this connection sees, and that goes with it, tells."""
    if settings.mode == "none":
        return Check("topology", "ok", "it is declared by somebody else (topology=none)")
    name = f"{topology.queues('doctor')[0]}-{uuid.uuid4()}"
    try:
        with contextlib.closing(await connection.channel()) as channel:
            await channel.call("queue_declare", queue=name, exclusive=True, auto_delete=True)
    except Ended as error:
        refused = refusal_of(settings, error)
        verdict: Verdict = "fail" if settings.mode == "declare" else "warn"
        return Check("topology", verdict, refused.what, refused.cure)
    return Check("topology", "ok", f"the user {settings.user!r} may declare queues of {topology.app}")


async def _shards(settings: Settings, connection: Connection) -> Check:
    name = f"{settings.prefix}doctor-{uuid.uuid4()}"
    try:
        channel = await connection.channel()
        await declare(channel, Exchange(name, "x-consistent-hash"))
        await channel.call("exchange_delete", exchange=name)
    except Ended as error:
        refused = refusal_of(settings, error)
        return Check("shards", "fail", refused.what, refused.cure)
    return Check("shards", "ok", f"{settings.shards} queues for each topic")
