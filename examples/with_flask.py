"""Flask: the request's own session commits the order and its event; handlers run in a process apart.

Start it with `flask --app with_flask:web run`, and the handlers with `tidings run with_flask:shop`.
"""

from flask import Flask, request
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
web = Flask(__name__)

with shop.blocking():  # makes the file, in which the tables then are
    Base.metadata.create_all(engine)


@shop.on(OrderPlaced)
async def pack(order: OrderPlaced, tx: Transaction) -> None:
    await tx.execute("UPDATE orders SET packed = ? WHERE id = ?", True, order.order_id)


@web.post("/orders/<order_id>")
def place(order_id: str) -> tuple[str, int]:
    total = int(request.args["total"])
    with Session(engine) as session, session.begin():
        session.add(Order(id=order_id, total=total))
        shop.outbox.add(session, OrderPlaced(order_id, total))
        if total < 0:
            raise ValueError("rolled back: there is no order, and nobody hears of one")
    return "", 201


@web.get("/orders")
def orders() -> dict[str, bool]:
    with Session(engine) as session:
        return {order.id: order.packed for order in session.scalars(select(Order))}
