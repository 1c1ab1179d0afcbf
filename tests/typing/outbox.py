"""What is added through a connection that is awaited is awaited itself, and a plain one is not.

Nothing here runs: `make check` reads it, as it reads handlers.py.
"""

import sqlite3
from collections.abc import Coroutine
from typing import Any, assert_type

import psycopg
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_scoped_session
from sqlalchemy.orm import Session, scoped_session
from sqlmodel import Session as ModelSession

from tidings import App, Key, event


@event(topic="orders")
class Placed:
    order_id: Key[str]


app = App("sqlite::memory:")
placed = Placed("o-1")


def plain(
    standard: sqlite3.Connection,
    driver: psycopg.Connection[Any],
    connection: Connection,
    session: Session,
    scoped: scoped_session[Session],
    model: ModelSession,
) -> None:
    app.outbox.add(standard, placed)
    app.outbox.add(driver, placed, id="a", headers={"traceparent": ""})
    app.outbox.add(connection, placed, placed)
    app.outbox.add(session, placed)
    app.outbox.add(scoped, placed)
    app.outbox.add(model, placed)


async def awaited(
    driver: psycopg.AsyncConnection[Any],
    connection: AsyncConnection,
    session: AsyncSession,
    scoped: async_scoped_session[AsyncSession],
) -> None:
    await app.outbox.add(driver, placed)
    await app.outbox.add(connection, placed)
    await app.outbox.add(scoped, placed)
    await assert_type(app.outbox.add(session, placed), Coroutine[Any, Any, None])


async def wrong(standard: sqlite3.Connection, driver: psycopg.AsyncConnection[Any]) -> None:
    await app.outbox.add(standard, placed)  # type: ignore[misc]  # pyright: ignore[reportGeneralTypeIssues]
    app.outbox.add(driver, placed)  # type: ignore[unused-coroutine]  # pyright: ignore[reportUnusedCoroutine]
    app.outbox.add("shop.db", placed)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
