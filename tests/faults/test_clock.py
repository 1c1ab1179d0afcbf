"""The clock of one worker's machine jumps by an hour: leases are told by the database's clock, so nothing moves."""

import contextlib
import os
import signal
import time
from collections.abc import Callable

from tests.faults.processes import Scene, crew, dismiss, resumed
from tests.faults.test_postgres import PROMISES
from tidings.core.url import parse_url
from tidings.stores.postgres import leases
from tidings.stores.postgres.connection import Place, TimelyConnection
from tidings.testing.verdict import Report

HOUR = 3600.0
LASTS = 1.5
"""Seconds in which the wall clock jumps."""


def jump() -> None:
    """The wall clock of this process is an hour ahead, an hour behind, and right, in turns."""
    now, now_ns, since = time.time, time.time_ns, time.monotonic()

    def ahead() -> float:
        return (HOUR, -HOUR, 0.0)[int((time.monotonic() - since) / 0.3) % 3]

    time.time = lambda: now() + ahead()
    time.time_ns = lambda: now_ns() + int(ahead() * 1e9)


def sleep() -> None:
    """The machine sleeps for an hour, and for this process that is one moment: all its deadlines are over."""
    monotonic = time.monotonic
    time.monotonic = lambda: monotonic() + HOUR


def by_its_own_clock() -> None:
    """M17: a worker tells by the clock of its own machine whether a lease is over."""

    class Now:
        def __init__(self, sql: str) -> None:
            self.sql = sql

        def __str__(self) -> str:
            return self.sql.replace("now", repr(time.time()))

    leases.NOW, leases.OVER = Now("now::float"), Now("(expires <= now OR expires > now + lease)")


def settled(connection: TimelyConnection) -> int:
    """Wait until three workers share the slots and nothing moves for four seconds; the epochs of all slots then."""
    was: tuple[int, ...] | None = None
    calm = 0
    for _ in range(40):
        now = connection.execute("SELECT sum(epoch)::int, count(DISTINCT owner) FROM tidings_slot").fetchone()
        calm = calm + 1 if now == was and now[1] == 3 else 0
        if calm == 4:  # longer than a lease: whoever had too much has given it back
            return now[0]
        was = now
        time.sleep(1.0)
    raise AssertionError(f"the slots have {was} owners and epochs")


def play(scene: Scene, mutant: Callable[[], None] = lambda: None) -> tuple[int, Report]:
    """Let one of three workers suffer both; how many slots changed their owner while its clock jumped; the verdicts."""
    scene.options = {"lease": 3.0}
    scene.prepare()
    faults = [sleep, jump]
    scene.mutant = lambda: (mutant(), signal.signal(signal.SIGUSR1, lambda *_: faults.pop()()))
    children = crew(scene, wishes=[""])  # a retry is due by the clock of who asks for it, and may wait for an hour
    odd = scene.worker()
    assert odd.wait_ready(), scene.log()
    scene.mutant = None
    with contextlib.closing(Place(parse_url(scene.url)).connect()) as connection:
        before = settled(connection)
        os.kill(odd.pid, signal.SIGUSR1)
        time.sleep(LASTS)
        [after] = connection.execute("SELECT sum(epoch)::int FROM tidings_slot").fetchone()
    scene.history.note("fault", "invoke", target=odd.pid, reason="asleep")  # what it had under way is over
    os.kill(odd.pid, signal.SIGUSR1)
    resumed(scene)
    assert odd.terminate() == 0, scene.log()
    dismiss(scene, children)
    return after - before, scene.report()


def test_clocks_that_jump_by_an_hour_lose_double_and_reorder_nothing_and_move_no_lease(
    make_scene, durable_postgres_url: str
) -> None:
    moved, report = play(make_scene(durable_postgres_url))
    print(report)
    report.require(*sorted({*PROMISES, "G8", "G10"} - {"G20"}))
    assert moved == 0


def test_leases_by_the_clocks_of_the_workers_are_caught_to_move(make_scene, durable_postgres_url: str) -> None:
    moved, _ = play(make_scene(durable_postgres_url), by_its_own_clock)
    assert moved > 0
