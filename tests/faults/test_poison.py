"""A message that kills its worker ends as a dead letter after its attempts; those beside it do not suffer."""

import asyncio

import pytest

from tests.faults.workload import Noticed, Placed, body_digest

MOST_CRASHES = 12


def feed(scene, kind, wish):
    """Thirty messages over ten keys; the one in the middle kills whoever handles it."""

    async def main():
        shop = scene.shop()
        async with shop.app as app:
            for number in range(30):
                message = kind(f"k{number % 10}", "p", number + 1, wish=wish if number == 14 else "")
                id_ = f"{kind.__name__}-{number}"
                shop.note("publish", "invoke", id=id_, key=message.key, digest=body_digest(message))
                shop.note("publish", "ok", id=id_, pos=await app.publish(message, id=id_))

    assert scene.child(lambda _: asyncio.run(main())).wait() == 0, scene.log()


@pytest.mark.parametrize("wish", ["exit", "crash"])
@pytest.mark.parametrize("kind", [Placed, Noticed])
def test_a_message_that_kills_the_process_becomes_a_dead_letter(scene, kind, wish):
    scene.prepare()
    feed(scene, kind, wish)
    deaths = 0
    while True:
        worker = scene.finish()
        if worker.wait() == 0:
            break
        deaths += 1
        scene.history.note("fault", "invoke", target=worker.pid, reason="poison")
        assert deaths <= MOST_CRASHES, f"the same message killed {deaths} workers:\n{scene.log()}"
    found = scene.final()
    dead = [held for held in found.held if held.state == "dead"]
    assert [held.envelope.id for held in dead] == [f"{kind.__name__}-14"], dead
    assert "stopped" in dead[0].reason
    assert deaths >= 2
    scene.report().require("G1", "G5", "G9", "G20")
