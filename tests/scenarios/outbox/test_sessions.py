"""A session of SQLAlchemy in a handler: its rows, the messages and the acknowledgement are committed together."""

from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from tests.scenarios.outbox.messages import Placed, Unkeyed
from tidings import App, Retry, Transaction
from tidings.errors import UsageError
from tidings.sqlalchemy import async_session, session


class Base(DeclarativeBase): ...


class Parcel(Base):
    __tablename__ = "parcel"
    id: Mapped[str] = mapped_column(primary_key=True)
    note: Mapped[str | None]


class Failed(Exception):
    """A handler failed."""


def opened(url: str, tx: Transaction) -> AbstractAsyncContextManager[Any]:
    return session(tx) if url.startswith("sqlite") else async_session(tx)


async def awaited(found: Any, result: Any) -> Any:
    return await result if isinstance(found, AsyncSession) else result


@pytest.fixture
async def shop(url: str) -> App:
    app = App(url, name="shop")
    async with app, app.transaction() as tx:
        await tx.execute("CREATE TABLE parcel (id TEXT PRIMARY KEY, note TEXT)")
    return app


async def parcels(app: App) -> list[tuple[str]]:
    return sorted(await app.store.query("SELECT id FROM parcel"))


async def test_what_a_handler_does_in_a_session_happens_once_with_its_messages(shop: App) -> None:
    failing = {"o-1", "o-3"}

    @shop.on(Placed, retry=Retry(attempts=3, initial=0.001))
    async def pack(order: Placed, tx: Transaction) -> Unkeyed:
        async with opened(shop.url, tx) as found:
            found.add(Parcel(id=order.order_id))
            if order.order_id == "o-1" and order.order_id in failing:
                failing.remove(order.order_id)
                raise Failed
        if order.order_id in failing:  # the session has committed; the handler has not
            failing.remove(order.order_id)
            raise Failed
        async with opened(shop.url, tx) as found:
            kept = await awaited(found, found.scalar(select(Parcel).where(Parcel.id == order.order_id)))
            kept.note = "packed"
        return Unkeyed(order.number)

    async with shop:
        await shop.publish(*(Placed(f"o-{number}", number) for number in range(5)))
        await shop.run(until_idle=True)
        assert await parcels(shop) == [(f"o-{number}",) for number in range(5)]
        assert await shop.store.query("SELECT count(*) FROM parcel WHERE note = 'packed'") == [(5,)]
        assert await shop.store.head() == 10
        assert await shop.store.held() == []


async def test_what_a_session_undoes_is_undone_and_the_rest_stays(shop: App) -> None:
    async with shop:
        async with shop.transaction() as tx:
            await tx.execute("INSERT INTO parcel VALUES ('a', NULL)")
            with pytest.raises(Failed):
                await undone(shop, tx)
            await tx.execute("INSERT INTO parcel VALUES ('c', NULL)")
        assert await parcels(shop) == [("a",), ("c",)]


async def undone(app: App, tx: Transaction) -> None:
    async with opened(app.url, tx) as found:
        found.add(Parcel(id="b"))
        await awaited(found, found.flush())
        raise Failed


async def test_the_other_kind_of_session_is_refused(shop: App) -> None:
    async with shop, shop.transaction() as tx:
        wrong = async_session if shop.url.startswith("sqlite") else session
        with pytest.raises(UsageError, match="session is used on"):
            await wrong(tx).__aenter__()
