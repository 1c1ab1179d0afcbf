"""kill -9 at any moment: nothing acknowledged is lost, nothing takes effect twice, order per key is kept."""

import random
import selectors
import time

import pytest

from tests.faults.sizes import KILLS

ROLES = ("publisher", "worker")


def campaign(scene, kills, seed=1, *, crew=2 * ROLES, counted=ROLES, publisher=None, worker=None, life=(0.003, 0.023)):
    """Publishers and workers on one store; each is killed 3 to 23 ms after it is at work, and started again.

    Args: kills: so many of the roles that are counted. crew: the roles of those who work at the same time.
    """
    chance = random.Random(seed)
    starts = {"publisher": publisher or scene.publisher, "worker": worker or scene.worker}
    selector = selectors.DefaultSelector()
    doomed = {}
    scene.prepare()

    def start(role):
        child = starts[role]()
        selector.register(child.pipe, selectors.EVENT_READ, (child, role))

    for role in crew:
        start(role)
    killed = 0
    while killed < kills:
        wait = min(doomed.values(), default=time.monotonic() + 10.0) - time.monotonic()
        for key, _ in selector.select(max(0.0, wait)):
            selector.unregister(key.fileobj)
            child, _role = key.data
            assert child.wait_ready(0), f"a child ended by itself with {child.wait()}:\n{scene.log()}"
            doomed[key.data] = time.monotonic() + chance.uniform(*life)
        for (child, role), moment in list(doomed.items()):
            if moment <= time.monotonic():
                del doomed[child, role]
                child.kill()
                scene.children.remove(child)
                killed += role in counted
                start(role)
    for child in list(scene.children):
        child.end()
    return killed


@pytest.mark.timeout(max(120, KILLS // 4))
def test_nothing_is_lost_doubled_or_reordered_by_kills(scene):
    begin = time.monotonic()
    killed = campaign(scene, KILLS)
    took = time.monotonic() - begin
    scene.heal()
    report = scene.report()
    print(f"{killed} kills in {took:.0f} s ({killed / took:.0f} a second)\n{report}")
    report.require("G1", "G2", "G3", "G4", "G5", "G7", "G8", "G9", "G12", "G14", "G16", "G20", "G26")
