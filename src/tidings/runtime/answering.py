"""Answering: what becomes of a request goes back to the app that asked, in the commit that acknowledges it.

After the deadline nobody waits: then no handler begins, and no answer leaves. Whoever asked was told by then.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from typing import Any

from tidings.core.delivery import printable
from tidings.core.envelope import Envelope, Seen
from tidings.core.request import Answer, Returned, Waiting, answer, waiting_for
from tidings.runtime.clock import MICROSECONDS, Clock
from tidings.runtime.dispatch import UNSEEN, Dispatch, Read
from tidings.runtime.outgoing import Outgoing

log = logging.getLogger("tidings")


class Answering:
    """What goes into a handler and what comes out of it, where somebody may be waiting for that.

    Attributes:
        readers: What reads the envelopes of a type, by its stored name; see `Dispatch.readers`.
    """

    def __init__(self, group: str, dispatch: Dispatch, outgoing: Outgoing, clock: Clock) -> None:
        """Args: group: full name. dispatch: of its handler."""
        self._group = group
        self._dispatch = dispatch
        self._outgoing = outgoing
        self._clock = clock
        # an event has many handlers, and none of them answers
        self._commands = {name for kind in dispatch.subscription.commands for name in (kind.name, *kind.was)}
        self.readers = dispatch.readers.copy()
        self.readers.update((name, partial(self._in_time, self.readers[name])) for name in self._commands)

    def _in_time(self, read: Read, envelope: Seen) -> Any:
        """The message in a command; UNSEEN where its handler must not begin."""
        if envelope.headers is not None and (waiting := self._waiting_for(envelope)) is not None:
            late = (self._clock.now() - waiting.until) / MICROSECONDS
            if late >= 0:
                what, told = f"{envelope.type} {printable(envelope.id)}", f"{waiting.app} was told so"
                log.warning("%s: %s is not begun: its deadline passed %.3f s ago; %s", self._group, what, late, told)
                return UNSEEN
        return read(envelope)

    def messages(self, result: Any) -> list[Envelope]:
        """What is to be published of what a handler returned."""
        return [self._outgoing.envelope(message) for message in self._dispatch.messages(result)]

    def returned(self, result: Any, envelope: Envelope) -> list[Envelope]:
        """What is to be published once a handler returned: its messages, and the answer if somebody waits for it."""
        found = self.messages(result)
        if envelope.headers is not None:
            found += self._answer(envelope, Answer([Returned.of(each) for each in found]))
        return found

    def refused(self, envelope: Envelope, reason: str) -> Sequence[Envelope]:
        """What is to be published once a delivery became a dead letter: the reason, if somebody waits for an answer."""
        return self._answer(envelope, Answer(refused=reason))

    def _waiting_for(self, envelope: Seen) -> Waiting | None:
        return waiting_for(envelope) if envelope.type in self._commands else None

    def _answer(self, envelope: Envelope, content: Answer) -> Sequence[Envelope]:
        waiting, now = self._waiting_for(envelope), self._clock.now()
        if waiting is None or waiting.until <= now:
            return ()
        return [answer(envelope, waiting.app, content, app=self._outgoing.app, id=self._clock.id(now), now=now)]
