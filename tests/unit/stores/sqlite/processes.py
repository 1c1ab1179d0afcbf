"""What the tests let other processes do. Each speaks through its pipes, one word a line."""

import asyncio
import resource
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tidings.core.operations import Append, Beat, Claim
from tidings.errors import TidingsError
from tidings.stores.sqlite import SqliteStore
from tidings.testing.conformance.store.making import GROUP, envelope


def start(function: str, *args: object) -> subprocess.Popen[str]:
    """Run a function of this file in a fresh process."""
    command = [sys.executable, "-m", "tests.unit.stores.sqlite.processes", function, *map(str, args)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def told(process: subprocess.Popen[str]) -> str:
    """The next line it says."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


def tell(process: subprocess.Popen[str], word: str) -> None:
    """Say a word to it."""
    assert process.stdin is not None
    process.stdin.write(f"{word}\n")
    process.stdin.flush()


def end(*processes: subprocess.Popen[str]) -> None:
    """See them end."""
    for process in processes:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        process.wait(30)
        process.stdout.close()


def say(word: object) -> None:
    print(word, flush=True)


def opened(path: str) -> SqliteStore:
    store = SqliteStore(f"sqlite://{path}")
    store.open_now()
    return store


def open_and_append(path: str) -> None:
    say("ready")
    input()
    store = opened(path)
    say(store.write_now(Append([envelope(id=f"{time.monotonic_ns()}")])).position)
    store.close_now()


def write_for(path: str, seconds: str, source: str) -> None:
    """Append as fast as it goes; say how many, the longest wait in seconds, and how often SQLite was busy."""
    store = opened(path)
    say("ready")
    input()
    until = time.monotonic() + float(seconds)
    count, longest, busy, now = 0, 0.0, 0, time.monotonic()
    while now < until:
        try:
            store.write_now(Append([envelope(id=str(count), source=source)]))
            count += 1
        except TidingsError:
            busy += 1
        before, now = now, time.monotonic()
        longest = max(longest, now - before)
    store.close_now()
    say(f"{count} {longest} {busy}")


def write_without_a_pause(path: str, seconds: str) -> None:
    """A program of the user's own, whose transactions of 20 ms follow each other."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("CREATE TABLE own (number INTEGER)")
    say("ready")
    until = time.monotonic() + float(seconds)
    while time.monotonic() < until:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("INSERT INTO own VALUES (1)")
        time.sleep(0.02)
        connection.execute("COMMIT")
    connection.close()


def hold_slots(path: str, member: str) -> None:
    store = opened(path)
    store.write_now(Beat("shop", member, 10.0))
    say(len(store.write_now(Claim(GROUP, member, 16))))
    input()
    store.close_now()


def answer_bells(path: str, rounds: str) -> None:
    """Say after each round how many milliseconds after its publication an event was seen."""

    async def main() -> None:
        store = SqliteStore(f"sqlite://{path}")
        await store.open()
        head = await store.head()
        say("ready")
        for _ in range(int(rounds)):
            while await store.head() <= head:
                await store.grown(head, 10.0)
            head = await store.head()
            [(sent,)] = [(one.time,) for one in await store.read(head - 1, head, 1)]
            say((time.monotonic_ns() // 1000 - sent) / 1000)
        await store.close()

    asyncio.run(main())


def wait_idly(path: str, seconds: str) -> None:
    """Say how much processor time a second of waiting costs."""

    async def main() -> None:
        store = SqliteStore(f"sqlite://{path}")
        await store.open()
        await store.grown(0, 0.1)
        before = time.process_time()
        await store.grown(0, float(seconds))
        say((time.process_time() - before) / float(seconds))
        await store.close()

    asyncio.run(main())


def write_against_a_limit(path: str) -> None:
    """Writes fail when the WAL may not grow; then it may, and they go on. Say what each one became."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    store = opened(path)
    store.write_now(Append([envelope(id="before")]))
    asyncio.run(store.head())  # a reader keeps the WAL from being written back
    size = Path(f"{path}-wal").stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    for name in ("first", "second"):
        try:
            store.write_now(Append([envelope(id=name)]))
            say("stored")
        except TidingsError as error:
            say(type(error).__name__)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    for name in ("first", "second"):
        store.write_now(Append([envelope(id=name, data=b"{}")])) if not ids(path, name) else None
    say(len(ids(path)))
    store.close_now()


def ids(path: str, name: str = "%") -> list[Any]:
    connection = sqlite3.connect(path)
    try:
        return connection.execute("SELECT id FROM tidings_log WHERE id LIKE ?", (name,)).fetchall()
    finally:
        connection.close()


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
