"""FastAPI: the request's own session commits the order and its event; handlers run beside the server.

Start it with `uvicorn with_fastapi:web`. To work in processes apart from the server, write `async with shop:` in place
of `async with shop.lifespan():`, and start `tidings run with_fastapi:shop`.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from sqlalchemy import create_engine, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from tidings import App, Key, Transaction, event


@event(topic="orders")
class OrderPlaced:
    order_id: Key[str]
    total: int


class Base(DeclarativeBase): ...


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[str] = mapped_column(primary_key=True)
    total: Mapped[int]
    packed: Mapped[bool] = mapped_column(default=False)


shop = App("sqlite:shop.db")
engine = create_engine("sqlite:///shop.db")


@shop.on(OrderPlaced)
async def pack(order: OrderPlaced, tx: Transaction) -> None:
    await tx.execute("UPDATE orders SET packed = ? WHERE id = ?", True, order.order_id)


@asynccontextmanager
async def lifespan(_web: FastAPI) -> AsyncIterator[None]:
    async with shop.lifespan():
        Base.metadata.create_all(engine)  # in the file that the app has made
        yield


web = FastAPI(lifespan=lifespan)


@web.post("/orders/{order_id}", status_code=201)
def place(order_id: str, total: int) -> None:
    with Session(engine) as session, session.begin():  # here, so that it is committed before the answer is sent
        session.add(Order(id=order_id, total=total))
        shop.outbox.add(session, OrderPlaced(order_id, total))
        if total < 0:
            raise ValueError("rolled back: there is no order, and nobody hears of one")


@web.get("/orders")
def orders() -> dict[str, bool]:
    with Session(engine) as session:
        return {order.id: order.packed for order in session.scalars(select(Order))}
