"""The store on PostgreSQL: one log per schema, appended to in the order of the commits."""

from tidings.stores.postgres.store import PostgresStore

__all__ = ["PostgresStore"]
