"""URLs of stores and brokers. What is wrong is said with its place; a password is never shown."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from urllib.parse import quote, unquote_to_bytes

from tidings.errors import BadUrl

SCHEMES = ("sqlite", "postgresql", "kafka", "amqp", "amqps", "sqs")
"""Schemes tidings knows by itself; adapters of others may add more."""

_EXAMPLES = {
    "sqlite": "sqlite:shop.db",
    "postgresql": "postgresql://user:password@localhost/shop",
    "kafka": "kafka://localhost:9092",
    "amqp": "amqp://user:password@localhost:5672/vhost",
    "amqps": "amqps://user:password@rabbitmq.example.com/vhost",
    "sqs": "sqs://eu-central-1?fifo=true",
}
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*):")
_HOST = re.compile(r"\[[0-9A-Fa-f:.]+(?:%[A-Za-z0-9]+)?\]|[^\[\]:@]*")
_SECRET = re.compile(r"passw|secret|token|key|credential", re.IGNORECASE)
_LAST_PORT = 65_535


@dataclass(frozen=True, repr=False)
class Url:
    """A store or broker, as a URL names it. Its text form hides the password.

    Attributes:
        scheme: In lower case: "sqlite", "postgresql", "kafka"...
        path: The file of `sqlite:`, "" in memory; elsewhere what follows the host, without the slashes around it.
        host: Name or address without brackets, or None.
        port: 1 to 65535, or None.
        user: Decoded, or None.
        password: Decoded, or None.
        options: What follows the `?`, decoded, in the order written.
    """

    scheme: str
    path: str = ""
    host: str | None = None
    port: int | None = None
    user: str | None = None
    password: str | None = None
    options: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), hash=False)

    @property
    def safe(self) -> str:
        """The URL as text for logs and messages, secrets replaced by `***`."""
        if self.scheme == "sqlite":
            text = "///" + self.path.lstrip("/") if self.path.startswith("/") else self.path or ":memory:"
        else:
            secret = ":***" if self.password is not None else ""
            user = f"{quote(self.user or '', safe='')}{secret}@" if self.user is not None or secret else ""
            host = f"[{self.host}]" if ":" in (self.host or "") else self.host or ""
            port = f":{self.port}" if self.port is not None else ""
            text = f"//{user}{host}{port}{'/' if self.path else ''}{quote(self.path)}"
        shown = "&".join(f"{key}={'***' if _SECRET.search(key) else value}" for key, value in self.options.items())
        return f"{self.scheme}:{text}{'?' if shown else ''}{shown}"

    def __str__(self) -> str:
        return self.safe

    def __repr__(self) -> str:
        return f"Url({self.safe!r})"


def parse_url(text: str, schemes: Collection[str] = SCHEMES, options: Collection[str] | None = None) -> Url:
    """Read the URL of a store or broker.

    Args:
        text: `sqlite:shop.db`, `sqlite:///var/lib/shop.db`, `sqlite::memory:`, `postgresql://...`, `kafka://...`,
            `amqp://...` or `sqs://...`.
        schemes: Those to accept; the ones tidings knows if not given.
        options: Names of the options that are taken, which an adapter knows for its own URLs; any if not given.

    Raises:
        BadUrl: It cannot be read; says where and what to write instead.
    """
    _check_text(text)
    start = _SCHEME.match(text)
    if start is None:
        msg = "the URL begins with no scheme"
        raise BadUrl(msg, f"begin with {' or '.join(f'{scheme}:' for scheme in schemes)}, as in sqlite:shop.db")
    scheme = start[1].lower()
    if scheme not in schemes:
        msg = f"the scheme {scheme[:40]}: is not known"
        raise BadUrl(msg, f"{_nearest(f'{scheme}:', [f'{known}:' for known in schemes])}known: {', '.join(schemes)}")
    before, mark, query = text[start.end() :].partition("?")
    if "#" in text:
        raise _bad(scheme, "a # would end the URL", text.index("#"), "write %23 for # in a password or a name")
    url = _file(before, text) if scheme == "sqlite" else _server(scheme, before, text)
    found = _options(scheme, query, len(text) - len(query), options) if mark else {}
    return Url(scheme, url.path, url.host, url.port, url.user, url.password, MappingProxyType(found))


def without(text: str, names: Collection[str]) -> str:
    """A URL that can be read, without some of its options."""
    before, _, query = text.partition("?")
    kept = "&".join(part for part in query.split("&") if part.partition("=")[0] not in names)
    return f"{before}?{kept}" if kept else before


def default_name(url: Url) -> str:
    """The name of an app that gives none: the stem of its file, as far as a name may hold it."""
    file = url.path.rpartition("/")[2]
    stem = file.rpartition(".")[0] or file
    name = "".join(letter if letter.isascii() and letter.isalnum() else "_" for letter in stem)
    return name if name[:1].isalpha() else f"app{name and '_'}{name}".strip("_") or "app"


def _check_text(text: object) -> None:
    if not isinstance(text, str):
        msg = f"a URL is text, not {type(text).__qualname__}"
        raise BadUrl(msg, "give a URL such as sqlite:shop.db")
    if not text.strip():
        raise BadUrl("the URL is empty", "give one such as sqlite:shop.db; is the environment variable set?")
    if text != text.strip():
        raise BadUrl("the URL has blanks around it", "remove them: the value is taken as it is")
    for index, char in enumerate(text):
        if not char.isprintable():
            msg = f"the URL has the character {char!a} at character {index + 1}"
            raise BadUrl(msg, "remove it")
    if text[0] in "'\"" or text[-1] in "'\"":
        raise BadUrl("the URL has quotation marks around it", "remove them: the value is taken as it is")


def _file(rest: str, text: str) -> Url:
    example = "write sqlite:shop.db, sqlite:///var/lib/shop.db or sqlite::memory:"
    if rest in {":memory:", "///:memory:"}:  # the second one as SQLAlchemy writes it
        return Url("sqlite")
    place = len(text) - len(text.partition(":")[2])
    if rest.startswith("//") and not rest.startswith("///"):
        name = "shop.db" if "@" in rest else rest[2:]  # before an @ there may be a password
        cure = f"write sqlite:{name} for a relative path, sqlite:///{name} for an absolute one"
        raise _bad("sqlite", "a file has no host", place, cure)
    if rest.startswith(("~", "///~", "$", "///$")):
        raise _bad("sqlite", f"{rest.lstrip('/')[0]} is not expanded here", place, "write the path out in full")
    path = "/" + rest.lstrip("/") if rest.startswith("/") else rest
    path = _decoded("sqlite", path, place)
    if not path.strip("/") or path.endswith("/"):
        raise BadUrl("sqlite: names no file" if not path.strip("/") else f"{path!r} is a directory", example)
    if not path.isprintable():
        raise _bad("sqlite", "the path holds a control character", place, example)
    return Url("sqlite", path)


def _server(scheme: str, rest: str, text: str) -> Url:
    example = f"as in {_EXAMPLES.get(scheme, f'{scheme}://localhost')}"
    if " " in rest:
        raise _bad(scheme, "there is a blank", text.index(" "), "remove it, or write %20 for one in a password")
    if not rest.startswith("//"):
        raise _bad(scheme, "the host is missing", len(scheme) + 1, f"write // before the host, {example}")
    start = len(scheme) + 3
    authority, _, path = rest[2:].partition("/")
    credentials, at, place = authority.rpartition("@")
    if "@" in credentials:
        where = start + credentials.index("@")
        raise _bad(scheme, "there are two @ before the host", where, "write %40 for an @ in a password")
    user, colon, password = credentials.partition(":")
    if ":" in password:
        where = start + len(user) + 1 + password.index(":")
        raise _bad(scheme, "there are two : before the @", where, "write %3A for a : in a password")
    host_at = start + len(credentials) + len(at)
    host = _HOST.match(place)
    end = host.end() if host else 0
    port = place[end:]
    if port and (port[0] != ":" or not _is_port(port[1:])):
        if "@" in text[host_at:]:  # an authority cut short by what belongs to a password
            cure = "write %2F for a / and %3F for a ? in a password"
            raise _bad(scheme, "an @ follows the host", text.index("@", host_at), cure)
        if "," in place:
            raise _bad(scheme, "there are several hosts", host_at, f"name one, {example}")
        if place.count(":") > 1 and not place.startswith("["):
            raise _bad(scheme, "the host has more than one :", host_at, "write an IPv6 address as [::1]")
        cure = f"a port is a number from 1 to {_LAST_PORT}, {example}"
        raise _bad(scheme, "the port cannot be read", host_at + end, cure)
    if not place[:end].strip("[]"):
        raise _bad(scheme, "the host is missing", host_at, example)
    path = path.strip("/")
    return Url(
        scheme,
        _decoded(scheme, path, host_at + len(place) + 1),
        _decoded(scheme, place[:end].strip("[]"), host_at),
        int(port[1:]) if port else None,
        _decoded(scheme, user, start) if at else None,
        _decoded(scheme, password, start + len(user) + 1) if colon else None,
    )


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= len(str(_LAST_PORT)) and 0 < int(text) <= _LAST_PORT


def _options(scheme: str, query: str, start: int, known: Collection[str] | None) -> dict[str, str]:
    options: dict[str, str] = {}
    for part in query.split("&"):
        name, sign, value = part.partition("=")
        if not name or not sign:
            raise _bad(scheme, "an option is incomplete", start, "write options as name=value, joined by &")
        name = _decoded(scheme, name, start)
        if name in options:
            raise _bad(scheme, f"the option {name!r} stands there twice", start, "keep one of them")
        if known is not None and name not in known:
            cure = f"{_nearest(name, known)}{scheme}: takes {', '.join(known) or 'no options'}"
            raise _bad(scheme, f"the option {name[:40]!r} is not known", start, cure)
        options[name] = _decoded(scheme, value, start + len(name) + 1)
        start += len(part) + 1
    return options


def _decoded(scheme: str, text: str, start: int) -> str:
    if "%" not in text:
        return text
    if wrong := re.search(r"%(?![0-9A-Fa-f]{2})", text):
        raise _bad(scheme, "a % stands for itself", start + wrong.start(), "write %25 for a %")
    try:
        return unquote_to_bytes(text).decode()
    except UnicodeDecodeError as error:
        raise _bad(scheme, "what is written with % is not UTF-8", start, "encode it as UTF-8 first") from error


def _bad(scheme: str, what: str, index: int, cure: str) -> BadUrl:
    return BadUrl(f"{scheme}: URL, character {index + 1}: {what}", cure, at=index + 1)


def _nearest(name: str, known: Collection[str]) -> str:
    from difflib import get_close_matches

    near = get_close_matches(name, known, 1)
    return f"did you mean {near[0]}? " if near else ""
