"""Exchanges: statements go out in one go and their answers come back, on libpq itself.

A cursor of the driver takes longer to say a small statement than the server to run it. What the driver knows about
types and errors is used here as there.
"""

from __future__ import annotations

import select
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import AsyncConnection, Connection, generators
from psycopg import errors as pg
from psycopg.abc import PQGen, Transformer
from psycopg.adapt import PyFormat
from psycopg.adapt import Transformer as Adapting
from psycopg.pq import ConnStatus, ExecStatus, Format, TransactionStatus
from psycopg.pq.abc import PGconn, PGresult

from tidings.stores.postgres.prepared import Key, Prepared
from tidings.stores.postgres.steps import Encoded, Result, Statement
from tidings.stores.words import first_word

if TYPE_CHECKING:
    from tidings.stores.postgres.connection import TimelyAsyncConnection, TimelyConnection

_CHANGES = ("DROP", "ALTER")
"""What says so of itself may have changed what statements mean that were prepared before."""
_FAILED = ExecStatus.FATAL_ERROR
_FORMATS = [[PyFormat.AUTO] * count for count in range(32)]


class _Command:
    """One statement as it is sent."""

    __slots__ = ("formats", "key", "values")
    values: Sequence[Any]
    formats: Sequence[int]

    def __init__(self, statement: Statement, transformer: Transformer) -> None:
        sql, params = statement
        if isinstance(params, Encoded):
            self.key: Key = (sql, ())
            self.values, self.formats = params.values, params.formats
        elif params:
            formats = _FORMATS[len(params)] if len(params) < len(_FORMATS) else [PyFormat.AUTO] * len(params)
            self.values = transformer.dump_sequence(params, formats)
            self.key = sql, transformer.types or ()
            self.formats = transformer.formats or ()
        else:
            self.values, self.key, self.formats = (), (sql, ()), ()


def exchange(
    connection: TimelyConnection | TimelyAsyncConnection, prepared: Prepared, statements: Sequence[Statement]
) -> PQGen[list[Result]]:
    """Run statements; what it gives yields what it waits for, as the driver's own generators do.

    Args:
        connection: On which; nothing else runs there.
        prepared: What is prepared on it.
        statements: Several go out as a pipeline, in which each has its values.

    Returns:
        Their results, in order.

    Raises:
        psycopg.Error: The first one that failed; those behind it did not run.
    """
    if connection.pgconn.transaction_status == TransactionStatus.INTRANS:
        _hear(connection.pgconn)
    if len(statements) == 1 and type(params := statements[0][1]) is Encoded:
        name = prepared.name((statements[0][0], ()))
        if name is not None:  # what is said most, in the fewest words
            return _run_prepared(connection, name, params, None)
    return _exchange(connection, prepared, statements)


def _hear(pgconn: PGconn) -> None:
    """Take notice of what the server said meanwhile: that the transaction took too long, and the connection is over."""
    readable, _, _ = select.select([pgconn.socket], [], [], 0)
    if readable:
        pgconn.consume_input()
        pgconn.is_busy()  # looks at what has come


def _exchange(
    connection: Connection[Any] | AsyncConnection[Any], prepared: Prepared, statements: Sequence[Statement]
) -> PQGen[list[Result]]:
    pgconn = connection.pgconn
    transformer: Transformer = Adapting(connection)
    if len(statements) == 1 and statements[0][1] is None:
        pgconn.send_query(statements[0][0].encode())
        several = yield from generators.execute(pgconn)
        for each in several:
            _check(each, connection)
        found = [_result(several[-1], transformer)]
    else:
        commands = [_Command(statement, transformer) for statement in statements]
        if len(commands) == 1 and (name := prepared.name(commands[0].key)) is not None:
            [command] = commands
            encoded = Encoded(command.values, command.formats)
            found = yield from _run_prepared(connection, name, encoded, transformer)
        else:
            found = yield from _pipeline(connection, prepared, commands, transformer)
    for one in found:
        if one.tag is not None and one.tag.startswith(_CHANGES):
            yield from _deallocate(connection, prepared.forget())
            break
    return found


def _run_prepared(
    connection: Connection[Any] | AsyncConnection[Any], name: bytes, params: Encoded, transformer: Transformer | None
) -> PQGen[list[Result]]:
    """One statement that is prepared. Args: transformer: made where it is needed, if None."""
    pgconn = connection.pgconn
    pgconn.send_query_prepared(name, params.values, params.formats, Format.BINARY)
    if pgconn.flush():  # the network takes it slowly
        yield from generators.send(pgconn)
    results = yield from generators.fetch_many(pgconn)
    result = results[0] if len(results) == 1 else _first(results)
    if result.status == _FAILED:
        _check(result, connection)
    if transformer is None and result.ntuples:
        transformer = Adapting(connection)
    return [_result(result, transformer)]


