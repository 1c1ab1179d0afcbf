"""The watchdog: says where the event loop is stuck when a handler blocks it, and when the wall clock jumps back."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
import traceback

from tidings.runtime.clock import MICROSECONDS, Clock

log = logging.getLogger("tidings")

BLOCKED = 1.0
"""Seconds without a turn of the loop that are worth a warning."""

_BEAT = 0.25


class Watchdog:
    """Watches the running loop from a thread of its own, since a blocked loop cannot speak for itself."""

    def __init__(self, name: str, clock: Clock) -> None:
        """Args: name: of the app, for the log. clock: whose wall time is compared with the loop's."""
        self._name = name
        self._clock = clock
        self._seen = time.monotonic()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name=f"tidings-watchdog-{name}", daemon=True)
        self._watched = threading.get_ident()
        self._jumped = False

    async def run(self) -> None:
        """Beat until cancelled."""
        self._thread.start()
        loop = asyncio.get_running_loop()
        try:
            while True:
                wall, steady = self._clock.now(), loop.time()
                await asyncio.sleep(_BEAT)
                self._seen = time.monotonic()
                self._compare(wall, loop.time() - steady)
        finally:
            self._done.set()

    def _compare(self, wall: int, passed: float) -> None:
        moved = (self._clock.now() - wall) / MICROSECONDS - passed
        if moved < -1.0 and not self._jumped:
            self._jumped = True
            log.warning(
                "%s: the wall clock moved back by %.1f s; order and leases do not depend on it, due times do",
                self._name,
                -moved,
            )

    def _watch(self) -> None:
        told = 0.0
        while not self._done.wait(BLOCKED / 2):
            seen = self._seen
            if time.monotonic() - seen < BLOCKED or seen == told:
                continue
            told = seen  # once for each time it is stuck
            frame = sys._current_frames().get(self._watched)  # noqa: SLF001 - the documented way to see another stack
            stack = "".join(traceback.format_stack(frame)) if frame is not None else ""
            log.warning(
                "%s: the event loop is blocked for over %.0f s; write the handler as a plain function, which runs in "
                "a thread, or await instead\n%s",
                self._name,
                BLOCKED,
                stack,
            )
