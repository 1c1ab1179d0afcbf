"""Find the adapter for a URL. Adapters are found by entry point, so that those of others are first-class."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import cast

from tidings.core.ports import Store
from tidings.core.url import parse_url
from tidings.errors import BadUrl

_shared: dict[tuple[str, int], tuple[Store, int]] = {}
_lock = threading.Lock()


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
        return cast("Store", found[parsed.scheme].load()(url))
    known = ", ".join(sorted(f"{name}:" for name in found))
    msg = f"no store adapter for {parsed.safe!r}"
    raise BadUrl(msg, f"stores known here: {known or 'none; is tidings installed?'}")


def open_store(url: str) -> Store:
    """An open store for this URL; apps of one process on one URL share it, and with it one commit for all.

    Let go of it with `release`.

    Raises:
        BadUrl: The URL cannot be read.
        StoreError: The store cannot be opened.
    """
    if parse_url(url).path == "":  # in memory: every app has its own
        store = make_store(url)
        store.open_now()
        return store
    key = (url, os.getpid())  # a forked child opens its own
    with _lock:
        if key in _shared:
            store, users = _shared[key]
        else:
            store, users = make_store(url), 0
            store.open_now()
        _shared[key] = (store, users + 1)
    return store


def release(store: Store) -> bool:
    """Let go of a store from `open_store`; True when nobody else uses it and the caller is to close it."""
    with _lock:
        for key, (shared, users) in list(_shared.items()):
            if shared is store:
                if users > 1:
                    _shared[key] = (shared, users - 1)
                    return False
                del _shared[key]
    return True
