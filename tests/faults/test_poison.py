"""A message that kills its worker ends as a dead letter after its attempts; those beside it do not suffer."""

import asyncio

import pytest

from tests.faults.workload import Noticed, Placed, body_digest, digest_of
from tidings.core.envelope import Envelope
from tidings.core.operations import Append

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
@pytest.mark.bad_input(52)
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
    assert dead[0].since >= dead[0].envelope.time > 0
    told = [line.partition(":")[0] for line in dead[0].history]
    assert told == [f"attempt {number}" for number in range(1, dead[0].attempt + 1)], dead[0].history
    assert deaths >= 2
    scene.report().require("G1", "G5", "G9", "G20")


def publish_unreadable(scene):
    """Publish what no handler can read, between two messages of the same key that can be."""

    async def main():
        shop = scene.shop()
        async with shop.app as app:
            for number, data in enumerate(
                (b'{"key":"k1","producer":"p","pseq":1}', b'{"key":"k1","pro', b"\xff\xfe"), 1
            ):
                envelope = Envelope(0, f"u{number}", "shop", "Placed", 1, "orders", f"k{number}", number, None, None, 0,
                                    None, None, None, None, data)  # fmt: skip
                facts = {"key": envelope.key, "digest": digest_of(envelope)}
                shop.note("publish", "invoke", id=envelope.id, reason="unreadable" if number > 1 else None, **facts)
                appended = await app.store.write(Append([envelope]))
                shop.note("publish", "ok", id=envelope.id, pos=appended.position)

    assert scene.child(lambda _: asyncio.run(main())).wait() == 0, scene.log()


def test_what_cannot_be_read_becomes_a_dead_letter_with_its_bytes(scene):
    scene.prepare()
    publish_unreadable(scene)
    assert scene.finish().wait() == 0, scene.log()
    scene.report().require("G1", "G3", "G5", "G20", "G21")
