"""Power loss as a model: what a disk may hold after the current was cut between any two system calls.

A recording of a process says what it wrote, truncated and flushed, with all bytes. After a power loss a file holds
what was flushed, and of what was written since then anything: nothing, all, a beginning, any selection, and of the last
write perhaps only some sectors. Each such state is built and opened with stock sqlite3.
"""

import asyncio
import random
import re
import shutil
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from tests.faults.workload import Publisher
from tidings.testing.faults import Tracing
from tidings.testing.history import Record

CALLS = "write,pwrite64,ftruncate,fdatasync,fsync,unlink"
SECTOR = 512

_LINE = re.compile(rb"^(\d+) +(?:<\.\.\. (\w+) resumed>)?(?:(\w+)\()?(.*)$")
_FILE = re.compile(rb"^\d+<([^>]*)>")
_TEXT = re.compile(rb'"((?:\\x[0-9a-f]{2})*)"')


@dataclass(frozen=True)
class Step:
    """One system call on one file."""

    call: str
    path: str
    data: bytes = b""
    offset: int = 0


def steps(recording: Path) -> Iterator[Step]:
    """The calls of a recording in order: a write where it began, a flush where it had succeeded."""
    flushing: dict[tuple[bytes, bytes], str] = {}
    for line in recording.read_bytes().splitlines():
        found = _LINE.match(line)
        if found is None:
            continue
        pid, resumed, call, rest = found.groups()
        if resumed is not None:
            path = flushing.pop((pid, resumed), None)
            if path is not None and rest.endswith(b"= 0"):
                yield Step("flush", path)
        elif call in {b"fdatasync", b"fsync"}:
            if rest.endswith(b"<unfinished ...>"):
                flushing[pid, call] = _path(rest)
            elif rest.endswith(b"= 0"):
                yield Step("flush", _path(rest))
        elif call is not None:
            yield _step(call, rest)


def steps_by_name(recording: Path) -> Iterator[str]:
    """The name of every call of a recording."""
    for line in recording.read_bytes().splitlines():
        found = _LINE.match(line)
        if found is not None and found[3] is not None:
            yield found[3].decode()


def _step(call: bytes, rest: bytes) -> Step:
    if call == b"unlink":
        return Step("unlink", _plain(_TEXT.search(rest)[1]).decode())
    if call == b"ftruncate":
        return Step("truncate", _path(rest), offset=_numbers(rest)[0])
    numbers = _numbers(rest[rest.rindex(b'"') :])
    return Step("write", _path(rest), _plain(_TEXT.search(rest)[1]), numbers[1] if call == b"pwrite64" else -1)


def _plain(escaped: bytes) -> bytes:
    return bytes.fromhex(escaped.replace(b"\\x", b"").decode())


def _path(rest: bytes) -> str:
    named = _FILE.match(rest)[1]
    return (_plain(named) if b"\\x" in named else named).decode()


def _numbers(rest: bytes) -> list[int]:
    return [int(number) for number in re.findall(rb", (\d+)", rest)]


@dataclass
class Platter:
    """One file on a disk that forgets what was not flushed."""

    flushed: bytearray
    pending: list[Step] = field(default_factory=list)

    def take(self, step: Step) -> None:
        if step.call == "flush":
            for waiting in self.pending:
                _apply(self.flushed, waiting)
            self.pending.clear()
        else:
            self.pending.append(step)

    def after_power_loss(self, kind: str, chance: random.Random) -> bytes:
        """What the file may hold now."""
        content = bytearray(self.flushed)
        kept = self.pending
        if kind == "nothing":
            kept = []
        elif kind in {"beginning", "torn"}:
            kept = kept[: chance.randint(0, len(kept))]
        elif kind == "some":
            kept = [step for step in kept if chance.random() < 0.5]
        for index, step in enumerate(kept):
            torn = kind == "torn" and index == len(kept) - 1 and step.call == "write"
            cut = chance.randint(0, len(step.data) // SECTOR) * SECTOR if torn else len(step.data)
            _apply(content, Step(step.call, step.path, step.data[:cut], step.offset))
        return bytes(content)


KINDS = ("nothing", "all", "beginning", "some", "torn")


def _apply(content: bytearray, step: Step) -> None:
    if step.call == "truncate":
        del content[step.offset :]
        content.extend(bytes(step.offset - len(content)))
    elif step.call == "unlink":
        content.clear()
    elif step.data:
        if len(content) < step.offset:
            content.extend(bytes(step.offset - len(content)))
        content[step.offset : step.offset + len(step.data)] = step.data


@dataclass
class Survey:
    """What was found in all states."""

    states: int = 0
    acknowledged: int = 0
    lost: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)


