"""Litestar: events that need no rows beside them; handlers beside the server.

Start it with `litestar --app with_litestar:web run`.
"""

from litestar import Litestar, get, post
from litestar.params import FromPath, FromQuery

from tidings import App, Key, event


@event(topic="orders")
class OrderPlaced:
    order_id: Key[str]
    total: int


shop = App("sqlite:shop.db")
packed: dict[str, bool] = {}


@shop.on(OrderPlaced)
async def pack(order: OrderPlaced) -> None:
    packed[order.order_id] = True


@post("/orders/{order_id:str}")
async def place(order_id: FromPath[str], total: FromQuery[int]) -> None:
    if total < 0:
        raise ValueError("nobody hears of it")
    await shop.publish(OrderPlaced(order_id, total))


@get("/orders", sync_to_thread=False)
def orders() -> dict[str, bool]:
    return packed


web = Litestar([place, orders], lifespan=[shop.lifespan])
