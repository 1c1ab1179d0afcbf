"""Deterministic simulation: the real runtime in virtual time, with a seed that decides what runs next and what breaks.

A failing seed fails again, to the byte: `SimLoop.schedule` is the SHA-256 of every step taken. Processes are played by
`Worker`s on one loop; a crash drops all tasks of one of them between two awaits and keeps only what the store has.
It leans on private parts of asyncio (`_ready`, `_scheduled`), which a self-test checks on each Python version.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import hashlib
import heapq
import itertools
import random
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from typing import Any

WORKER: contextvars.ContextVar[Worker | None] = contextvars.ContextVar("tidings-worker", default=None)
"""The simulated process that the running code belongs to."""

coverage: Counter[str] = Counter()
"""How often each `sometimes` point was reached, over all simulations of this process."""


def sometimes(what: str) -> None:
    """Say that something rare happened. A run in which a point is never reached proves less than it seems to."""
    coverage[what] += 1


def never_reached(points: Iterable[str]) -> list[str]:
    """Those of these points that no simulation has reached."""
    return [point for point in points if not coverage[point]]


class Deadlock(AssertionError):
    """Nothing can run any more, and something still waits."""


class OutOfTime(AssertionError):
    """The simulation went on for longer than it may, in virtual time or in steps."""


class SimLoop(asyncio.BaseEventLoop):
    """An event loop in virtual time. Among the tasks that could run next, the seed decides.

    Callbacks that are no task's step keep their order, as asyncio promises; tasks may be resumed in any order.

    Args:
        seed: Decides the schedule.
        horizon: Virtual seconds after which a simulation has failed.
        steps: Steps after which it has failed.
    """

    def __init__(self, seed: int, horizon: float = 7200.0, steps: int = 3_000_000) -> None:
        super().__init__()
        self.random = random.Random(seed)  # noqa: S311 - repeatable, not secret
        self.steps = 0
        self.failures: list[str] = []
        self._now = 0.0
        self._hash = hashlib.sha256()
        self._horizon = horizon
        self._most = steps
        self._serial = itertools.count()
        self.before_step: Callable[[], None] | None = None
        self.set_exception_handler(self._failed)
        self.set_task_factory(self._numbered)

    @property
    def schedule(self) -> str:
        """SHA-256 of all steps so far: equal for equal seeds, or something is not deterministic."""
        return self._hash.hexdigest()

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._now

    def _run_once(self) -> None:
        ready: Any = self._ready  # type: ignore[attr-defined]
        timers: list[Any] = self._scheduled  # type: ignore[attr-defined]
        while timers and (timers[0]._cancelled or timers[0]._when <= self._now or not ready):  # noqa: SLF001
            timer = heapq.heappop(timers)
            timer._scheduled = False  # noqa: SLF001
            if not timer._cancelled and not _of_the_dead(timer):  # noqa: SLF001
                self._now = max(self._now, timer._when)  # noqa: SLF001
                ready.append(timer)
        if not ready:
            if self._stopping:  # type: ignore[attr-defined]
                return
            raise Deadlock(f"after {self.steps:,} steps, at {self._now:.3f} s: nothing can run, and something waits")
        self._pick(ready)._run()  # noqa: SLF001
        self.steps += 1
        if self.before_step is not None:
            self.before_step()
        if self._now > self._horizon or self.steps > self._most:
            raise OutOfTime(f"after {self.steps:,} steps, at {self._now:.3f} s")

    def _pick(self, ready: Any) -> Any:
        """Take one of the tasks that can go on, or the first of the plain callbacks."""
        choices: list[tuple[int, int]] = []
        callbacks = False
        for index, handle in enumerate(ready):
            task = _task_of(handle)
            if task is not None:
                choices.append((task.serial, index))  # in order of birth: sets of tasks have no order to rely on
            elif not callbacks:
                choices.append((-1, index))
                callbacks = True
        choices.sort()
        serial, index = choices[self.random.randrange(len(choices)) if len(choices) > 1 else 0]
        handle = ready[index]
        del ready[index]
        if handle._cancelled or _of_the_dead(handle):  # noqa: SLF001
            return _nothing
        worker = handle._context.get(WORKER)  # noqa: SLF001
        if worker is not None and worker.frozen is not None:
            worker.frozen.append(handle)
            return _nothing
        self._hash.update(f"{self._now:.6f} {serial}\n".encode())
        return handle

    def _numbered(self, loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> _Task:
        return _Task(coro, loop=loop, serial=next(self._serial), **options)

    def _failed(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error, task = context.get("exception"), context.get("future") or context.get("task")
        if isinstance(task, _Task) and task.worker is not None and task.worker.crashed:
            return  # whoever would have asked for it is dead
        where = getattr(task.get_coro(), "__qualname__", "?") if isinstance(task, asyncio.Task) else "a callback"
        self.failures.append(f"{context.get('message')}: {where}: {error!r}")

    def run_in_executor(self, executor: object, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]  # noqa: ARG002
        """Run it when its turn comes, on this thread: threads are not deterministic."""

        async def call() -> Any:
            return func(*args)

        return self.create_task(call())

    def add_signal_handler(self, sig: int, callback: Callable[..., Any], *args: Any) -> None:  # type: ignore[override]
        """Simulated processes get no signals; they are told to stop."""

    def remove_signal_handler(self, sig: int) -> bool:  # noqa: ARG002
        """As above."""
        return False

    def add_reader(self, fd: Any, callback: Callable[..., Any], *args: Any) -> None:  # type: ignore[override]
        """No files are watched: what would ring a bell is found by the next look."""

    def remove_reader(self, fd: Any) -> bool:  # noqa: ARG002
        """As above."""
        return False

    def _process_events(self, event_list: Any) -> None:
        """Nothing comes from outside."""

    def _write_to_self(self) -> None:
        """Nobody else can wake this loop."""


class _Task(asyncio.Task[Any]):
    """A task that knows when it was born, among all tasks, and whose it is."""

    def __init__(self, coro: Any, *, serial: int, **options: Any) -> None:
        super().__init__(coro, **options)
        self.serial = serial
        context = options.get("context")
        self.worker: Worker | None = WORKER.get() if context is None else context.get(WORKER)


class _Nothing:
    def _run(self) -> None:
        """Belonged to a crashed worker, or was cancelled."""


_nothing = _Nothing()


def _task_of(handle: Any) -> _Task | None:
    owner = getattr(handle._callback, "__self__", None)  # noqa: SLF001
    return owner if isinstance(owner, _Task) else None


def _of_the_dead(handle: Any) -> bool:
    worker = handle._context.get(WORKER) if handle._context is not None else None  # noqa: SLF001
    return worker is not None and worker.crashed


class Worker:
    """A simulated process: all tasks started from its `start` belong to it and die with it.

    Args:
        name: For the reader.
        number: Its process id in the history.
    """

    def __init__(self, name: str, number: int) -> None:
        self.name = name
        self.number = number
        self.crashed = False
        self.frozen: list[Any] | None = None
        self.task: asyncio.Task[Any] | None = None
        self.at_crash: list[Callable[[], None]] = []

    def start(self, main: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run its main coroutine."""
        context = contextvars.copy_context()
        context.run(WORKER.set, self)
        self.task = asyncio.get_running_loop().create_task(main, context=context)
        return self.task

    def crash(self) -> None:
        """Kill -9: none of its tasks takes another step, and nothing is cleaned up but what the kernel would."""
        self.crashed = True
        for release in self.at_crash:
            release()

    def freeze(self) -> None:
        """SIGSTOP: nothing of it runs until `thaw`, while time and the others go on."""
        if self.frozen is None:
            self.frozen = []

    def thaw(self) -> None:
        """SIGCONT: what became due meanwhile goes on at once."""
        waiting, self.frozen = self.frozen, None
        asyncio.get_running_loop()._ready.extend(waiting or ())  # type: ignore[attr-defined]  # noqa: SLF001


