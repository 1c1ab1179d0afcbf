"""Find the adapter for a URL. Adapters are found by entry point, so that those of others are first-class."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, cast

from tidings.core.ports import Broker, ClaimPlace, Store
from tidings.core.url import parse_url, without
from tidings.errors import BadUrl
from tidings.runtime.claims import Claims

_shared: dict[tuple[str, int], Store] = {}  # by place and process
_users: Counter[tuple[int, int]] = Counter()  # by store and process
_lock = threading.Lock()
_CLAIMS = ("claims", "claims_over")
"""Options that the URL of any broker takes; its adapter does not see them."""
_EXTRAS = {
    "postgresql": "postgres",
    "kafka": "kafka",
    "amqp": "rabbitmq",
    "amqps": "rabbitmq",
    "sqs": "sqs",
    "s3": "s3",
}
"""Schemes whose drivers are not installed with tidings itself -> the extra that brings them."""


@cache
def adapters(group: str) -> Mapping[str, EntryPoint]:
    """The installed adapters of one kind by name; looked up once, for it reads the metadata of every package."""
    return {entry.name: entry for entry in entry_points(group=group)}


def make_store(url: str) -> Store:
    """A store for this URL, not yet opened.

    Raises:
        BadUrl: The URL cannot be read, or no installed adapter has its scheme.
    """
    parsed = parse_url(url)
    found = adapters("tidings.stores")
    if parsed.scheme in found:
        return cast("Store", _load(found[parsed.scheme])(url))
    known = ", ".join(sorted(f"{name}:" for name in found))
    msg = f"no store adapter for {parsed.safe!r}"
    raise BadUrl(msg, f"stores known here: {known or 'none; is tidings installed?'}")


def make_broker(url: str, app: str) -> Broker:
    """A broker for an app, not yet opened. The URL of a store makes the log of that store one.

    Raises:
        BadUrl: The URL cannot be read, or no installed adapter has its scheme.
    """
    brokers = adapters("tidings.brokers")
    scheme = parse_url(url, _schemes()).scheme
    url = without(url, _CLAIMS)
    if scheme in brokers:
        return cast("Broker", _load(brokers[scheme])(url, app))
    return cast("Broker", _load(brokers["log"])(make_store(url), app))


def make_claims(url: str, broker: Broker) -> Claims | None:
    """The place that the URL of a broker names for what is too large for it, `?claims=file:/shared/claims`.

    Args:
        url: Of the broker.
        broker: Made from it.

    Raises:
        BadUrl: It is no place that is known here, or `claims_over` is no number of bytes.
    """
    options = parse_url(url, _schemes()).options
    place, over = (options.get(name) for name in _CLAIMS)
    if place is None:
        if over is not None:
            raise BadUrl("claims_over= is given, and no place", "name one: claims=file:/shared/claims")
        return None
    scheme, found = place.partition(":")[0], adapters("tidings.claims")
    if scheme not in found:
        known = ", ".join(f"{name}:" for name in sorted(found))
        raise BadUrl(f"claims={place[:40]!r} is no place that is known", f"known here: {known}; as in file:/shared")
    most = broker.guarantees.max_bytes
    if over is not None and not (over.isascii() and over.isdecimal() and len(over) < 10 and int(over) <= most):  # noqa: PLR2004
        raise BadUrl(f"claims_over={over[:40]!r} cannot be used", f"give a number of bytes from 0 to {most}")
    return Claims(cast("ClaimPlace", _load(found[scheme])(place)), most if over is None else int(over))


def _schemes() -> list[str]:
    return sorted({*adapters("tidings.brokers"), *adapters("tidings.stores")} - {"embedded", "log"})


def _load(adapter: EntryPoint) -> Any:
    try:
        return adapter.load()
    except ImportError as error:
        missing = error.name.partition(".")[0] if error.name else "its driver"
        cure = f"pip install 'tidings[{_EXTRAS[adapter.name]}]'" if adapter.name in _EXTRAS else f"install {missing}"
        raise BadUrl(f"{adapter.name}: needs {missing}, which cannot be imported", cure) from error


def open_store(store: str | Store) -> Store:
    """An open store; apps of one process share the one of a file, and with it one commit for all.

    Let go of it with `release`.

    Args:
        store: Its URL, or a store that several apps were given.

    Raises:
        BadUrl: The URL cannot be read.
        StoreError: The store cannot be opened.
    """
    with _lock:
        place = (_place(store), os.getpid()) if isinstance(store, str) else None  # a forked child opens its own
        found = _shared.get(place) if place else None
        opened = found or (make_store(store) if isinstance(store, str) else store)
        opened.open_now()
        if place and place[0]:
            _shared[place] = opened
        _users[id(opened), os.getpid()] += 1
    return opened


def _place(url: str) -> str:
    """What two URLs of one store have in common; "" for one in memory, which every app has for itself."""
    parsed = parse_url(url)
    return os.path.realpath(parsed.path) if parsed.scheme == "sqlite" and parsed.path else parsed.path and url


def release(store: Store) -> bool:
    """Let go of a store from `open_store`; True when nobody else uses it and the caller is to close it."""
    with _lock:
        user = (id(store), os.getpid())
        _users[user] -= 1
        if _users[user] > 0:
            return False
        del _users[user]
        for place in [place for place, shared in _shared.items() if shared is store]:
            del _shared[place]
    return True
