"""What the URL and the environment say about a RabbitMQ server and how to use it."""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass
from typing import Literal, cast

from tidings.core.url import Url, parse_url
from tidings.errors import BadUrl

SCHEMES = ("amqp", "amqps")
CONNECT = 10.0
"""Seconds that a connection may take to be made."""

ANSWER = 15.0
"""Seconds after which a server that does not answer is taken for dead."""

UNVERIFIED = "whoever answers is taken for the server, and gets the password: verify=verify_none"
"""What is wrong with a connection that is encrypted and no more."""

LONGEST_NAME = 255
"""Bytes of the name of an exchange or a queue; so says AMQP 0-9-1."""

PREFIX = "tidings."
"""What names of exchanges begin with where the URL does not say it."""

OPTIONS = (
    *("topology", "prefix", "shards", "prefetch", "heartbeat"),
    *("ca", "cert", "certkey", "cacertfile", "certfile", "keyfile", "verify", "mechanism"),
)
"""What may follow the `?` of the URL."""

Mode = Literal["declare", "verify", "none"]

_PORTS = {"amqp": 5672, "amqps": 5671}
_FILES = {"ca": "cacertfile", "cert": "certfile", "certkey": "keyfile"}
"""Options that name a file, and what RabbitMQ's own clients call them."""
_RANGES = {"shards": (1, 64), "prefetch": (1, 65_535), "heartbeat": (1, 600)}


@dataclass(frozen=True)
class Settings:
    """How to reach a server, and what to find there.

    Attributes:
        url: As it was read; shows no password.
        host: Name or address.
        port: Of the server.
        vhost: The virtual host.
        user: Who connects.
        password: His; never shown.
        tls: What the connection is encrypted with, or None.
        external: True where the certificate says who connects, not the password.
        heartbeat: Seconds of silence after which either side takes the other one for dead.
        prefetch: Messages that the server sends ahead of their settlement, for each queue.
        mode: Whether what is missing is declared, missed, or nobody's concern.
        prefix: What the names of exchanges begin with; if it is given, those of queues as well.
        shards: Queues that an app has for each topic.
    """

    url: Url
    host: str
    port: int
    vhost: str
    user: str
    password: str
    tls: ssl.SSLContext | None
    external: bool
    heartbeat: int
    prefetch: int
    mode: Mode
    prefix: str
    shards: int

    @property
    def trusting(self) -> bool:
        """True where whoever answers is taken for the server."""
        return self.tls is not None and self.tls.verify_mode is ssl.CERT_NONE

    @property
    def place(self) -> str:
        """The server, for messages."""
        return f"{self.host}:{self.port}"

    def __repr__(self) -> str:
        return f"Settings({self.url.safe!r})"


def settings_of(text: str) -> Settings:
    """Read `amqp://user:password@host:port/vhost?...`, or `amqps://` for TLS.

    What the URL leaves out is taken from `TIDINGS_AMQP_USER` and `TIDINGS_AMQP_PASSWORD`, and from RabbitMQ's defaults.

    Raises:
        BadUrl: It cannot be read; says where.
    """
    url = parse_url(text, SCHEMES, OPTIONS)
    option = url.options.get
    mode = _one_of(url, "topology", ("declare", "verify", "none"))
    prefix = option("prefix", PREFIX)
    if len(prefix.encode()) > LONGEST_NAME // 4:
        raise BadUrl(f"amqp: the option prefix has {len(prefix.encode())} bytes", f"at most {LONGEST_NAME // 4}")
    external = _one_of(url, "mechanism", ("plain", "external")) == "external"
    if external and url.scheme != "amqps":
        raise BadUrl("amqp: mechanism=external needs a certificate", "use amqps:// with cert and certkey")
    return Settings(
        url=url,
        host=cast("str", url.host),
        port=url.port or _PORTS[url.scheme],
        vhost=url.path or "/",
        user=url.user or os.environ.get("TIDINGS_AMQP_USER", "guest"),
        password=url.password or os.environ.get("TIDINGS_AMQP_PASSWORD", "guest"),
        tls=_tls(url),
        external=external,
        heartbeat=_number(url, "heartbeat", 10),
        prefetch=_number(url, "prefetch", 1000),
        mode=cast("Mode", mode),
        prefix=prefix,
        shards=_number(url, "shards", 1),
    )


def _one_of(url: Url, name: str, allowed: tuple[str, ...]) -> str:
    value = url.options.get(name, allowed[0])
    if value not in allowed:
        raise BadUrl(f"amqp: the option {name} is {value[:40]!r}", f"it is one of {', '.join(allowed)}")
    return value


def _number(url: Url, name: str, default: int) -> int:
    low, high = _RANGES[name]
    value = url.options.get(name, str(default))
    if not (value.isascii() and value.isdecimal() and len(value) <= len(str(high)) and low <= int(value) <= high):
        raise BadUrl(f"amqp: the option {name} is {value[:40]!r}", f"it is a whole number from {low} to {high}")
    return int(value)


def _tls(url: Url) -> ssl.SSLContext | None:
    files = _files(url)
    verify = _one_of(url, "verify", ("verify_peer", "verify_none"))
    if url.scheme == "amqp":
        if given := [name for name in (*_FILES, *_FILES.values(), "verify") if name in url.options]:
            raise BadUrl(f"amqp: the option {given[0]} is for connections with TLS", "use amqps://")
        return None
    try:
        context = ssl.create_default_context(cafile=files.get("ca"))
        if "cert" in files:
            secret = os.environ.get("TIDINGS_AMQP_CERTKEY_PASSWORD", "")  # never asked for at a terminal
            context.load_cert_chain(files["cert"], files.get("certkey"), lambda: secret)
    except OSError as error:  # ssl.SSLError is one
        where = " and ".join(files)
        cure = "name files in PEM format; the password of a key is TIDINGS_AMQP_CERTKEY_PASSWORD"
        raise BadUrl(f"amqps: {where} cannot be read: {error.strerror or error}", cure) from error
    if verify == "verify_none":
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _files(url: Url) -> dict[str, str]:
    """The files of certificates, by our names of their options."""
    found: dict[str, str] = {}
    for name, theirs in _FILES.items():
        given = [each for each in (name, theirs) if each in url.options]
        if len(given) > 1:
            raise BadUrl(f"{url.scheme}: the options {name} and {theirs} mean the same", "keep one of them")
        if given:
            found[name] = url.options[given[0]]
    return found
