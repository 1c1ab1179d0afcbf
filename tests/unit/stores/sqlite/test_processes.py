"""Several processes on one file: fair turns, dead owners, doorbells."""

# ruff: noqa: ASYNC222, PTH108, PTH208 - processes and their files are what is looked at

import asyncio
import os
import signal
import sqlite3
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.stores.sqlite.processes import end, start, tell, told
from tidings.core.operations import Append, Beat, Claim
from tidings.stores.sqlite import SqliteStore
from tidings.testing.conformance.store.making import GROUP, envelope, joining


@pytest.mark.alone
def test_sixteen_writers_get_even_turns_and_never_find_the_file_busy(path: Path) -> None:
    processes = [start("write_for", path, 3.0, f"writer-{n}") for n in range(16)]
    assert [told(process) for process in processes] == ["ready"] * 16
    for process in processes:
        tell(process, "go")
    said = [told(process).split() for process in processes]
    end(*processes)
    counts = [int(count) for count, _, _ in said]
    assert [busy for _, _, busy in said] == ["0"] * 16
    assert min(counts) * 3 >= max(counts), counts
    assert max(float(longest) for _, longest, _ in said) < 1.5
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    stored = connection.execute("SELECT count(*), max(position), count(DISTINCT source) FROM tidings_log").fetchone()
    connection.close()
    assert stored == (sum(counts), sum(counts), 16)


async def test_a_program_that_writes_without_a_pause_does_not_starve_us_nor_stop_the_event_loop(
    store: SqliteStore, path: Path
) -> None:
    other = start("write_without_a_pause", path, 60)
    assert told(other) == "ready"
    longest = 0.0
    began = time.monotonic()
    for _ in range(10):
        writing = asyncio.ensure_future(store.write(Append([envelope()])))
        while not writing.done():
            before = time.monotonic()
            await asyncio.sleep(0.001)
            longest = max(longest, time.monotonic() - before)
        await writing
    other.kill()
    other.communicate()
    assert time.monotonic() - began < 15.0  # 100 ms at a time would be minutes
    assert longest < 0.5


@pytest.fixture
async def joined(store: SqliteStore) -> SqliteStore:
    await store.write(joining())
    return store


class TestOwners:
    @pytest.fixture
    def owner(self, joined: SqliteStore, path: Path) -> Iterator[int]:
        """Another process that holds every slot."""
        process = start("hold_slots", path, "worker-1")
        assert told(process) == "16"
        yield process.pid
        process.kill()
        process.communicate()

    async def slots(self, store: SqliteStore) -> int:
        return len(await store.write(Claim(GROUP, "worker-2", 16)))

    async def test_g25_the_slots_of_a_killed_process_are_free_at_once(self, store: SqliteStore, owner: int) -> None:
        assert await self.slots(store) == 0
        os.kill(owner, signal.SIGKILL)
        os.waitpid(owner, 0)
        assert await self.slots(store) == 16

    async def test_g25_a_beat_of_another_worker_clears_up_after_a_killed_process(
        self, store: SqliteStore, owner: int, path: Path
    ) -> None:
        assert list(await store.write(Beat("shop", "worker-2", 10.0))) == ["worker-1", "worker-2"]
        os.kill(owner, signal.SIGKILL)
        os.waitpid(owner, 0)
        assert list(await store.write(Beat("shop", "worker-2", 10.0))) == ["worker-2"]
        assert await store.query("SELECT count(owner) FROM tidings_slot") == [(0,)]
        assert len([name for name in os.listdir(f"{path}-bells") if name.startswith("member-")]) == 1

    async def test_g10_a_stopped_process_keeps_its_slots_until_its_lease_is_over(
        self, store: SqliteStore, owner: int
    ) -> None:
        os.kill(owner, signal.SIGSTOP)
        assert await self.slots(store) == 0
        assert list(await store.write(Beat("shop", "worker-2", 10.0))) == ["worker-1", "worker-2"]
        store._committer.changes.now = lambda: time.monotonic() + 10.0
        assert await self.slots(store) == 16

    async def test_a_lease_from_before_a_restart_of_the_machine_is_over(self, store: SqliteStore, owner: int) -> None:
        os.kill(owner, signal.SIGSTOP)
        store._committer.changes.now = lambda: 5.0  # the clock began anew
        assert await self.slots(store) == 16


class TestBells:
    @pytest.mark.parametrize("folder", ["short", "long-" * 30])
    async def test_another_process_hears_of_a_commit_within_milliseconds(self, tmp_path: Path, folder: str) -> None:
        path = tmp_path / folder / "shop.db"
        path.parent.mkdir()
        store = SqliteStore(f"sqlite://{path}")
        await store.open()
        listener = start("answer_bells", path, 30)
        assert await asyncio.to_thread(told, listener) == "ready"
        waits = []
        for _ in range(30):
            await asyncio.sleep(0.01)
            await store.write(Append([envelope(time=time.monotonic_ns() // 1000)]))
            waits.append(float(await asyncio.to_thread(told, listener)))
        end(listener)
        await store.close()
        assert statistics.median(waits) < 20  # the figure is in the benchmarks; half a second would be a missed bell

    async def test_without_bells_the_file_is_looked_at(self, store: SqliteStore, path: Path) -> None:
        waiting = asyncio.ensure_future(store.grown(0, 20.0))
        await asyncio.sleep(0.05)
        for name in os.listdir(f"{path}-bells"):
            os.unlink(f"{path}-bells/{name}")
        writer = start("open_and_append", path)
        await asyncio.to_thread(told, writer)
        tell(writer, "go")
        await asyncio.wait_for(waiting, 10.0)
        end(writer)

    async def test_the_bell_of_a_dead_process_is_taken_away(self, store: SqliteStore, path: Path) -> None:
        listener = start("answer_bells", path, 1)
        assert told(listener) == "ready"
        while not bells(path):
            await asyncio.sleep(0.01)
        listener.kill()
        listener.communicate()
        await store.write(Append([envelope()]))
        while bells(path):  # they are rung after the caller was told
            await asyncio.sleep(0.01)

    async def test_waiting_costs_next_to_nothing(self, store: SqliteStore, path: Path) -> None:
        waiter = start("wait_idly", path, 3)
        assert float(await asyncio.to_thread(told, waiter)) < 0.01
        end(waiter)

    async def test_closing_takes_the_bells_and_signs_of_life_away(self, path: Path) -> None:
        store = SqliteStore(f"sqlite://{path}")
        await store.open()
        await store.write(Beat("shop", "worker-1", 10.0))
        await store.grown(0, 0.01)
        assert len(os.listdir(f"{path}-bells")) == 3
        await store.close()
        assert os.listdir(f"{path}-bells") == ["changes"]


def bells(path: Path) -> list[str]:
    return [name for name in os.listdir(f"{path}-bells") if name.startswith("bell-")]


async def test_writers_meet_again_when_somebody_removed_the_lock_file(store: SqliteStore, path: Path) -> None:
    other = SqliteStore(store.url)
    await other.open()
    path.with_name("shop.db-lock").unlink()
    await asyncio.sleep(0.25)  # it is looked at five times a second
    await store.write(Append([envelope()]))
    await other.write(Append([envelope()]))
    tx = await store.begin()
    assert not other._turnstile.try_enter()
    await tx.rollback()
    await other.close()
