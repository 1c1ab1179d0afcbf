"""A handler that got a new name begins anew; that is told, with the old name and the way back."""

from __future__ import annotations

import asyncio

import pytest

from tests.scenarios.runtime.messages import OrderPlaced, ReceiptSent
from tidings import App, Projection, Transaction

WARNED = "is run by nobody any more"


def shop(url: str, name: str, group: str | None = None, takes: type = OrderPlaced, app: str = "shop") -> App:
    """A shop with one handler of this name."""
    found = App(url, name=app)

    async def handle(message: object) -> None:
        pass

    handle.__name__ = handle.__qualname__ = name
    handle.__annotations__ = {"message": takes}
    found.on(takes, group=group)(handle)
    return found


async def test_a_renamed_handler_is_warned_of_with_its_old_group_and_the_cure(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    first = shop(url, "send_receipt")
    async with first:
        await first.publish(OrderPlaced("o-1"))
        await first.run(until_idle=True)
    assert WARNED not in caplog.text
    await shop(url, "mail_receipt").run(until_idle=True)
    (told,) = (record.getMessage() for record in caplog.records if WARNED in record.getMessage())
    assert told.startswith("shop.mail_receipt is new and begins anew; shop.send_receipt (")
    assert "which handled OrderPlaced as well" in told
    assert told.endswith("group='send_receipt'")


async def test_it_is_told_before_anything_is_handled_again(url: str, caplog: pytest.LogCaptureFixture) -> None:
    first, told = shop(url, "send_receipt"), list[bool]()
    async with first:
        await first.publish(OrderPlaced("o-1"))
        await first.run(until_idle=True)
    app = App(url, name="shop")

    @app.on(OrderPlaced)
    async def mail_receipt(_order: OrderPlaced) -> None:
        told.append(WARNED in caplog.text)

    await app.run(until_idle=True)
    assert told == [True]


async def test_who_keeps_the_group_goes_on_and_is_not_warned(url: str, caplog: pytest.LogCaptureFixture) -> None:
    await shop(url, "send_receipt").run(until_idle=True)
    await shop(url, "mail_receipt", group="send_receipt").run(until_idle=True)
    assert WARNED not in caplog.text


@pytest.mark.parametrize("other", ["another type", "still run", "another app"])
async def test_what_is_new_and_nothing_else_is_no_rename(
    url: str, caplog: pytest.LogCaptureFixture, other: str
) -> None:
    first = shop(url, "send_receipt")
    async with first:
        running = asyncio.create_task(first.run(until_idle=other != "still run"))
        await asyncio.sleep(0.2)
        takes = ReceiptSent if other == "another type" else OrderPlaced
        app = "shop2" if other == "another app" else "shop"
        await shop(url, "mail_receipt", takes=takes, app=app).run(until_idle=True)
        first.stop()
        await running
    assert WARNED not in caplog.text


async def test_a_renamed_projection_is_told_to_keep_its_name(url: str, caplog: pytest.LogCaptureFixture) -> None:
    for number, name in enumerate(["orders", "all_orders"]):
        part = Projection(name, schema=f"CREATE TABLE orders_{number} (id TEXT)")

        @part.on(OrderPlaced)
        async def add(_order: OrderPlaced, _tx: Transaction) -> None:
            pass

        await App(url, part, name="shop").run(until_idle=True)
    assert "shop.all_orders is new" in caplog.text
    assert "name='orders'" in caplog.text
