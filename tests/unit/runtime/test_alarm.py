"""An alarm rings by the time it was set to, and one that rings sooner serves as well."""

import asyncio

from tidings.runtime.alarm import Alarm


async def test_it_rings_by_the_earliest_time_and_once() -> None:
    loop, rung = asyncio.get_running_loop(), list[float]()
    alarm, began = Alarm(lambda: rung.append(loop.time())), loop.time()
    for after in (0.2, 0.05, 0.5):
        alarm.set(began + after)
    await asyncio.sleep(0.3)
    assert [0.05 <= at - began < 0.2 for at in rung] == [True]
    alarm.set(loop.time())
    await asyncio.sleep(0.01)
    assert len(rung) == 2


async def test_it_does_not_ring_once_it_is_stopped() -> None:
    rung = list[int]()
    alarm = Alarm(lambda: rung.append(1))
    alarm.set(asyncio.get_running_loop().time())
    alarm.stop()
    alarm.stop()
    await asyncio.sleep(0.01)
    assert rung == []
