"""Opening and closing: an app has one store per process, open as long as somebody uses it."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from typing import Self

from tidings.core.ports import Store
from tidings.core.router import Router
from tidings.errors import NotOpen
from tidings.runtime.clock import Clock
from tidings.runtime.connect import open_store, release
from tidings.runtime.direct import Direct
from tidings.runtime.outgoing import Outgoing
from tidings.runtime.verbs import Verbs


class Opening(Router):
    """What of an app knows whether its store is open, and where.

    Attributes:
        clock: Gives wall time, random numbers and ids.
        outgoing: Makes envelopes of messages.
    """

    def __init__(self, name: str, store: str | Store, clock: Clock) -> None:
        """Args: name: of the app. store: its URL, or a store object; not opened yet."""
        super().__init__(name)
        self.clock = clock
        self.outgoing = Outgoing(name, clock)
        self._given = store
        self._store: Store | None = None
        self._users = self._pid = 0
        self._opening = threading.Lock()
        self._verbs: Verbs | None = None
        self._make_direct: Callable[[], Direct] | None = None  # set by an app that has a broker
        self._direct: Direct | None = None  # where its log ends with the process
        self._inside = 0  # users of it
        self._home: tuple[int, asyncio.AbstractEventLoop] | None = None

    async def __aenter__(self) -> Self:
        """Open the store.

        Raises:
            StoreUnavailable: It cannot be opened.
            WrongStore: It is no store of this version.
        """
        self.open_now()
        self._home = (os.getpid(), asyncio.get_running_loop())
        self._inside += 1
        return self

    async def __aexit__(self, *_exc: object) -> None:
        """Close the store once its last user is done."""
        self._inside -= 1
        if self._direct is not None and not self._inside:
            await self._direct.close()
        store = self.let_go()
        if store is not None:
            await store.close()

    def open_now(self) -> Store:
        """Open the store for one more user; `async with` and `blocking()` do it for you."""
        with self._opening:
            if self._store is None or self._pid != os.getpid():  # what the parent opened is nothing to its fork
                store = open_store(self._given)
                is_lasting = store.guarantees.durable != "process"
                self._direct = None if is_lasting or self._make_direct is None else self._make_direct()
                direct = None if self._direct is None else self._direct.publish
                self._verbs = Verbs(store, self.outgoing, self.clock, store.write, store.begin, asyncio.sleep, direct)
                self._store, self._pid, self._users, self._inside = store, os.getpid(), 0, 0
            self._users += 1
            return self._store

    def let_go(self) -> Store | None:
        """Let go of the store; returns it when the caller is to close it."""
        with self._opening:
            self._users -= 1
            if self._users or self._store is None:
                return None
            store, self._store, self._verbs, self._home = self._store, None, None, None
            return store if release(store) else None

    @property
    def store(self) -> Store:
        """The open store.

        Raises:
            NotOpen: The app is not open.
        """
        if self._store is None:
            msg = f"the app {self.name} is not open"
            raise NotOpen(msg, "use it inside `async with app:`, or `with app.blocking() as b:` in plain code")
        return self._store

    def _here(self) -> Verbs:
        """The verbs, when used where the app was opened."""
        verbs = self._verbs
        if verbs is None:
            _ = self.store
        home = self._home
        if home is not None:
            if home[0] != os.getpid():
                msg = f"the app {self.name} was opened in process {home[0]} and is used in its fork {os.getpid()}"
                raise NotOpen(msg, "open the app in the child: `async with app:` after the fork")
            if home[1] is not asyncio.get_running_loop():
                msg = f"the app {self.name} was opened in another event loop (thread {threading.get_ident()})"
                raise NotOpen(msg, "use `app.blocking()` from threads, or open the app in this loop")
        return verbs  # type: ignore[return-value]