def simulate(seed: int, main: Callable[[SimLoop], Coroutine[Any, Any, Any]], **limits: Any) -> SimLoop:
    """Run one simulation to its end.

    Args:
        seed: Decides everything.
        main: Called with the loop; its coroutine is the simulation.
        limits: `horizon` and `steps` of the loop.

    Returns:
        The loop, with its `schedule` and the `failures` that nobody awaited.

    Raises:
        Deadlock: Nothing could run any more.
        OutOfTime: It did not end.
    """
    loop = SimLoop(seed, **limits)
    asyncio.set_event_loop(loop)
    enabled = gc.isenabled()
    gc.disable()  # a collection would run clean-up code of the dead at a moment that no seed decides
    try:
        loop.run_until_complete(main(loop))
    finally:
        _bury(loop)
        asyncio.set_event_loop(None)
        loop.close()
        if enabled:
            gc.enable()
    return loop


def _bury(loop: SimLoop) -> None:
    """Let go of tasks that never ended. Python runs their `finally` blocks now, when nothing can come of it."""
    hook = sys.unraisablehook
    sys.unraisablehook = lambda _: None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for task in asyncio.all_tasks(loop):
            task._log_destroy_pending = False  # type: ignore[attr-defined]  # noqa: SLF001
            with suppress(BaseException):
                task.get_coro().close()
        loop._ready.clear()  # type: ignore[attr-defined]  # noqa: SLF001
        loop._scheduled.clear()  # type: ignore[attr-defined]  # noqa: SLF001
        gc.collect()
    sys.unraisablehook = hook
