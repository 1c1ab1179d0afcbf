"""The power is cut between any two writes to the disk: everything acknowledged before is there."""

import asyncio
import os
import random
import shutil

import pytest

from tests.faults import mutants
from tests.faults.power import CALLS, survey
from tests.faults.workload import Publisher
from tidings.testing.faults import Tracing

STATES = int(os.environ.get("TIDINGS_STATES", "600"))

pytestmark = pytest.mark.usefixtures("strace")


def recorded(scene, rounds=60):
    """Record everything that one process with three publishers and a worker writes; returns where."""
    scene.prepare()
    before = scene.folder / "before"
    before.mkdir()
    for path in scene.folder.glob("shop.db*"):
        if path.is_file():
            shutil.copy(path, before)

    async def main():
        shop = scene.shop()
        async with shop.app as app:
            running = asyncio.ensure_future(app.run())
            publishers = [Publisher(shop, f"p{number}", random.Random(number)) for number in range(3)]
            await asyncio.gather(*(publisher.run(rounds // 3) for publisher in publishers))
            app.stop()
            await running

    trace = scene.folder / "trace"
    child = scene.traced(lambda: asyncio.run(main()), lambda pid: Tracing.recording(pid, CALLS, trace))
    assert child.wait() == 0, scene.log()
    scene.tracings.pop().end()
    return survey(trace, before, scene.folder / "history.jsonl", STATES)


def test_a_power_loss_loses_nothing_acknowledged(scene):
    found = recorded(scene)
    print(f"{found.states} states of the disk, {found.acknowledged} acknowledged, {len(found.lost)} with a loss")
    assert found.states >= STATES // 2
    assert found.acknowledged > 20
    assert found.damaged == []
    assert found.lost == []


def test_without_flushing_a_power_loss_does_lose(scene):
    scene.mutant = mutants.M2
    found = recorded(scene)
    assert found.lost, "the model finds nothing, so that it proves nothing"
    assert found.damaged == []
