"""Any sequence of operations, from two stores on one file, leaves what a few lines of Python say it should."""

import os
import shutil
import tempfile
from collections.abc import Coroutine
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tidings.core.envelope import SLOTS, Envelope
from tidings.core.operations import ANY, Append, Beat, Claim, Fire, Held, Redrive, Settle
from tidings.errors import Fenced, IdConflict, TidingsError, WrongVersion
from tidings.stores.sqlite import SqliteStore, checkup, ids
from tidings.testing.conformance.store.making import GROUP, NOW, envelope, held, joining

KEYS = ["a", "b", "c", None]
STREAMS = ["s:1", "s:2", "state:Customer:a", None]
IDS = [f"id-{n}" for n in range(12)]
MEMBERS = ["worker-1", "worker-2"]
LEASE = 10.0
MEMORY = "/dev/shm"  # flushing to a disk is not what is looked at here


def now_of(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """The result of a read, which does not suspend where no event loop runs."""
    with pytest.raises(StopIteration) as stop:
        coroutine.send(None)
    return stop.value.value


@dataclass
class Slot:
    epoch: int = 0
    owner: str | None = None
    expires: float = 0.0
    checkpoint: int = 0
    started: int = 0


@dataclass
class Row:
    position: int
    key: str | None
    state: str
    due: int
    attempt: int = 1


@dataclass
class Model:
    """What the store should hold."""

    log: list[Envelope] = field(default_factory=list)
    timers: list[tuple[int, Envelope]] = field(default_factory=list)
    held: dict[int, Row] = field(default_factory=dict)
    slots: dict[int, Slot] = field(default_factory=lambda: {n: Slot() for n in range(SLOTS)})
    members: dict[str, float] = field(default_factory=dict)
    clock: float = 1000.0
    on_dead: str = "park"

    def stored(self, one: Envelope) -> Envelope | None:
        return next((other for other in self.log if (other.id, other.source) == (one.id, one.source)), None)

    def version(self, stream: str | None) -> int:
        return sum(other.stream == stream for other in self.log)

    def append(self, op: Append) -> list[int] | type[TidingsError]:
        known = [self.stored(one) for one in op.envelopes]
        if any(old and content(old) != content(new) for old, new in zip(known, op.envelopes, strict=True)):
            refused: type[TidingsError] = IdConflict
        else:
            refused = WrongVersion
        if refused is IdConflict and op.expected in (ANY, self.version(op.envelopes[0].stream)):
            return IdConflict
        if all(known):
            return refused if refused is IdConflict else [old.position for old in known if old]
        if op.expected not in (ANY, self.version(op.envelopes[0].stream)):
            return refused
        positions = []
        for one in op.envelopes:
            old = self.stored(one)
            if old is None:
                version = self.version(one.stream) + 1 if one.stream else None
                old = msgspec.structs.replace(one, position=len(self.log) + 1, version=version)
                self.log.append(old)
            elif content(old) != content(one):
                return IdConflict
            positions.append(old.position)
        return positions

    def heads(self) -> list[int]:
        """Ids of the rows that are first of their key, dead ones left out."""
        first: dict[str, int] = {}
        for id_, row in sorted(self.held.items(), key=lambda item: (item[1].position, item[0])):
            if row.key is not None and not (row.state == "dead" and self.on_dead == "skip"):
                first.setdefault(row.key, id_)
        loose = [id_ for id_, row in self.held.items() if row.key is None]
        return [id_ for id_ in [*first.values(), *loose] if self.held[id_].state != "dead"]

    def due(self, now: int) -> list[int]:
        ready = [id_ for id_ in self.heads() if self.held[id_].state == "parked" or self.held[id_].due <= now]
        return sorted(ready, key=lambda id_: (self.held[id_].position, id_))

    def is_over(self, expires: float) -> bool:
        return expires <= self.clock


def content(one: Envelope) -> tuple[str, str | None, bytes]:
    return one.type, one.key, one.data


appended = st.lists(st.tuples(st.sampled_from(IDS), st.sampled_from([b"1", b"1", b"1", b"2"])), min_size=1, max_size=3)


class StoreMachine(RuleBasedStateMachine):
    @initialize()
    def open(self) -> None:
        self.folder = tempfile.mkdtemp(dir=MEMORY if os.access(MEMORY, os.W_OK) else None)
        self.model = Model()
        self.stores = [SqliteStore(f"sqlite://{self.folder}/shop.db", clock=lambda: self.model.clock) for _ in "ab"]
        for store in self.stores:
            store.open_now()
        self.turn = 0
        self.behind, ids.MOST_BEHIND = ids.MOST_BEHIND, 4
        self.write(joining())

    def teardown(self) -> None:
        if hasattr(self, "stores"):
            ids.MOST_BEHIND = self.behind
            for store in self.stores:
                store.close_now()
            shutil.rmtree(self.folder)

    def write(self, op: Any) -> Any:
        """Let the two stores take turns; every third operation goes through a transaction."""
        self.turn += 1
        store = self.stores[self.turn % 2]
        if self.turn % 3:
            return store.write_now(op)
        tx = store.begin_now()
        try:
            result = now_of(tx.apply(op))
        except BaseException:
            now_of(tx.rollback())
            raise
        now_of(tx.commit())
        return result

    @property
    def store(self) -> SqliteStore:
        return self.stores[self.turn % 2]

    # ---- the log -----------------------------------------------------------------------------------------------------

    @rule(ids=appended, stream=st.sampled_from(STREAMS), ahead=st.sampled_from([None, None, 0, 0, 1, -1]))
    def append(self, ids: list[tuple[str, bytes]], stream: str | None, ahead: int | None) -> None:
        kind = "Customer" if stream and stream.startswith("state:") else "OrderPlaced"
        made = {id_: envelope("a", id=id_, stream=stream, type=kind, data=data) for id_, data in ids}
        expected = max(0, self.model.version(stream) + ahead) if stream and ahead is not None else ANY
        op = Append(list(made.values()), expected)
        before = list(self.model.log)
        result = self.model.append(op)
        if isinstance(result, list):
            assert list(self.write(op).positions) == result
        else:
            self.model.log = before
            with pytest.raises((result, IdConflict) if result is WrongVersion else result):
                self.write(op)

    @rule(count=st.integers(1, 3), stream=st.sampled_from([*STREAMS, None]))
    def publish(self, count: int, stream: str | None) -> None:
        kind = "Customer" if stream and stream.startswith("state:") else "OrderPlaced"
        made = [envelope("a", stream=stream, type=kind) for _ in range(count)]
        result = self.model.append(Append(made))
        assert list(self.write(Append(made, fresh=True)).positions) == result

    @rule(at=st.integers(0, 99), other=st.booleans(), data=st.sampled_from([None, None, b"3"]))
    def send_again(self, at: int, *, other: bool, data: bytes | None) -> None:
        """What is in the log comes back, from whoever read it there: alone, or behind something else."""
        if not self.model.log:
            return
        known = self.model.log[at % len(self.model.log)]
        again = msgspec.structs.replace(known, position=0, version=None, data=data or known.data)
        sent = [envelope("a", stream=known.stream, type=known.type), again] if other else [again]
        if data is not None:
            with pytest.raises(IdConflict):
                self.write(Append(sent))
            return
        assert list(self.write(Append(sent)).positions) == self.model.append(Append(sent))

    @rule(id_=st.sampled_from(IDS), due=st.integers(NOW, NOW + 20))
    def schedule(self, id_: str, due: int) -> None:
        one = envelope("a", id=id_, data=b"1")
        taken = [*self.model.log, *(other for _, other in self.model.timers)]
        same = [other for other in taken if other.id == id_]
        if any(content(other) != content(one) for other in same):
            with pytest.raises(IdConflict):
                self.write(Append([one], due=due))
            return
        self.write(Append([one], due=due))
        if not same:
            self.model.timers.append((due, msgspec.structs.replace(one, time=due)))

    @rule(now=st.integers(NOW, NOW + 20), limit=st.integers(1, 3))
    def fire(self, now: int, limit: int) -> None:
        self.model.timers.sort(key=lambda timer: timer[0])
        ready = [timer for timer in self.model.timers if timer[0] <= now][:limit]
        self.model.timers = [timer for timer in self.model.timers if timer not in ready]
        for _, one in ready:
            if self.model.stored(one) is None:
                self.model.append(Append([one]))
        assert self.write(Fire(now, limit)) == min((due for due, _ in self.model.timers), default=None)

    # ---- leases ------------------------------------------------------------------------------------------------------

    @rule(member=st.sampled_from(MEMBERS), want=st.integers(0, 16), give=st.sets(st.integers(0, 15), max_size=3))
    def claim(self, member: str, want: int, give: set[int]) -> None:
        model = self.model
        for number in give:
            if model.slots[number].owner == member:
                model.slots[number] = replace(model.slots[number], owner=None)
        mine = {number for number, slot in model.slots.items() if slot.owner == member}
        for number, slot in model.slots.items():
            is_free = slot.owner is None or model.is_over(slot.expires)
            if number not in mine and number not in give and is_free and len(mine) < want:
                mine.add(number)
                slot.owner, slot.epoch = member, slot.epoch + 1
        for number in mine:
            model.slots[number].expires = model.clock + LEASE
        leases = self.write(Claim(GROUP, member, want, sorted(give), LEASE))
        assert {number: (lease.epoch, lease.checkpoint, lease.started) for number, lease in leases.items()} == {
            n: (slot.epoch, slot.checkpoint, slot.started) for n, slot in model.slots.items() if n in mine
        }

    @rule(member=st.sampled_from(MEMBERS), leaving=st.booleans())
    def beat(self, member: str, *, leaving: bool) -> None:
        model = self.model
        model.members.pop(member, None)
        if not leaving:
            model.members[member] = model.clock + LEASE
        for slot in model.slots.values():
            if slot.owner == member and leaving:
                slot.owner = None
            elif slot.owner == member:
                slot.expires = model.clock + LEASE
        model.members = {name: at for name, at in model.members.items() if name == member or not model.is_over(at)}
        assert list(self.write(Beat("shop", member, LEASE, leaving))) == sorted(model.members)

    @rule(seconds=st.sampled_from([1.0, 4.0, 10.0]))
    def pass_time(self, seconds: float) -> None:
        self.model.clock += seconds

    # ---- deliveries --------------------------------------------------------------------------------------------------

    @rule(
        numbers=st.sets(st.integers(0, 15), max_size=4),
        stale=st.sampled_from([0, 0, 0, 0, 1]),
        checkpoint=st.none() | st.integers(0, 30),
        started=st.none() | st.integers(0, 30),
        fresh=st.lists(
            st.tuples(
                st.integers(1, 30),
                st.sampled_from(["retry", "parked", "dead"]),
                st.integers(0, 20),
            ),
            max_size=3,
        ),
        change=st.none() | st.tuples(st.integers(0, 99), st.sampled_from(["retry", "parked", "dead"])),
        done=st.sets(st.integers(0, 99), max_size=2),
        id_=st.none() | st.sampled_from(IDS),
    )
    def settle(  # noqa: PLR0917 - hypothesis passes them by name
        self,
        numbers: set[int],
        stale: int,
        checkpoint: int | None,
        started: int | None,
        fresh: list[tuple[int, str, int]],
        change: tuple[int, str] | None,
        done: set[int],
        id_: str | None,
    ) -> None:
        model = self.model
        checkpoint = None if checkpoint is None else min(checkpoint, len(model.log))
        known = sorted(model.held)
        rows: list[Held] = [held(at, KEYS[at % len(KEYS)], state, due=due) for at, state, due in fresh]
        gone = {known[n % len(known)] for n in done} if known else set()
        if change and known:
            number = known[change[0] % len(known)]
            if number not in gone:
                row = model.held[number]
                rows.append(held(row.position, row.key, change[1], id=number, due=row.due + 1, attempt=row.attempt + 1))
        epochs = {number: model.slots[number].epoch - stale for number in numbers}
        send = [envelope("a", id=id_, data=b"1")] if id_ else []
        op = Settle(GROUP, epochs, checkpoint, started, rows, sorted(gone), (), send)
        if stale and numbers:
            with pytest.raises(Fenced):
                self.write(op)
            return
        before = list(model.log)
        if send and not isinstance(model.append(Append(send)), list):
            model.log = before
            with pytest.raises(IdConflict):
                self.write(op)
            return
        self.write(op)
        for number in numbers:
            slot = model.slots[number]
            slot.checkpoint = max(slot.checkpoint, checkpoint or 0)
            slot.started = max(slot.started, started or 0, checkpoint or 0)
        for number in gone:
            del model.held[number]
        places = {row.position: number for number, row in model.held.items()}
        ids = [one.id for one in now_of(self.store.held(limit=1000))]
        added = iter(sorted(set(ids) - set(model.held)))
        for row in sorted(rows, key=lambda row: not row.id):  # changes first
            number = row.id or places.get(row.position) or next(added)
            places[row.position] = number
            model.held[number] = Row(row.position, row.envelope.key, row.state, row.due, row.attempt)
        assert sorted(ids) == sorted(model.held)

    @rule(chosen=st.sets(st.integers(0, 99), min_size=1, max_size=3), discard=st.booleans())
    def redrive(self, chosen: set[int], *, discard: bool) -> None:
        known = sorted(self.model.held)
        ids = sorted({known[n % len(known)] for n in chosen}) if known else [77]
        dead = [number for number in ids if known and self.model.held[number].state == "dead"]
        assert self.write(Redrive(ids, discard)) == len(dead)
        for number in dead:
            if discard:
                del self.model.held[number]
            else:
                self.model.held[number] = replace(self.model.held[number], state="retry", due=0, attempt=0)

    @rule(on_dead=st.sampled_from(["park", "skip"]))
    def join_again(self, on_dead: str) -> None:
        assert self.write(joining(on_dead=on_dead)) == 0
        self.model.on_dead = on_dead

    # ---- what must be true at any time -------------------------------------------------------------------------------

    @invariant()
    def the_log_is_as_it_should_be(self) -> None:
        if not hasattr(self, "stores"):
            return
        read = now_of(self.store.read(0, 1000, 1000))
        assert [(one.position, one.id, one.version, one.data) for one in read] == [
            (one.position, one.id, one.version, one.data) for one in self.model.log
        ]
        states = {one.key: (one.version, one.position) for one in now_of(self.store.states("Customer"))}
        last = [one for one in self.model.log if one.stream == "state:Customer:a"][-1:]
        assert states == {one.key: (one.version, one.position) for one in last}

    @invariant()
    def each_id_is_found_where_it_is(self) -> None:
        if not hasattr(self, "stores"):
            return
        for known in self.model.log[-6:]:
            assert [one.position for one in now_of(self.store.find(id=known.id))] == [known.position]
        assert now_of(checkup.ids(self.store.query)).verdict == "ok"

    @invariant()
    def what_is_due_is_as_it_should_be(self) -> None:
        if not hasattr(self, "stores"):
            return
        model, slots = self.model, range(SLOTS)
        for now in (0, 5, 30):
            assert [one.id for one in now_of(self.store.due(GROUP, slots, now, 1000))] == model.due(now)
        times = [0 if model.held[id_].state == "parked" else model.held[id_].due for id_ in model.heads()]
        assert now_of(self.store.next_due(GROUP, slots)) == min(times, default=None)
        assert now_of(self.store.blocked(GROUP, ["a", "b", "c"])) == {row.key for row in model.held.values()} - {None}
        alive = {row.key for row in model.held.values() if row.state != "dead"} - {None}
        assert now_of(self.store.blocked(GROUP, ["a", "b", "c"], dead=False)) == alive
        assert now_of(self.store.checkpoint(GROUP)) == min(slot.checkpoint for slot in model.slots.values())


StoreMachine.TestCase.settings = settings(
    max_examples=40, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestStore = StoreMachine.TestCase
