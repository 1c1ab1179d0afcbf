"""A worker: a process (or part of one) that runs the subscriptions of an app.

It tells the others that it lives, shares the slots of every group with them, wakes its pumps when the log grows, moves
due timers and the outbox to the log, and drains when asked to stop. A pump that fails is started again; the others do
not notice.
"""

from __future__ import annotations

import asyncio
import difflib
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextvars import Context
from functools import partial
from typing import Any

from tidings.core.envelope import SLOTS, Envelope, share
from tidings.core.operations import Beat, Fire
from tidings.core.ports import Broker, Groups, Store
from tidings.core.subscription import Subscription
from tidings.errors import NotOpen, StoreGone, TidingsError
from tidings.runtime import renamed
from tidings.runtime.claims import Claims
from tidings.runtime.clock import MICROSECONDS, Clock, loop_time
from tidings.runtime.drain import LAST, drain
from tidings.runtime.link import Link
from tidings.runtime.outgoing import Outgoing
from tidings.runtime.pump import Pump
from tidings.runtime.relay import Relay
from tidings.runtime.seeding import Seeding
from tidings.runtime.watchdog import Watchdog

log = logging.getLogger("tidings")

RECENT = 1000
"""Events looked at for names that resemble a subscribed one."""

SHORTEST, LONGEST = 0.05, 5.0
"""Seconds before a subscription that failed starts again; doubled each time, until it ran HEALTHY seconds."""

HEALTHY = 30.0

GIVE_WAY, MANY = 0.05, 100
"""Seconds at most for which messages of a broker wait until handlers took the last ones, and how many those were."""

LOOK = 0.5
"""Seconds between looks for timers that another process stored."""