def survey(recording: Path, before: Path, history: Path, states: int, seed: int = 1) -> Survey:
    """Cut the power at many moments and look whether everything acknowledged before is there.

    Args:
        recording: Of the process, from when `before` was copied.
        before: Folder with the files as they were, all flushed.
        history: Path under which the process wrote its acknowledgements.
        states: How many to build, evenly over the recording.
        seed: Decides what is kept.
    """
    chance = random.Random(seed)
    found = Survey()
    taken = list(steps(recording))
    store = history.with_name("shop.db")
    platters = {
        str(store): Platter(bytearray((before / "shop.db").read_bytes())),
        f"{store}-wal": Platter(bytearray(_content(before / "shop.db-wal"))),
    }
    relevant = [index for index, step in enumerate(taken) if step.path in platters]
    chosen = {relevant[int(number * len(relevant) / states)] for number in range(states)} if relevant else set()
    each = max(1, states // max(1, len(chosen)))
    promised: list[str] = []
    image = before / "image"
    for index, step in enumerate(taken):
        if step.path == str(history):
            promised += [record.id for record in _records(step.data) if record.op == "publish" and record.ph == "ok"]
        elif step.path in platters:
            platters[step.path].take(step)
        if index in chosen:
            for number in range(each):
                kind = KINDS[(index + number) % len(KINDS)]
                image.mkdir()
                for suffix in ("", "-wal"):
                    content = platters[f"{store}{suffix}"].after_power_loss(kind, chance)
                    if content:
                        (image / f"shop.db{suffix}").write_bytes(content)
                _look(image / "shop.db", promised, f"step {index}, kept {kind}", found)
                shutil.rmtree(image)
    found.acknowledged = len(promised)
    return found


def _look(path: Path, promised: list[str], state: str, found: Survey) -> None:
    found.states += 1
    connection = sqlite3.connect(path)
    try:
        there = {id_ for (id_,) in connection.execute("SELECT id FROM tidings_log")}
        if found.states % 10 == 0:
            (verdict,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
            if verdict != "ok":
                found.damaged.append(f"{state}: {verdict}")
    except sqlite3.DatabaseError as error:
        found.damaged.append(f"{state}: {error}")
    else:
        gone = [id_ for id_ in promised if id_ not in there]
        if gone:
            found.lost.append(f"{state}: {len(gone)} of {len(promised)}, first {gone[0]}")
    finally:
        connection.close()


def _content(path: Path) -> bytes:
    return path.read_bytes() if path.exists() else b""


def _records(data: bytes) -> Iterator[Record]:
    for line in data.split(b"\n"):
        if line:
            yield msgspec.json.decode(line, type=Record)


def recorded(scene, states, rounds=60):
    """Record everything that one process with three publishers and a worker writes; returns where."""
    scene.prepare()
    before = scene.folder / "before"
    before.mkdir()
    for path in scene.folder.glob("shop.db*"):
        if path.is_file():
            shutil.copy(path, before)

    async def main():
        shop = scene.shop()
        async with shop.app as app:
            running = asyncio.ensure_future(app.run())
            publishers = [Publisher(shop, f"p{number}", random.Random(number)) for number in range(3)]
            await asyncio.gather(*(publisher.run(rounds // 3) for publisher in publishers))
            app.stop()
            await running

    trace = scene.folder / "trace"
    child = scene.traced(lambda: asyncio.run(main()), lambda pid: Tracing.recording(pid, CALLS, trace))
    assert child.wait() == 0, scene.log()
    scene.tracings.pop().end()
    return survey(trace, before, scene.folder / "history.jsonl", states)
