"""Straight to the broker: how an app publishes whose log is in memory.

That log ends with the process, and so would what nobody else has. So `publish` returns once the broker has confirmed,
as it returns elsewhere once the log is on the disk; and where the broker does not, the caller is told.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from tidings.core.arrival import DEADLINE
from tidings.core.envelope import STATES, Envelope
from tidings.core.message import address_of
from tidings.core.outcome import Dead
from tidings.core.ports import Broker
from tidings.errors import BrokerRefused, BrokerUnavailable, OutcomeUnknown, UsageError
from tidings.runtime.connect import make_broker, make_claims
from tidings.runtime.link import leaving, topics_of
from tidings.runtime.outbound import Outbound, leaves

if TYPE_CHECKING:
    from tidings.runtime.app import App

T = TypeVar("T")

LOOK = 0.01
"""Seconds between two looks whether the worker beside us has subscribed."""


class Direct:
    """Publishes for one app at its broker, over a connection of its own; on the event loop that first does so."""

    def __init__(self, app: App) -> None:
        """Args: app: whose messages."""
        self._app = app
        self._own = address_of(app.name)
        self._opening = asyncio.Lock()
        self._outbound: Outbound | None = None
        self._broker: Broker
        self._awaited: set[str] = set()  # what the app subscribes to, until the broker surely knows that
        self._under_way = 0
        self._last: dict[str, asyncio.Future[None]] = {}  # key -> done once its newest message is there, or given up

    async def publish(self, envelopes: Sequence[Envelope]) -> Sequence[Envelope]:
        """Return once the broker has what is for it, with what is left for the app's own log.

        Raises:
            UsageError: A state is among them.
            BrokerUnavailable: It cannot be reached; nothing was published.
            BrokerRefused: It does not take one of them, and never will.
            OutcomeUnknown: It did not confirm all of them in time.
        """
        public = [each for each in envelopes if leaves(each, self._own)]
        if not public:
            return envelopes
        self._check(public)
        self._under_way += len(public)
        try:
            async with asyncio.timeout(DEADLINE):
                outbound = self._outbound or await self._connect()
                if self._awaited and not self._awaited.isdisjoint(each.topic for each in public):
                    await self._be_known()
                if len(public) == 1:
                    await self._carry(outbound, public[0])
                else:
                    await _all(self._carry(outbound, each) for each in public)
        except TimeoutError:
            what = f"not all of {len(public)} messages, the first a {public[0].type}, were confirmed"
            cure = "publish again; with ids of your own, what is there already is known"
            raise OutcomeUnknown(f"{what} within {DEADLINE:.0f} s by the broker of {self._app.name}", cure) from None
        except Dead as error:
            cure = "leave it out; what was published with it is there, unless it was refused too"
            raise BrokerRefused(str(error), cure) from None
        finally:
            self._under_way -= len(public)
        return [each for each in envelopes if not leaves(each, self._own)]

    def _check(self, public: Sequence[Envelope]) -> None:
        for each in public:
            if each.stream is not None and each.stream.startswith(STATES):
                what = f"the app {self._app.name} publishes the state {each.type}, and its log is in memory"
                cure = "give it a store: else versions begin anew with every start, and replicas take them for old ones"
                raise UsageError(what, cure)

    async def _connect(self) -> Outbound:
        try:
            return await self._open()
        except BrokerUnavailable as error:  # whose cure is for apps that have a log
            cure = "nothing was published; publish again once it can be reached"
            raise BrokerUnavailable(error.what, cure) from error

    async def _open(self) -> Outbound:
        async with self._opening:
            if self._outbound is None:
                app, url = self._app, self._app.broker or ""
                broker = make_broker(url, app.name)
                claims = make_claims(url, broker)
                if claims is not None:
                    await claims.check()
                await broker.open()
                opened = asyncio.Event()
                opened.set()
                outbound = Outbound(app.name, broker, opened, app.clock, claims)
                outbound.alone = lambda: self._under_way == 1
                self._awaited = set(topics_of(app.name, app.subscriptions()))
                self._broker, self._outbound = broker, outbound
            return self._outbound

    async def _be_known(self) -> None:
        """See to it that what this very app subscribes to comes back to it, also when it was never run before."""
        async with self._opening:
            workers = list(self._app._workers)  # noqa: SLF001 - a part of the app
            links = [worker.link for worker in workers if worker.link is not None]
            while links and not any(link.inbound.subscribed.is_set() for link in links):  # noqa: ASYNC110
                await asyncio.sleep(LOOK)  # they may be of another event loop
            if self._awaited and not links and not self._broker.guarantees.history:
                declaring = make_broker(self._app.broker or "", self._app.name)
                await declaring.open()
                try:
                    await declaring.subscribe(sorted(self._awaited))
                finally:
                    await declaring.close()
            self._awaited.clear()

    async def _carry(self, outbound: Outbound, envelope: Envelope) -> None:
        """Carry it behind what was published of its key before."""
        key = envelope.key
        if key is None:
            await outbound.carry(envelope)
            return
        before, mine = self._last.get(key), asyncio.get_running_loop().create_future()
        self._last[key] = mine
        try:
            if before is not None:
                await asyncio.wait((before,))
            await outbound.carry(envelope)
        finally:
            mine.set_result(None)
            if self._last[key] is mine:
                del self._last[key]

    async def close(self) -> None:
        """Disconnect; whoever publishes afterwards connects again."""
        if self._outbound is not None:
            self._outbound = None
            async with leaving(self._app.name):
                await self._broker.close()


async def _all(carrying: Any) -> None:
    """Wait for the end of all of them; raises what befell the first that failed."""
    for end in await asyncio.gather(*carrying, return_exceptions=True):
        if isinstance(end, BaseException):
            raise end


class Beside:
    """The same for callers without an event loop: it runs on one in a thread of its own."""

    def __init__(self, app: App) -> None:
        """Args: app: whose messages."""
        self._direct = Direct(app)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"tidings-publish-{app.name}", daemon=True)
        self._thread.start()

    async def publish(self, envelopes: Sequence[Envelope]) -> Sequence[Envelope]:
        """See `Direct.publish`. It never suspends, but blocks."""
        return self._wait_for(self._direct.publish(envelopes))

    def close(self) -> None:
        """Disconnect, and end the thread."""
        self._wait_for(self._direct.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _wait_for(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()
