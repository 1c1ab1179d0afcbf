"""The schema of a store on PostgreSQL: made where there is none, checked, and led to a newer version."""

from __future__ import annotations

from tidings.core.migration import Migration, Schema
from tidings.errors import StoreError
from tidings.stores import migrate
from tidings.stores.postgres.connection import Place, TimelyConnection, check_server
from tidings.stores.postgres.failures import DENIED
from tidings.stores.postgres.steps import Statement, Steps, rows, value
from tidings.stores.postgres.wire import drive_now

_NOTE = "UPDATE tidings_meta SET value = '{}' WHERE name = 'schema';"
_FOUND = (
    "SELECT count(*) > 0, count(*) FILTER (WHERE relname = 'tidings_meta') > 0, "
    "coalesce(bool_and(has_schema_privilege(found.oid, 'USAGE')), true) "
    "FROM pg_namespace AS found LEFT JOIN pg_class ON relnamespace = found.oid WHERE nspname = $1"
)
"""Asked of the catalogue: a table that was looked up by its name stays missing until the transaction ends."""
_FOR_HOURS = 86_400.0
"""Seconds that a statement of a migration may take: it rewrites what may be large."""


def prepare(connection: TimelyConnection, place: Place) -> None:
    """Check the server, and make the store where there is none.

    Raises:
        StoreUnavailable: The server cannot keep what a store promises.
        WrongStore: There is a store of another version.
    """
    _check(connection, place)
    schema = drive_now(look(place), connection)
    if schema.version == 0:
        drive_now(take(place, schema.pending[0]), connection)
        schema = drive_now(look(place), connection)  # somebody else may have been quicker, and of another version
    migrate.check(schema, place.safe)


def migrate_now(connection: TimelyConnection, place: Place, step: Migration) -> None:
    """Take one step, however long it takes. Raises StoreUnavailable: as of `prepare`."""
    _check(connection, place)
    connection.deadline = _FOR_HOURS
    drive_now(take(place, step), connection)


def _check(connection: TimelyConnection, place: Place) -> None:
    drive_now(check_server(place, connection.info.server_version, connection.info.backend_pid), connection)


def look(place: Place) -> Steps[Schema]:
    """How the schema stands.

    Raises:
        StoreError: The role may not look into it.
    """
    [(is_there, has_store, is_open)] = yield from rows(_FOUND, place.schema)
    if not is_open:  # its tables would look as if they were gone
        raise StoreError(f"{place.safe}: permission denied for schema {place.schema}", DENIED)
    version = (yield from value("SELECT value FROM tidings_meta WHERE name = 'schema'")) if has_store else 0
    before = [f'SET LOCAL search_path TO "{place.schema}";']
    if not is_there:
        before.append(f'CREATE SCHEMA "{place.schema}";')
    return migrate.schema_of("postgres", int(version), _NOTE, before)


def take(place: Place, step: Migration) -> Steps[None]:
    """Take one step in one transaction, unless somebody else was quicker."""
    lock: Statement = ("SELECT pg_advisory_xact_lock(1953063785, hashtext($1))", (place.schema,))
    yield [("BEGIN", ()), lock]
    yield [("SET LOCAL statement_timeout = 0", ())]
    now = yield from look(place)
    if now.version == step.since:
        for statement in now.pending[0].statements:
            yield [(statement, ())]
    yield [("COMMIT", ())]
