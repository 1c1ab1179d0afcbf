"""Starlette: a transaction of the app itself, for those without a session of their own; handlers beside the server.

Start it with `uvicorn with_starlette:web`.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tidings import App, Key, Transaction, event


@event(topic="orders")
class OrderPlaced:
    order_id: Key[str]
    total: int


shop = App("sqlite:shop.db")


@shop.on(OrderPlaced)
async def pack(order: OrderPlaced, tx: Transaction) -> None:
    await tx.execute("UPDATE orders SET packed = 1 WHERE id = ?", order.order_id)


@asynccontextmanager
async def lifespan(_web: Starlette) -> AsyncIterator[None]:
    async with shop.lifespan():
        async with shop.transaction() as tx:
            await tx.execute("CREATE TABLE IF NOT EXISTS orders (id TEXT PRIMARY KEY, total INT, packed INT DEFAULT 0)")
        yield


async def place(request: Request) -> Response:
    order_id, total = request.path_params["order_id"], int(request.query_params["total"])
    async with shop.transaction() as tx:
        await tx.execute("INSERT INTO orders (id, total) VALUES (?, ?)", order_id, total)
        await tx.publish(OrderPlaced(order_id, total))
        if total < 0:
            raise ValueError("rolled back: there is no order, and nobody hears of one")
    return Response(status_code=201)


async def orders(_request: Request) -> Response:
    async with shop.transaction() as tx:
        rows = await tx.execute("SELECT id, packed FROM orders")
        return JSONResponse({order_id: bool(packed) for order_id, packed in rows.fetchall()})


web = Starlette(
    lifespan=lifespan,
    routes=[Route("/orders/{order_id}", place, methods=["POST"]), Route("/orders", orders)],
)
