"""The server that all sides share, with flushes on; each side has a database of its own in it."""

from __future__ import annotations

from tests.servers.postgres import PostgresServer

SERVER: list[PostgresServer] = []


def new() -> str:
    """The URL of a new database."""
    [server] = SERVER
    return server.url(server.create_database())
