"""A handler for the wrong message is a type error, for mypy and for pyright, without a plugin.

Nothing here runs: `make check` reads it. Both checkers refuse an `ignore` that silences nothing, so that each line
marked below is proven to be an error, and each line without a mark is proven to be right.
"""

from dataclasses import dataclass
from typing import assert_type

from tidings import App, Envelope, Gone, Key, Router, Transaction, command, event, state


@event(topic="orders")
class Placed:
    order_id: Key[str]
    total: int


@event(topic="orders")
class Paid:
    order_id: Key[str]


@event
@dataclass(frozen=True)
class Shipped:
    order_id: Key[str]


@state(topic="customers")
class Customer:
    customer_id: Key[str]
    name: str


@command
class Ship:
    order_id: Key[str]


# -- messages are the classes that their authors wrote ---------------------------------------------------------------

placed = Placed("o-1", total=3)
assert_type(placed, Placed)
assert_type(placed.order_id, str)
assert_type(Shipped("o-1"), Shipped)
Placed("o-1", total="three")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Placed("o-1")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
placed.total = 4  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]

# -- a handler takes what it is subscribed to, or more ----------------------------------------------------------------

router = Router()


@router.on(Placed)
async def exact(order: Placed) -> Paid:
    return Paid(order.order_id)


@router.on(Placed)
def plain(order: Placed) -> None: ...


@router.on(Placed)
async def wider(order: Placed | Paid) -> None: ...


@router.on(Placed)
async def anything(message: object) -> None: ...


@router.on(Placed | Paid)
async def union(order: Placed | Paid) -> None: ...


@router.on(Customer | Gone)
async def tombstones(customer: Customer | Gone) -> None: ...


@router.on(Ship)
async def with_more(order: Ship, tx: Transaction, envelope: Envelope) -> None:
    await tx.execute("DELETE FROM waiting WHERE order_id = ? AND id = ?", order.order_id, envelope.id)


@router.on(Placed)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
async def wrong(order: Paid) -> None: ...


@router.on(Placed | Paid)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
async def narrower(order: Placed) -> None: ...


@router.on(Placed)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
async def nothing() -> None: ...


# -- what `fetch` returns is the second argument ----------------------------------------------------------------------


async def customer_of(order: Placed) -> Customer:
    return Customer("c-1", order.order_id)


@router.on(Placed, fetch=customer_of)
async def fetched(order: Placed, customer: Customer) -> None: ...


@router.on(Placed, fetch=customer_of)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
async def fetched_wrong(order: Placed, customer: Ship) -> None: ...


# -- a request gives what it asks for ---------------------------------------------------------------------------------


async def asks(app: App) -> None:
    assert_type(await app.request(Ship("o-1"), Shipped), Shipped)
    assert_type(await app.request(Ship("o-1"), Shipped | Paid, timeout=1.0), Shipped | Paid)
    assert_type(await app.request(Ship("o-1"), Shipped | None), Shipped | None)
    await app.request(Ship("o-1"))  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


# -- a decorated function stays what it was ---------------------------------------------------------------------------


async def calls() -> None:
    assert_type(await exact(placed), Paid)
    await exact(Paid("o-1"))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
