"""kill -9 at exact places: before the N-th write, flush, truncation, lock or signal of a small scenario."""

import asyncio
import collections
import random
import shutil

import pytest

from tests.faults.power import steps_by_name
from tests.faults.processes import Scene
from tests.faults.sizes import LONG, POINTS
from tests.faults.workload import Publisher
from tidings.testing.faults import Tracing

CALLS = ["pwrite64", "fdatasync", "ftruncate", "unlink", "sendto", "flock", "write"]

pytestmark = [pytest.mark.usefixtures("strace"), pytest.mark.timeout(3600 if LONG else 120)]


async def scenario(scene):
    """Publish in every way, then work on it; both at once for a while."""
    shop = scene.shop()
    async with shop.app as app:
        publisher = Publisher(shop, "p", random.Random(5))
        for way in (publisher.publish, publisher.notice, publisher.transact, publisher.execute) * 2:
            await way()
        await app.run(until_idle=True)
        running = asyncio.ensure_future(app.run())
        for way in (publisher.publish, publisher.notice, publisher.transact, publisher.execute) * 2:
            await way()
        app.stop()
        await running


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A store to start from, and how often an unbroken scenario makes each call."""
    folder = tmp_path_factory.mktemp("prepared")
    scene = Scene(folder)
    scene.prepare()
    start = folder / "start"
    start.mkdir()
    for path in folder.glob("shop.db*"):
        (shutil.copytree if path.is_dir() else shutil.copy)(path, start / path.name)
    trace = folder / "trace"
    child = scene.traced(
        lambda: asyncio.run(scenario(scene)), lambda pid: Tracing.recording(pid, ",".join(CALLS), trace)
    )
    assert child.wait() == 0, scene.log()
    scene.close()
    return start, collections.Counter(steps_by_name(trace))


@pytest.mark.proves("G1", "G5", "G7", "G9", "G14")
@pytest.mark.parametrize("call", CALLS)
def test_a_kill_at_an_exact_place_loses_nothing(prepared, tmp_path, call):
    start, counts = prepared
    total = counts[call]
    if not total:
        pytest.skip(f"the scenario never calls {call}")
    sure = max(1, total * 7 // 10)  # commits are shared as they come, so that the number of calls differs
    places = range(1, sure + 1) if not POINTS else sorted({1 + number * sure // POINTS for number in range(POINTS)})
    reached = proven = 0
    for place in places:
        scene = Scene(shutil.copytree(start, tmp_path / str(place)), options={"lease": 1.0})
        try:
            child = scene.traced(
                lambda scene=scene: asyncio.run(scenario(scene)),
                lambda pid, place=place: Tracing.breaking(pid, call, "signal=SIGKILL", str(place)),
            )
            if child.wait() == -9:
                reached += 1
                scene.history.note("fault", "invoke", target=child.pid, reason="kill")
            scene.heal()
            report = scene.report()
            report.require()
            proven += all(report.verdicts[number].checked for number in ("G1", "G5", "G7", "G9", "G14"))
        except AssertionError as error:
            raise AssertionError(f"killed at {call} number {place} of {total}: {error}") from error
        finally:
            scene.close()
    print(f"{call}: {reached} of {len(places)} places reached, {total} in all")
    assert reached >= len(places) * (0.3 if total < POINTS else 0.6), "it ended before most kills: inconclusive"
    assert proven >= len(places) // 2 or total < POINTS, "most kills came before anything was published"
