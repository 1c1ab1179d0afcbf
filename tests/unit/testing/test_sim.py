"""The simulated loop: virtual time, repeatable schedules, crashes between awaits, and an end to what cannot end."""

import asyncio

import pytest

from tidings.testing.sim import Deadlock, OutOfTime, Worker, coverage, never_reached, simulate, sometimes


def race(log):
    async def main(loop):
        async def racer(name):
            for lap in range(5):
                log.append((name, lap, loop.time()))
                await asyncio.sleep(loop.random.random())

        async with asyncio.TaskGroup() as group:
            for name in "abc":
                group.create_task(racer(name))

    return main


def test_the_same_seed_takes_the_same_steps():
    first, again, other = [], [], []
    one, two, three = simulate(7, race(first)), simulate(7, race(again)), simulate(8, race(other))
    assert first == again
    assert one.schedule == two.schedule != three.schedule


def test_seeds_choose_among_tasks_that_are_ready():
    starts = set()
    for seed in range(30):
        log = []
        simulate(seed, race(log))
        starts.add(tuple(name for name, lap, _ in log if lap == 0))
    assert len(starts) == 6


def test_callbacks_keep_their_order():
    async def main(loop):
        order = []
        for number in range(50):
            loop.call_soon(order.append, number)
        await asyncio.sleep(1)
        assert order == list(range(50))

    for seed in range(10):
        simulate(seed, main)


def test_an_hour_takes_no_time():
    async def main(loop):
        await asyncio.sleep(3600)
        assert loop.time() == 3600
        async with asyncio.timeout(10):
            await asyncio.to_thread(sum, [1, 2])

    simulate(1, main)


def test_waiting_for_what_never_comes_is_a_deadlock():
    async def main(loop):
        await loop.create_future()

    with pytest.raises(Deadlock):
        simulate(1, main)


def test_what_never_ends_runs_out_of_time():
    async def main(loop):
        for _ in range(1_000_000):
            await asyncio.sleep(1)

    with pytest.raises(OutOfTime):
        simulate(1, main, horizon=60)


def test_a_crash_stops_every_task_of_the_worker_and_cleans_nothing_up():
    log = []

    async def child(name):
        try:
            while True:
                await asyncio.sleep(1)
                log.append(name)
        finally:
            log.append(f"{name} cleaned up")

    async def parent(name):
        async with asyncio.TaskGroup() as group:
            group.create_task(child(f"{name}1"))
            group.create_task(child(f"{name}2"))

    async def main(loop):
        doomed, other = Worker("doomed", 1), Worker("other", 2)
        doomed.start(parent("d"))
        other.start(parent("o"))
        await asyncio.sleep(3.5)
        released = []
        doomed.at_crash.append(lambda: released.append(True))
        doomed.crash()
        await asyncio.sleep(3)
        assert released == [True]
        assert sorted(log) == ["d1"] * 3 + ["d2"] * 3 + ["o1"] * 6 + ["o2"] * 6

    simulate(3, main)


def test_points_that_were_never_reached_are_named():
    sometimes("a cow jumped")
    try:
        assert never_reached(["a cow jumped", "a pig flew"]) == ["a pig flew"]
    finally:
        del coverage["a cow jumped"]


def test_errors_nobody_awaits_are_kept():
    async def main(loop):
        asyncio.get_running_loop().create_task(fail())
        await asyncio.sleep(1)

    async def fail():
        raise ValueError("lost")

    assert "lost" in str(simulate(1, main).failures)