class Worker:
    """Runs subscriptions until stopped.

    Attributes:
        member: Its identity among the workers of the app.
        pumps: One per subscription.
        relay: Moves the outbox to the log.
    """

    def __init__(
        self,
        app: str,
        store: Store,
        groups: Groups,
        subscriptions: Sequence[Subscription],
        outgoing: Outgoing,
        clock: Clock,
        *,
        lease: float,
        member: str | None = None,
        broker: Broker | None = None,
        claims: Claims | None = None,
    ) -> None:
        """Args: app: its name. lease: seconds of silence, then its slots go to the others. broker: not open."""
        self.app = app
        self.member = member or f"{socket.gethostname()}-{os.getpid()}-{clock.id()[-6:]}"
        self.store = store
        self.clock = clock
        self.lease = lease
        self._groups = groups
        self._is_volatile = store.guarantees.durable == "process"
        self.link: Link | None = None
        if broker is not None:
            self.link = Link(
                *(app, store, broker, subscriptions, clock),
                finished=self._finished,
                arrived=self._arrived,
                on_caused=outgoing.on_caused if self._is_volatile else [],
                claims=claims,
            )
        self.pumps = [
            Pump(store, each, groups.consumer(each, f"{app}.{each.group}", self.member, lease), outgoing, clock)
            for each in (*subscriptions, *(self.link.subscriptions if self.link else ()))
        ]
        if self.link is not None:
            self.link.follow(self.pumps)
        self.relay = Relay(store)
        ask = None if self.link is None else self.link.wanted.ask
        self.seedings = [Seeding(store, pump, ask) for pump in self.pumps if pump.subscription.bootstrap is not None]
        self._stop = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._pumping: dict[Pump, asyncio.Task[None]] = {}
        self._failure: BaseException | None = None
        self._watchdog = Watchdog(app, clock)

    # ---- starting and stopping -----------------------------------------------------------------------------------

    async def start(self) -> None:
        """Join the groups, claim slots, and start pumping.

        Raises:
            GroupConflict: Another handler holds one of the groups.
            ProjectionChanged: A projection's code changed without a rebuild.
        """
        subscriptions = [pump.subscription for pump in self.pumps]
        new = await renamed.new_ones(self.store, self.app, subscriptions)
        for pump in self.pumps:
            waiting = await pump.consumer.join()
            if waiting:
                log.info("%s is new: it starts with %d retained events", pump.group, waiting)
        await self._suggest()
        running = await self._beat()
        await renamed.warn(self.store, self.app, subscriptions, new, running)
        for loop in (self._keep_beating, self._keep_watching, self._keep_time):
            self._start(self._keep(loop))
        self._start(self.relay.run())
        self._start(self._watchdog.run())
        for pump in self.pumps:
            pump.go_on = partial(self._start_pumping, pump)
            pump.go_on()
        for seeding in self.seedings:
            self._start(self._keep(seeding.run))
        if self.link is not None:
            self._start(self.link.run())

    async def _suggest(self) -> None:
        """Warn of a subscription to a name that looks like a misspelt one."""
        head = await self.store.head()
        recent = {each.type for each in await self.store.read(max(0, head - RECENT), head, RECENT)}
        wanted = {kind.name for pump in self.pumps for kind in pump.subscription.types}
        for name in sorted(wanted - recent):
            near = difflib.get_close_matches(name, recent - wanted, 1, 0.8)
            if near:
                log.warning("%s: nobody published %s lately; did you mean %s?", self.app, name, near[0])

    def _start(self, loop: Coroutine[Any, Any, None], context: Context | None = None) -> asyncio.Task[None]:
        task = asyncio.create_task(loop, context=context)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _start_pumping(self, pump: Pump) -> None:
        if (left := self._pumping.get(pump)) is not None:
            self._tasks.discard(left)  # a handler runs in it, which is the pump's to wait for
        self._pumping[pump] = self._start(self._keep_pumping(pump), pump.context.copy())

    def stop(self) -> None:
        """Ask for a drain; returns at once. From now on no handler begins."""
        self._stop_taking()
        self._stop.set()

    def _stop_taking(self) -> None:
        for pump in self.pumps:
            pump.stopping = True
            pump.wake.set()

    async def wait(self) -> None:
        """Return when asked to stop.

        Raises:
            StoreError: The store went away for good.
        """
        await self._stop.wait()
        if self._failure is not None:
            raise self._failure

    async def drain(self, seconds: float) -> int:
        """Stop taking, let running handlers end within `seconds`, release the rest.

        Returns:
            How many deliveries were cut short; they are not acknowledged and come again.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        self._stop_taking()
        try:
            ends = await asyncio.gather(*(self._drain(pump, deadline) for pump in self.pumps), return_exceptions=True)
            async with asyncio.timeout(LAST):
                await self.store.write(Beat(self.app, self.member, self.lease, leaving=True))
        except TimeoutError:
            log.warning("%s: the store is held up, by a handler that goes on; the others wait for the lease", self.app)
        finally:
            for task in self._tasks:
                task.cancel()
            if self._tasks:
                await asyncio.wait(self._tasks, timeout=LAST)
            if self.link is not None:
                await self.link.close()
        for end in ends:
            if isinstance(end, BaseException):
                raise end
        return sum(end for end in ends if isinstance(end, int))

    async def _drain(self, pump: Pump, deadline: float) -> int:
        task = self._pumping.get(pump)
        if not pump.subscription.counted:  # it would wait for its broker; what is not confirmed comes again, untold
            await self._end(pump, task, min(deadline, asyncio.get_running_loop().time() + LAST))
            return 0
        return await self._end(pump, task, deadline)

    async def _end(self, pump: Pump, task: asyncio.Task[None] | None, deadline: float) -> int:
        cut = 0
        if task is not None:
            await asyncio.wait((task,), timeout=max(0.0, deadline - asyncio.get_running_loop().time()))
            if not task.done():
                batching, running, pump.cutting = pump.batching, len(pump.running), True
                task.cancel()
                await asyncio.wait((task,), timeout=LAST)
                cut = int(batching and len(pump.running) == running)  # else it goes on by itself, and is counted there
        return cut + await drain(pump, deadline)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failure = error
            self._stop.set()

    # ---- loops ---------------------------------------------------------------------------------------------------

    async def _keep_pumping(self, pump: Pump) -> None:
        loop = asyncio.get_running_loop()
        pause = SHORTEST
        while not pump.stopping:
            began = loop.time()
            try:
                await pump.run()
            except (StoreGone, NotOpen):
                raise
            except Exception:
                log.exception("%s: the subscription failed; it starts again in %.1f s", pump.group, pause)
                pump.reset()
                await asyncio.sleep(pause)
                pause = SHORTEST if loop.time() - began > HEALTHY else min(LONGEST, pause * 2)
            else:
                return  # stopped, or going on in another task

    async def _keep(self, loop: Callable[[], Awaitable[None]]) -> None:
        """Run a loop, and run it again after trouble that passes."""
        while True:
            try:
                await loop()
            except TidingsError as error:
                if not error.transient:
                    raise
                log.error("%s: %s", self.app, error)  # noqa: TRY400 - expected while the store is full or away
                await asyncio.sleep(min(LOOK, self.lease / 3))

    async def _keep_beating(self) -> None:
        while True:
            await asyncio.sleep(min(self.lease / 3, 2.0))
            await self._beat()

    async def _beat(self) -> set[str]:
        """Tell the others; returns the groups that somebody runs."""
        groups = [pump.group for pump in self.pumps]
        alive: Mapping[str, Sequence[str]]
        alive = await self.store.write(Beat(self.app, self.member, self.lease, groups=groups))
        for pump in self.pumps:
            runners = [each for each, runs in alive.items() if pump.group in runs]
            pump.share(share(pump.group, pump.subscription.slots, self.member, runners))
        return {group for runs in alive.values() for group in runs}

    async def _keep_watching(self) -> None:
        await self.store.watch(self._look)

    def _look(self, envelopes: Sequence[Envelope], positions: Sequence[int]) -> None:
        """Tell the pumps. Args: envelopes, positions: what they need not read."""
        self._groups.changed(envelopes, positions)
        for pump in self.pumps:
            pump.changed(envelopes, positions)

    async def _keep_time(self) -> None:
        while True:
            due = await self.store.next_timer()
            now = self.clock.now()
            if due is not None and due <= now:
                await self.store.write(Fire(now))
                continue
            pause = LOOK if due is None else min(LOOK, (due - now) / MICROSECONDS)
            await asyncio.sleep(max(0.001, pause))

    async def _arrived(self, envelopes: Sequence[Envelope], positions: Sequence[int]) -> None:
        """What the broker brought is in the log: let handlers take it while it is in memory, if they do so soon."""
        self._groups.appended(envelopes, positions)
        end = loop_time() + GIVE_WAY
        while len(positions) >= MANY and loop_time() < end:
            cursors = (feed.cursor for pump in self.pumps for feed in pump.consumer.feeds)
            if min(cursors, default=positions[-1]) >= positions[-1]:
                return
            await asyncio.sleep(GIVE_WAY / 20)

    # ---- idleness ------------------------------------------------------------------------------------------------

    async def idle(self) -> bool:
        """True when every group has finished the log and nothing waits for another attempt."""
        if not all(pump.idle for pump in self.pumps):
            return False
        due = await self.store.next_timer()
        if due is not None and due <= self.clock.now():
            return False
        if await self.store.oldest_outgoing() is not None or (self.link and not await self.link.idle()):
            return False
        done = await self._finished(await self.store.head())
        return done and not any([await seeding.busy() for seeding in self.seedings])

    async def _finished(self, position: int) -> bool:
        """True when every group has finished the log up to a position, and nothing waits for another attempt."""
        for pump in self.pumps:
            if not await pump.finished(position):
                return False
        # Nobody else works on a log in memory: what is held there is known here.
        asked = (pump for pump in self.pumps if not (self._is_volatile and pump.intake.calm))
        return not any([await self.store.next_due(pump.group, range(SLOTS)) is not None for pump in asked])