def _pipeline(
    connection: Connection[Any] | AsyncConnection[Any],
    prepared: Prepared,
    commands: Sequence[_Command],
    transformer: Transformer,
) -> PQGen[list[Result]]:
    """Send everything, prepare what is not prepared yet, and read all answers, also behind a failure."""
    pgconn = connection.pgconn
    preparing: dict[Key, bytes] = {}
    answers: list[Key | None] = []  # keys of what is prepared, None where a statement runs
    if any(first_word(command.key[0]) == "COPY" for command in commands if prepared.name(command.key) is None):
        raise psycopg.ProgrammingError("COPY cannot be used here: it moves data beside statements")
    pgconn.enter_pipeline_mode()
    try:
        for command in commands:
            name = prepared.name(command.key) or preparing.get(command.key)
            if name is None:
                name = preparing[command.key] = prepared.new_name()
                pgconn.send_prepare(name, command.key[0].encode(), command.key[1])
                answers.append(command.key)
            pgconn.send_query_prepared(name, command.values, command.formats, Format.BINARY)
            answers.append(None)
        pgconn.pipeline_sync()
        yield from generators.send(pgconn)
        results = yield from _answers(pgconn, prepared, answers, preparing)
    finally:
        try:
            pgconn.exit_pipeline_mode()
        except psycopg.Error:  # it ended too early: whoever used it next would get the answers to this
            pgconn.finish()
    for result in results:
        _check(result, connection)
    found = [_result(result, transformer) for result in results]
    yield from _deallocate(connection, prepared.surplus())
    return found


def _answers(
    pgconn: PGconn, prepared: Prepared, expected: Sequence[Key | None], preparing: Mapping[Key, bytes]
) -> PQGen[list[PGresult]]:
    """All answers to a pipeline, up to its end: results of statements, or the first failure alone.

    Args:
        pgconn: Everything was sent.
        prepared: Gets to know what is prepared now.
        expected: For each answer, what it says to be prepared; None for the result of a statement.
        preparing: The names of what is prepared.
    """
    results: list[PGresult] = []
    failed: PGresult | None = None
    for key in expected:
        result = yield from _answer(pgconn)
        if result.status == _FAILED:
            failed = failed or result
            if pgconn.status != ConnStatus.OK:
                return [failed]  # that was its last word
        elif result.status == ExecStatus.PIPELINE_ABORTED:
            continue
        elif key is not None:
            prepared.keep(key, preparing[key])
        else:
            results.append(result)
    end = yield from generators.fetch_many(pgconn)
    failed = failed or _failure(end)
    return results if failed is None else [failed]


def _answer(pgconn: PGconn) -> PQGen[PGresult]:
    """The next answer of the server: the failure, if there is one among what it said.

    Raises:
        psycopg.OperationalError: There is none.
    """
    return _first((yield from generators.fetch_many(pgconn)))


def _first(results: Sequence[PGresult]) -> PGresult:
    """The same of all that it said."""
    if not results:
        raise psycopg.OperationalError("the server gave no answer")
    return _failure(results) or results[0]


def _failure(results: Sequence[PGresult]) -> PGresult | None:
    """What failed, if anything did.

    A statement that is a transaction by itself gives its rows before it commits, and a failure to commit after them.
    """
    return next((result for result in results if result.status == _FAILED), None)


def _deallocate(connection: Connection[Any] | AsyncConnection[Any], names: Sequence[bytes]) -> PQGen[None]:
    """Have the server forget prepared statements."""
    if names:
        connection.pgconn.send_query(b"; ".join(b"DEALLOCATE " + name for name in names))
        for result in (yield from generators.execute(connection.pgconn)):
            _check(result, connection)


def _check(result: PGresult, connection: Connection[Any] | AsyncConnection[Any]) -> None:
    if result.status == _FAILED:
        raise pg.error_from_result(result, encoding=connection.info.encoding)


def _result(result: PGresult, transformer: Transformer | None) -> Result:
    """Args: transformer: None where there are no rows."""
    rows: list[tuple[Any, ...]] = []
    if transformer is not None and (count := result.ntuples):
        transformer.set_pgresult(result)
        rows = transformer.load_rows(0, count, tuple)
    changed, status = result.command_tuples, result.command_status
    return Result(rows, -1 if changed is None else changed, None if status is None else status.decode())
