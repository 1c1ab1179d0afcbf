"""The SQLite store."""

from tidings.stores.sqlite.store import SqliteStore

__all__ = ["SqliteStore"]
