"""What users' own tests rest on."""

import asyncio

import pytest

from tidings import App, Key, Retry, event
from tidings.errors import GroupConflict
from tidings.testing.clock import VirtualClock
from tidings.testing.harness import running, settled
from tidings.testing.pytest_plugin import tidings_clock, tidings_url

__all__ = ["tidings_clock", "tidings_url"]


@event(topic="test")
class Rang:
    bell: Key[str]
    times: int = 1


async def test_settled_returns_when_everything_is_handled(tidings_url):
    app, heard = App(tidings_url), []

    @app.on(Rang)
    async def echo(rang: Rang) -> Rang | None:
        heard.append(rang.times)
        return Rang(rang.bell, rang.times + 1) if rang.times < 5 else None

    async with app:
        await app.publish(Rang("a"))
        await settled(app)
    assert heard == [1, 2, 3, 4, 5]


async def test_an_hour_passes_when_the_clock_is_moved(tidings_url, tidings_clock):
    app, heard = App(tidings_url, clock=tidings_clock), []

    @app.on(Rang)
    async def note(rang: Rang) -> None:
        heard.append(rang.times)

    async with app:
        await app.publish(Rang("a"), after=3600)
        await settled(app)
        assert heard == []
        tidings_clock.advance(3601)
        await settled(app)
    assert heard == [1]


async def test_running_works_beside_the_test_and_drains_at_the_end(tidings_url):
    app, heard, begun = App(tidings_url), [], asyncio.Event()

    @app.on(Rang)
    async def slow(rang: Rang) -> None:
        begun.set()
        await asyncio.sleep(0.05)
        heard.append(rang.bell)

    async with running(app):
        await app.publish(Rang("a"))
        await begun.wait()
    assert heard == ["a"]


async def test_what_ends_a_running_app_is_raised(tidings_url):
    app, twin = App(tidings_url, name="one"), App(tidings_url, name="one")

    @app.on(Rang, group="same")
    async def first(rang: Rang) -> None: ...

    @twin.on(Rang, group="same")
    async def second(rang: Rang) -> None: ...

    async with running(app):
        while not any(group.owners for group in await app.store.backlog()):
            await asyncio.sleep(0.001)
        with pytest.raises(GroupConflict, match="same"):
            async with running(twin):
                pass


async def test_retries_wait_on_the_virtual_clock(tidings_url, tidings_clock):
    app, tries = App(tidings_url, clock=tidings_clock), []

    @app.on(Rang, retry=Retry(attempts=2, initial=60, maximum=60))
    async def fails(rang: Rang) -> None:
        tries.append(rang)
        if len(tries) == 1:
            raise ValueError("not yet")

    async with running(app):
        await app.publish(Rang("a"))
        while len(await app.store.held(state="retry")) < 1:
            await asyncio.sleep(0.001)
        assert len(tries) == 1
        tidings_clock.advance(60)
        while await app.store.held():
            await asyncio.sleep(0.001)
    assert len(tries) == 2


def test_a_virtual_clock_stands_still_and_repeats_its_ids():
    one, two = VirtualClock(7), VirtualClock(7)
    assert one.now() == two.now() == one.now()
    assert [one.id(), one.id()] == [two.id(), two.id()]
    one.advance(-5)
    assert one.now() == two.now() - 5_000_000
