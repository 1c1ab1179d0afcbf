"""The disk is full, or fails: callers are told the truth, and work goes on once it can, without a restart."""

import asyncio
import os
import random
import time

import pytest

from tests.faults.processes import Scene
from tests.faults.workload import Placed, Publisher, body_digest
from tidings.errors import OutcomeUnknown, StoreFull, TidingsError
from tidings.testing.faults import Tracing


@pytest.fixture
def small_disk(make_disk, tmp_path):
    """A file system of 24 MiB of one's own."""
    return make_disk(tmp_path, "24m")


@pytest.mark.proves("G1", "G4", "G5", "G7", "G9", "G14", "G16", "G31")
def test_a_full_disk_loses_nothing_and_work_goes_on_when_there_is_space(small_disk, tmp_path_factory):
    scene = Scene(small_disk, traces=tmp_path_factory.mktemp("traces"))
    try:
        scene.prepare()
        ballast = small_disk / "ballast"
        ballast.write_bytes(bytes(20 << 20))
        worker = scene.worker()
        worker.wait_ready()
        publisher = scene.child(lambda ready: asyncio.run(fill(scene, ready)))
        assert publisher.wait_ready(60), f"the disk never was full:\n{scene.log()}"
        scene.history.note("fault", "invoke", target=worker.pid, reason="disk full")
        time.sleep(0.3)
        ballast.unlink()
        assert publisher.wait() == 0, scene.log()
        assert worker.terminate() == 0, scene.log()
        scene.heal()
        scene.report().require("G1", "G4", "G5", "G7", "G9", "G14", "G16")
    finally:
        scene.close()


async def fill(scene, ready):
    """Publish until the disk is full, say so, and go on until fifty more were taken."""
    shop = scene.shop()
    async with shop.app as app:
        publisher = Publisher(shop, "p", random.Random(1))
        publisher.padding = "x" * 20_000
        publisher.wishes = [""]
        for _ in range(1000):
            try:
                await publisher.publish()
            except StoreFull as error:
                told = str(error)
                break
        assert str(scene.folder) in told
        assert "bytes free" in told
        ready()
        taken = 0
        while taken < 50:
            try:
                await app.publish(Placed("other", "q", taken + 1), id=f"after-{taken}")
            except StoreFull:
                await asyncio.sleep(0.01)
            else:
                taken += 1
    for number in range(taken):
        message = Placed("other", "q", number + 1)
        shop.note("publish", "invoke", id=f"after-{number}", key="other", digest=body_digest(message))
        shop.note("publish", "ok", id=f"after-{number}")


@pytest.mark.usefixtures("strace")
@pytest.mark.parametrize("error", ["EIO", "ENOSPC"])
@pytest.mark.parametrize("call", ["pwrite64", "fdatasync"])
@pytest.mark.parametrize("when", ["1", "4", "9", "14+3"])
def test_callers_are_told_the_truth_about_a_failing_disk(scene, call, error, when):
    """A call that fails says whether it happened; `unknown` where that cannot be said. Then everyone is killed."""
    scene.prepare()
    idle = scene.worker()
    idle.wait_ready()

    async def main():
        shop = scene.shop()
        async with shop.app:
            publisher = Publisher(shop, "p", random.Random(3))
            for _ in range(25):
                try:
                    await publisher.one()
                except TidingsError:
                    await asyncio.sleep(0.005)
            os._exit(0)  # without closing: what the disk refused may still be there

    child = scene.traced(lambda: asyncio.run(main()), lambda pid: Tracing.breaking(pid, call, f"error={error}", when))
    assert child.wait() == 0, scene.log()
    idle.kill()
    scene.heal()
    scene.report().require("G3", "G4", "G5", "G7", "G9", "G14")


def test_an_unknown_outcome_is_no_store_error():
    """Who catches StoreError to say "it failed" must not catch what may have happened."""
    assert not issubclass(OutcomeUnknown, StoreFull.__mro__[1])
