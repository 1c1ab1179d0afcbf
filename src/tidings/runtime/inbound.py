"""Inbound: takes what a broker brings into the log, where it is handled like everything else.

The log is the inbox. A batch is appended in one durable commit, and only then settled at the broker; what comes twice
is known by its id. Handlers read the log and never meet the broker, so that retries, order, dead letters and delays are
the same on all of them, and no message waits at the broker for a slow handler.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import msgspec

from tidings.core.arrival import Arrival
from tidings.core.attributes import STATE_AGAIN
from tidings.core.claim import LARGEST, claim_in, claim_of, refers, where_of
from tidings.core.envelope import Envelope
from tidings.core.operations import Append, Held, Settle
from tidings.core.ports import Broker, Store
from tidings.errors import BrokerError, BrokerUnavailable, IdConflict, TidingsError, Unreadable
from tidings.runtime.alarm import Alarm
from tidings.runtime.claims import CURE, THREADS, Claims, missing, unwrapped
from tidings.runtime.claims import GROUP as CLAIMS
from tidings.runtime.clock import Clock, loop_time
from tidings.runtime.quarantine import unreadable

log = logging.getLogger("tidings")

BATCH = 500
"""Messages taken in with one commit at most."""

WAIT = 1.0
"""Seconds of one wait for messages."""

AHEAD, AHEAD_BYTES = 1000, 4_000_000
"""Messages in a log in memory that handlers have not finished, or bytes of them, at which no more are taken in."""

LEISURE = 0.02
"""Seconds for which what was handled is gathered, before it is settled; only where the log is in memory."""

SHORTEST, LONGEST = 0.1, 5.0
"""Seconds between two tries while the broker or the store is away; doubled each time."""


Arrived = Callable[[Sequence[Envelope], Sequence[int]], Awaitable[None]]
"""Called with what was appended, and with its positions."""


@dataclass(slots=True)
class _Kept:
    """What came together and is in a log in memory, so that it is not settled yet.

    Attributes:
        conversations: To which the messages belong.
        until: Position of the log up to which all has to be done before.
        goes_on: True when handlers published in one of its conversations, behind that perhaps.
    """

    arrivals: Sequence[Arrival]
    conversations: set[str]
    until: int
    goes_on: bool = False


class Inbound:
    """Appends what arrives for one app to its log.

    Attributes:
        subscribed: Set once messages for this app are kept.
    """

    def __init__(
        self,
        app: str,
        store: Store,
        broker: Broker,
        topics: Sequence[str],
        opened: asyncio.Event,
        clock: Clock,
        *,
        finished: Callable[[int], Awaitable[bool]],
        arrived: Arrived,
        on_caused: list[Callable[[str], object]],
        claims: Claims | None = None,
    ) -> None:
        """Wire the parts.

        Args:
            app: Its name.
            store: Has the log.
            broker: Brings messages.
            topics: What it subscribes to.
            opened: Set once the broker is.
            clock: Gives times.
            finished: Tells whether everything up to a position of the log is done, and carried if it is for the broker.
            arrived: Called with what was appended, and where.
            on_caused: Whom to add to hear of the conversations in which handlers publish.
            claims: Where what is too large lies.
        """
        self._app = app
        self._store = store
        self._broker = broker
        self._topics = topics
        self._clock = clock
        self._opened = opened
        self._finished = finished
        self._arrived = arrived
        self._on_caused = on_caused
        self._claims = claims
        self._is_volatile = store.guarantees.durable == "process"
        self._pause = SHORTEST
        self._is_taking = False
        self._kept: deque[_Kept] = deque()
        self._ended, self._settled = asyncio.Event(), asyncio.Event()
        self._alarm = Alarm(self._ended.set)
        self._settling: asyncio.Task[None]
        self.subscribed = asyncio.Event()

    @property
    def busy(self) -> bool:
        """True while something that was fetched is not settled."""
        return self._is_taking or bool(self._kept)

    async def run(self) -> None:
        """Open the broker, subscribe, and take in what arrives until cancelled; trouble that passes is waited out.

        Raises:
            BrokerRefused: Somebody has to mend something first.
        """
        self._settling = asyncio.create_task(self._settle_handled())
        self._on_caused.append(self._note_caused)
        try:
            await self._receive()
        finally:
            self._on_caused.remove(self._note_caused)
            self._settling.cancel()
            self._alarm.stop()

    async def _receive(self) -> None:
        while True:
            try:
                if not self._opened.is_set():
                    if self._claims is not None:
                        await self._claims.check()
                    await self._broker.open()
                    self._opened.set()
                await self._broker.subscribe(self._topics)
                if not self.subscribed.is_set():
                    name = self._broker.guarantees.name
                    log.info("%s: subscribed at %s: %s", self._app, name, ", ".join(self._topics))
                self.subscribed.set()
                while True:
                    arrivals = await self._broker.fetch(BATCH, WAIT)
                    if arrivals:
                        await self._take(arrivals)
                    self._pause = SHORTEST
                    if self._settling.done():
                        self._settling.result()
            except BrokerError as error:
                if not error.transient:
                    raise
                await self._wait_out(error)

    async def _take(self, arrivals: Sequence[Arrival]) -> None:
        self._is_taking = True
        try:
            read = await self._keep(arrivals)
            if not self._is_volatile:
                await self._broker.settle(arrivals)
                return
            conversations = {each.conversation for each in read if type(each) is Envelope}
            self._kept.append(_Kept(arrivals, conversations, await self._store.head()))
            self.look()
            while self._is_full() and not self._settling.done():
                self._settled.clear()
                await self._settled.wait()
        finally:
            self._is_taking = False

    def _is_full(self) -> bool:
        kept = [arrival for each in self._kept for arrival in each.arrivals]
        return len(kept) >= AHEAD or sum(len(arrival.body) for arrival in kept) >= AHEAD_BYTES

    def look(self) -> None:
        """Something ended: see soon what of the messages may be settled."""
        if self._kept:
            self._alarm.set(loop_time() + LEISURE)

    async def _settle_handled(self) -> None:
        """A log in memory ends with the process: what is in it is settled only once it is handled."""
        try:
            while True:
                await self._ended.wait()
                self._ended.clear()
                try:
                    await self.settle()
                except BrokerError as error:
                    if not error.transient:
                        raise
                    await self._wait_out(error)
        finally:
            self._settled.set()

    async def settle(self) -> None:
        """Settle what was taken into a log in memory and is handled by now, in the order in which it came."""
        handled: list[Arrival] = []
        while self._kept and await self._is_handled(self._kept[0]):
            handled += self._kept.popleft().arrivals
        if handled:
            self._settled.set()
            await self._broker.settle(handled)

    async def _is_handled(self, kept: _Kept) -> bool:
        """True when handlers are done with it, and the broker has what they published because of it."""
        while await self._finished(kept.until):
            if not kept.goes_on:
                return True
            kept.goes_on = False
            kept.until = await self._store.head()
        return False

    def _note_caused(self, conversation: str) -> None:
        """A handler publishes: if that is lost, what it handled has to come again."""
        for kept in self._kept:
            kept.goes_on = kept.goes_on or conversation in kept.conversations

    async def _keep(self, arrivals: Sequence[Arrival]) -> Sequence[Envelope | Held]:
        """Make all of them durable here; returns what they are."""
        read = [self._read(each) for each in arrivals]
        if not any(refers(each) for each in read if type(each) is Envelope):
            await self._write(read, arrivals)
            return read
        found: list[Envelope | Held | None] = []
        written = 0
        for at in range(0, len(read), THREADS):
            found += await asyncio.gather(*map(self._whole, read[at : at + THREADS], arrivals[at : at + THREADS]))
            if at + THREADS >= len(read) or sum(len(e.data) for e in found if type(e) is Envelope) > LARGEST:
                await self._write(found, arrivals[written : at + THREADS])
                found, written = [], at + THREADS
        return read

    async def _whole(self, read: Envelope | Held, source: Arrival) -> Envelope | Held | None:
        """A message with its data, where they lie elsewhere; what is kept in its place where they are not there.

        None for one that the log has already: it came from here, or it came twice, and its claim may be gone by now.
        """
        if type(read) is not Envelope or not refers(read):
            return read
        while True:
            try:
                claim = claim_in(read)
                if any(claim_of(each) == claim for each in await self._store.find(id=read.id)):
                    return None
                if self._claims is None:
                    what = f"its data are at {where_of(read)}, and this app has no place for claims"
                    return self._unreadable(source, Unreadable(what, CURE))
                return await self._claims.fetch(read)
            except Unreadable as error:
                if self._claims is None:
                    return self._unreadable(source, error)
                log.warning("%s: %s %s: %s; %s.%s has it", self._app, read.type, read.id, error.what, self._app, CLAIMS)
                return missing(self._app, read)
            except TidingsError as error:
                if not error.transient:
                    raise
                await self._wait_out(error)

    async def _write(self, read: Sequence[Envelope | Held | None], sources: Sequence[Arrival]) -> None:
        garbage = [each for each in read if type(each) is Held]
        envelopes = [each for each in read if type(each) is Envelope]
        if len(envelopes) < len(read):
            sources = [source for each, source in zip(read, sources, strict=True) if type(each) is Envelope]
        while envelopes or garbage:
            try:
                if garbage:
                    await self._store.write(Settle(garbage[0].group, {}, hold=garbage))
                    garbage = []
                if envelopes:
                    await self._append(envelopes, sources)
                envelopes = []
            except TidingsError as error:
                if not error.transient:
                    raise
                await self._wait_out(error)

    async def _append(self, envelopes: Sequence[Envelope], sources: Sequence[Arrival]) -> None:
        try:
            done = await self._store.write(Append(envelopes))
            await self._arrived(envelopes, done.positions)
        except IdConflict:
            conflicts: list[Held] = []
            for envelope, source in zip(envelopes, sources, strict=True):  # one of them; in order, as they came
                try:
                    await self._store.write(Append([envelope]))
                except IdConflict as error:
                    conflicts.append(self._unreadable(source, error))
            if conflicts:
                await self._store.write(Settle(conflicts[0].group, {}, hold=conflicts))

    def _read(self, arrival: Arrival) -> Envelope | Held:
        """The message; what is kept in its place where it cannot be read."""
        try:
            envelope = arrival.read()
            if envelope.type != STATE_AGAIN or refers(envelope):
                if envelope.time and envelope.topic == arrival.topic:
                    return envelope
                time = envelope.time or self._clock.now()
                return msgspec.structs.replace(envelope, topic=arrival.topic, time=time)
            return unwrapped(envelope)
        except Unreadable as error:
            return self._unreadable(arrival, error)

    def _unreadable(self, arrival: Arrival, error: TidingsError) -> Held:
        log.error("%s: %s: %s; it is kept in the quarantine", self._app, arrival.place, error.what)
        return unreadable(self._app, arrival.body, {**arrival.headers, "place": str(arrival.place)}, error, self._clock)

    async def _wait_out(self, error: TidingsError) -> None:
        pause = self._pause * (0.5 + self._clock.draw() / 2)
        log.warning("%s: %s; trying again in %.1f s", self._app, error, pause)
        self._pause = min(LONGEST, self._pause * 2)
        await asyncio.sleep(pause)

    async def idle(self) -> bool:
        """True when nothing waits at the broker for this app, or is on its way from there into the log."""
        try:
            return self.subscribed.is_set() and not self.busy and await self._broker.waiting() == 0
        except BrokerUnavailable:
            return False
