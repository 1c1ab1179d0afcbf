"""The history of a run: one JSON line for every step of every operation, written by the processes that take part.

A line is written before the call returns to whoever asked, with one `write` to a file opened for appending, so that
several processes may share the file and a killed one loses at most the line that it was writing. What is in the history
is what a client could know; `tidings.testing.checker` compares it with what the store holds in the end.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec

Operation = Literal["publish", "append", "commit", "deliver", "read", "redrive", "drain", "fault"]
Phase = Literal["invoke", "ok", "fail", "unknown"]


class Record(msgspec.Struct, omit_defaults=True, gc=False):
    """One step of one operation.

    Attributes:
        t: Monotonic clock, nanoseconds; comparable between the processes of one machine.
        wall: Wall clock, seconds since 1970 UTC.
        pid: Process that wrote the record.
        op: What was done.
        ph: "invoke" before it; then "ok" (it happened), "fail" (it certainly did not) or "unknown".
        id: CloudEvents id of the message.
        type: Its message type.
        key: Its key.
        producer: Who published it; with `key` it numbers `pseq`.
        pseq: Counts the messages of one producer and key from 1; also carried in the message itself.
        digest: Of type, key and data; see `digest`.
        group: Full name of the group, for deliveries.
        member: The worker process, for deliveries.
        attempt: Number of the attempt, from 1.
        pos: Place in the log.
        stream: Stream that was appended to.
        version: Version of the stream: after an "ok", or as expected of an "invoke" and "fail".
        txn: Tag of a transaction, carried by its rows and its messages.
        target: Process that a fault or a drain was aimed at.
        reason: Name of the fault, class of the error, or exit code.
    """

    t: int
    wall: float
    pid: int
    op: Operation
    ph: Phase
    id: str | None = None
    type: str | None = None
    key: str | None = None
    producer: str | None = None
    pseq: int | None = None
    digest: str | None = None
    group: str | None = None
    member: int | None = None
    attempt: int | None = None
    pos: int | None = None
    stream: str | None = None
    version: int | None = None
    txn: str | None = None
    target: int | None = None
    reason: str | None = None


class History:
    """Writes the records of one process. Open it after a fork, never before.

    Args:
        path: The file; made if missing, shared with other processes.
        clock: Nanoseconds; the machine's monotonic clock unless a simulation has its own.
        pid: Who writes; this process unless a simulation plays several.
    """

    def __init__(self, path: Path, clock: Callable[[], int] = time.monotonic_ns, pid: int | None = None) -> None:
        self.pid = os.getpid() if pid is None else pid
        self._clock = clock
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._encode = msgspec.json.Encoder().encode

    def note(self, op: Operation, ph: Phase, **facts: Any) -> None:
        """Write one record; it is in the kernel's hands when this returns."""
        self.note_all([Record(self._clock(), time.time(), self.pid, op, ph, **facts)])

    def note_all(self, records: list[Record]) -> None:
        """Write several records at once."""
        # A line also begins with a newline: a record torn by a kill then never swallows the one that follows it.
        os.write(self._file, b"".join(b"\n" + self._encode(record) + b"\n" for record in records))

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


def read_history(path: Path) -> Iterator[Record]:
    """The records of a file, in the order in which they were written; torn lines are left out."""
    decode = msgspec.json.Decoder(Record).decode
    with path.open("rb") as lines:
        for line in lines:
            if len(line) > 1:
                try:
                    yield decode(line)
                except msgspec.DecodeError:  # a process was killed while it wrote: its call never returned
                    continue


def digest(type_: str, key: str | None, data: bytes) -> str:
    """A short hash of what must never change on the way."""
    text = f"{type_}\0{'' if key is None else key}\0".encode()
    return hashlib.blake2b(text + data, digest_size=8).hexdigest()
