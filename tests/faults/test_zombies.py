"""A worker that sleeps through its lease and wakes up again commits nothing; a worker that dies is replaced in time."""

import asyncio
import time

import pytest

from tests.faults.sizes import ZOMBIES
from tests.faults.workload import Noticed, Placed, body_digest


def publish(scene, *messages):
    """Publish in a process of its own, under ids "m1", "m2"..."""

    async def main():
        shop = scene.shop()
        async with shop.app as app:
            for message in messages:
                id_ = f"m{message.pseq}"
                shop.note("publish", "invoke", id=id_, key=message.key, digest=body_digest(message))
                shop.note("publish", "ok", id=id_, pos=await app.publish(message, id=id_))

    assert scene.child(lambda _: asyncio.run(main())).wait() == 0, scene.log()


def announced(seconds):
    """A pause that says that a handler has begun, then takes its time."""

    def make(say):
        async def pause(_group):
            say()
            await asyncio.sleep(seconds)

        return pause

    return make


def haunt(scene, number, lease):
    """One zombie: stopped in its handler for 1.25 leases, replaced, continued. False if stopped in a commit."""
    publish(scene, Placed(f"k{number}", "p", number))
    zombie = scene.worker(announced(lease / 2))
    assert zombie.wait_ready(), scene.log()
    assert zombie.wait_ready(), scene.log()
    time.sleep(0.04)  # starting means writing; a process stopped while it has the right to write stops all others
    zombie.stop()
    time.sleep(1.25 * lease)
    other = scene.worker(announced(0))
    try:
        other.wait_ready(lease + 2)
        other.wait_ready(lease + 2)
    except TimeoutError:
        zombie.resume()
        assert zombie.terminate() == 0, scene.log()
        other.wait_ready()  # it was held up before it could listen to signals
        assert other.terminate() == 0, scene.log()
        return False
    assert other.terminate() == 0, scene.log()
    zombie.resume()
    time.sleep(lease / 2)
    assert zombie.terminate() == 0, scene.log()
    return True


def haunt_all(scene, lease, zombies=ZOMBIES):
    """As many zombies as are asked for that are replaced; on a busy machine more are stopped in a commit."""
    done = tries = 0
    while done < zombies:
        tries += 1
        assert tries <= 2 * zombies, f"of {tries - 1} zombies only {done} were replaced:\n{scene.log()}"
        done += haunt(scene, tries, lease)
    scene.heal()
    report = scene.report()
    print(f"{done} of {tries} zombies were replaced\n{report}")
    report.require("G5", "G7", "G9", "G10", "G26")
    assert report.verdicts["G26"].checked >= done


@pytest.mark.alone
@pytest.mark.timeout(max(120, 6 * ZOMBIES))
def test_a_zombie_commits_nothing(scene):
    lease = 0.3
    scene.options = {"lease": lease}
    scene.prepare()
    haunt_all(scene, lease)


@pytest.mark.parametrize("lease", [1.0])
def test_the_work_of_a_killed_worker_goes_on_elsewhere(scene, lease):
    scene.options = {"lease": lease}
    scene.prepare()
    doomed = scene.worker(announced(60))
    doomed.wait_ready()
    publish(scene, *(Placed(f"k{number}", "p", number) for number in range(1, 9)))
    publish(scene, *(Noticed(f"k{number}", "p", number) for number in range(11, 19)))
    doomed.wait_ready()
    heir = scene.worker(announced(0))
    heir.wait_ready()
    time.sleep(0.2)
    doomed.kill()
    heir.wait_ready(lease + 4)
    time.sleep(lease)
    assert heir.terminate() == 0, scene.log()
    scene.heal()
    scene.report(recovery=lease + 2).require("G5", "G7", "G8", "G9", "G25")
