"""Several worker processes of one app: start them, start them again when they crash, stop them together."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Coroutine, Sequence
from typing import Any

from tidings.ops.cli.failures import TRY_AGAIN
from tidings.ops.cli.lifeline import FOR_GOOD, LIFELINE, WORKER, stop_signals

log = logging.getLogger("tidings")

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""Seconds before a crashed worker starts again; doubled with every crash, up to the longest."""
STEADY = 60.0
"""A worker that ran for so many seconds is healthy: its next crash counts as the first."""
GRACE = 10.0
"""Seconds beyond the drain until a worker that does not end is killed."""


class Workers:
    """Keeps worker processes of one app running until a signal stops them.

    The first one starts alone, so that a mistake that all would make is told once; the others follow when it works.

    Args:
        command: What Python is to be given to run one of them.
        count: Number of processes.
        drain: Seconds that handlers may take to end; None for the app's own.
        verbose: Passed on.
    """

    def __init__(self, command: Sequence[str], count: int, drain: float | None, *, verbose: bool = False) -> None:
        self._command = [sys.executable, *command]
        if drain is not None:
            self._command += ["--drain", str(drain)]
        if verbose:
            self._command.append("--verbose")
        self._count = count
        self._running: dict[int, asyncio.subprocess.Process] = {}
        self._first_works = asyncio.Event()
        self._stopping = asyncio.Event()
        self._signals = 0
        self._code = 0

    async def run(self) -> int:
        """Run until stopped; returns the exit code: the worst of the workers' last ones."""
        loop = asyncio.get_running_loop()
        numbers = stop_signals()
        for each in numbers:
            loop.add_signal_handler(each, self._stop, each)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._keep(1))
                await self._unless_stopping(self._first_works.wait())
                for number in range(2, self._count + 1):
                    group.create_task(self._keep(number))
        finally:
            for each in numbers:
                loop.remove_signal_handler(each)
        return self._code

    async def _keep(self, number: int) -> None:
        """Run one worker, again and again."""
        loop = asyncio.get_running_loop()
        crashes = 0
        while not self._stopping.is_set():
            started = loop.time()
            code, worked, for_good = await self._once(number)
            if self._stopping.is_set():
                if worked and self._signals:  # one that was still starting had nothing to leave unfinished
                    self._code = max(self._code, code if code >= 0 else 128 - code)
                return
            if for_good or (not worked and code > 0 and code != TRY_AGAIN):  # it has told why, and would again
                self._code = code
                self._stop(None)
                return
            crashes = 1 if loop.time() - started > STEADY else crashes + 1
            pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** (crashes - 1))
            log.warning("worker %d ended %s; it starts again in %g s", number, _how(code), pause)
            await self._unless_stopping(asyncio.sleep(pause))

    async def _once(self, number: int) -> tuple[int, bool, bool]:
        """Run one worker to its end; returns its exit code, whether it got as far as working, and its last word."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)  # noqa: FBT003 - its one parameter has no name
        with ours:
            with theirs:
                fd = theirs.fileno()
                environment = os.environ | {LIFELINE: str(fd), WORKER: str(number)}
                process = await asyncio.create_subprocess_exec(
                    *self._command,
                    stdin=asyncio.subprocess.DEVNULL,
                    pass_fds=(fd,),
                    env=environment,
                    process_group=0,  # a Ctrl-C reaches it once, through us
                )
            self._running[number] = process
            if self._stopping.is_set():
                process.terminate()
            said = await asyncio.get_running_loop().sock_recv(ours, 32)  # once it works, how long it may drain
            drain = said.rstrip(FOR_GOOD)
            if drain:
                self._first_works.set()
            await self._unless_stopping(process.wait())
            try:
                code = await asyncio.wait_for(process.wait(), float(drain or 0) + GRACE)
            except TimeoutError:
                log.warning("worker %d did not end in time and is killed; what is unfinished comes again", number)
                process.kill()
                code = await process.wait()
            with contextlib.suppress(BlockingIOError):
                said += ours.recv(32)
        del self._running[number]
        return code, bool(drain), said.endswith(FOR_GOOD)

    async def _unless_stopping(self, waiting: Coroutine[Any, Any, Any]) -> None:
        """Wait, but not longer than until a stop is asked for."""
        tasks = [asyncio.ensure_future(waiting), asyncio.ensure_future(self._stopping.wait())]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for each in tasks:
            each.cancel()

    def _stop(self, number: signal.Signals | None) -> None:
        """Pass a signal on to the workers; None is a stop of our own."""
        if number is not None:
            self._signals += 1
            if self._signals == 1:
                log.info("%s: %d workers are draining; once more aborts", number.name, len(self._running))
        self._stopping.set()
        for process in self._running.values():
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(number or signal.SIGTERM)


def _how(code: int) -> str:
    return f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
