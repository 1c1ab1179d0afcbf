"""Waking other processes: one thread that tells them of commits, and hears of theirs, by NOTIFY.

NOTIFY takes a lock that all commits of the server share, so it is never part of an append; a notification that is lost
costs a reader the time until its next look. Nobody is told where nobody else has the store open: each process holds a
lock that says so, and rings once when it has it. Who notifies asks along the way whether anybody else holds that lock.
"""

from __future__ import annotations

import logging
import os
import select
import threading
import time
from collections.abc import Callable

import psycopg
from psycopg.errors import error_from_result
from psycopg.pq import ConnStatus, ExecStatus, TransactionStatus

from tidings.stores.postgres.connection import Place, TimelyConnection

log = logging.getLogger("tidings")

PAUSE = 0.01
"""Seconds between two notifications at least: what is committed meanwhile shares one."""
_AWAY = 1.0
"""Seconds before the server is tried again."""
_LOCK = "(1953063786, 'tidings_log'::regclass::oid::integer)"
_HOLD = f"SELECT pg_advisory_lock_shared{_LOCK}"
_IS_ALONE = f"SELECT CASE WHEN pg_try_advisory_lock{_LOCK} THEN pg_advisory_unlock{_LOCK} ELSE FALSE END"
"""True where no other session holds the lock: only then it can be had for oneself, and is given back."""


class Waker:
    """Rings at other processes, and calls back when one of them rings."""

    def __init__(self, place: Place, rung: Callable[[], None]) -> None:
        """Start the thread. Args: place: where the store is. rung: called on the thread."""
        self._place = place
        self._rung = rung
        self._channel = f"tidings_{place.schema}"
        self._pipe = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._wanted = self._closed = False
        self._is_resting = False  # and looks at the end of its rest
        self._is_alone = False  # there is nobody to tell
        self._thread = threading.Thread(target=self._run, name="tidings-waker", daemon=True)
        self._thread.start()

    def ring(self) -> None:
        """Tell the others, soon. Never waits."""
        if not (self._wanted or self._is_alone):
            self._wanted = True
            if not self._is_resting:
                self._poke()

    def close(self) -> None:
        """End the thread."""
        self._closed = True
        self._poke()
        self._thread.join()
        for end in self._pipe:
            os.close(end)

    def _poke(self) -> None:
        try:
            os.write(self._pipe[1], b"!")
        except OSError:  # full: it wakes anyway, or closed
            return

    # ---- the thread --------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._closed:
            try:
                connection = self._place.connect(synchronous_commit="off")  # NOTIFY is flushed like a change
            except Exception:  # noqa: BLE001 - the store itself says so to its callers; here it is tried again
                select.select([self._pipe[0]], [], [], _AWAY)
                continue
            try:
                self._serve(connection)
            except psycopg.Error as error:
                log.info("%s: %s; it is connected again", self._place.safe, " ".join(str(error).split()))
            finally:
                connection.pgconn.finish()

    def _serve(self, connection: TimelyConnection) -> None:
        self._is_alone = False
        connection.execute(f'LISTEN "{self._channel}"')
        connection.execute(_HOLD)
        self._wanted = True  # whoever was alone is not any more
        self._rung()  # whatever was missed meanwhile
        me = connection.info.backend_pid
        pgconn, telling = connection.pgconn, f'NOTIFY "{self._channel}"; {_IS_ALONE}'.encode()
        rested = 0.0
        poll = select.poll()
        poll.register(self._pipe[0], select.POLLIN)
        poll.register(pgconn.socket, select.POLLIN)
        while not self._closed:
            left = rested - time.monotonic()
            self._is_resting = left > 0
            # Whoever rings from now on pokes, if this is no rest: so what is wanted is looked at after saying so.
            if not self._is_resting and self._wanted and pgconn.transaction_status == TransactionStatus.IDLE:
                self._wanted = False  # before telling: what is committed from now on asks again
                pgconn.send_query(telling)
                rested = time.monotonic() + PAUSE
                continue
            poll.poll(left * 1000 if self._is_resting else None)
            self._drain()
            pgconn.consume_input()
            while not pgconn.is_busy() and (answer := pgconn.get_result()) is not None:
                if answer.status == ExecStatus.FATAL_ERROR:
                    raise error_from_result(answer)
                if answer.ntuples:
                    self._is_alone = answer.get_value(0, 0) == b"t"
            if pgconn.status != ConnStatus.OK:
                return
            others = False
            while (notice := pgconn.notifies()) is not None:
                others |= notice.be_pid != me
            if others:
                self._wanted |= self._is_alone  # what was committed before this one was heard
                self._is_alone = False
                self._rung()

    def _drain(self) -> None:
        try:
            while os.read(self._pipe[0], 1024):
                pass
        except BlockingIOError:
            return
