"""What PostgreSQL says, as errors of ours: what happened, whether it happened, and the cure."""

from __future__ import annotations

import json

import psycopg
from psycopg import errors as pg

from tidings.core.operations import Op, Settle
from tidings.errors import OutcomeUnknown, StoreError, StoreFull, StoreGone, StoreUnavailable, TidingsError
from tidings.stores.postgres.held import fenced
from tidings.stores.postgres.log import refusal_of

FENCED = "TD303"
REFUSED = ("TD301", "TD302")
LATE = ("25P03", "25P04")
"""The server ended a transaction that was idle or took too long, and the connection with it; also where it was asked to
commit, for it did not hear that any more."""

_NOTHING = "nothing was written"
DENIED = "nothing was written; let the owner grant it to this role"
_READ_ONLY = "nothing was written; name the primary, and a role with default_transaction_read_only = off"
_AGAIN = (pg.DeadlockDetected, pg.SerializationFailure, pg.LockNotAvailable)


def is_transient(error: BaseException) -> bool:
    """True where nothing was done and the same may work at once: somebody else was in the way."""
    return isinstance(error, _AGAIN)


def is_lost(error: BaseException) -> bool:
    """True where the connection is of no use any more."""
    if getattr(error, "sqlstate", None) in LATE:
        return True
    if isinstance(error, (*_AGAIN, pg.QueryCanceled)) or _is_full(error):
        return False
    return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)


def _is_full(error: BaseException) -> bool:
    """True where there was no space for a statement. A server that ends for it says so too, and may have committed."""
    return isinstance(error, pg.DiskFull) and error.diag.severity_nonlocalized not in {"FATAL", "PANIC"}


def is_the_store_s(error: BaseException) -> bool:
    """True where a statement failed for what the store is in, and not for what the statement says."""
    return is_lost(error) or _is_full(error)


def is_refusal(error: BaseException) -> bool:
    """True where the database refused an operation by a rule of ours, or by one of its own constraints."""
    code = getattr(error, "sqlstate", None)
    return code == FENCED or code in REFUSED or isinstance(error, psycopg.IntegrityError | psycopg.DataError)


def explain(error: BaseException, place: str, op: Op | None = None, *, committing: bool = False) -> Exception:
    """The error that a caller gets.

    Args:
        error: What was raised.
        place: The store, for messages; without its password.
        op: What was being applied.
        committing: True when a commit may have reached the server.
    """
    if isinstance(error, TidingsError):
        return error
    code = getattr(error, "sqlstate", None)
    detail = getattr(getattr(error, "diag", None), "message_detail", None)
    result: Exception
    if code == FENCED:
        result = fenced(op.group if isinstance(op, Settle) else "the group", *json.loads(detail or "[0, 0, null]"))
    elif code in REFUSED:
        result = refusal_of(str(code), detail)
    elif _is_full(error):
        result = StoreFull(f"{place}: {error}", "free space on the database server; nothing was written")
    elif is_lost(error):
        if committing and code not in LATE:
            result = OutcomeUnknown(
                f"{place}: the connection broke during a commit: {error}",
                "sending the same id again is safe",
            )
        else:
            result = StoreUnavailable(f"{place}: {error}", _cure(error))
    elif is_transient(error) or isinstance(error, pg.QueryCanceled):
        result = StoreUnavailable(f"{place}: {error}", "nothing was done; it may work when tried again")
    elif isinstance(error, psycopg.Error):
        result = _refused(error, place)
    elif isinstance(error, Exception):
        return error
    else:
        result = StoreError(f"{place}: {type(error).__name__}", _NOTHING)
    result.__cause__ = error
    return result


def _refused(error: psycopg.Error, place: str) -> TidingsError:
    """What the database would not do, and why."""
    if isinstance(error, pg.UndefinedTable | pg.UndefinedFunction) and "tidings_" in str(error):
        cure = "stop every process that uses it, restore it from a backup, and start again"
        return StoreGone(f"{place}: the store is not there any more: {error}", cure)
    cure = next((cure for kind, cure in _REMEDIES.items() if isinstance(error, kind)), _NOTHING)
    return StoreError(f"{place}: {error}", cure)


_REMEDIES = {
    pg.InsufficientPrivilege: DENIED,
    pg.InvalidSchemaName: DENIED,
    pg.ReadOnlySqlTransaction: _READ_ONLY,
}

_CURES = {
    ("password", "authentication"): "check user and password of the URL",
    ("startup parameter",): "connect to PostgreSQL itself: a connection pooler (PgBouncer?) cannot be used",
    ("idle-in-transaction", "transaction timeout"): "the transaction was undone; wait for nothing else inside of it",
    ("connection slots", "too many"): "it is tried again; raise max_connections of the server, or run fewer processes",
    ("resolve host", "translate host"): "correct the host of the URL; it is tried again",
    ("does not exist",): "create the database and the role first, or correct the URL",
    ("SSL", "certificate"): "check sslmode and sslrootcert of the URL",
    ("refused", "No such file"): "start PostgreSQL, or correct host and port of the URL",
}
"""Words of libpq or the server -> what to do."""


def _cure(error: BaseException) -> str:
    for words, cure in _CURES.items():
        if any(word in str(error) for word in words):
            return cure
    return "it is tried again; check that the database server runs and can be reached"
