"""Evidence: what is read out after a run, and the indexes that let every guarantee be judged in one pass."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from tidings.core.envelope import Envelope
from tidings.core.operations import Held
from tidings.core.ports import Store
from tidings.testing.history import Record


class Group(msgspec.Struct, frozen=True):
    """What a group promised, to be held against what it did.

    Attributes:
        name: Full name.
        types: Names of the message types it handles.
        exactly_once: True where the handler takes `tx`.
        attempts: Attempts before a dead letter; None if that is not to be judged.
        on_dead: What becomes of later messages of a key with a dead letter.
        start: Position after which it started.
        in_flight: Deliveries that one process can have under way, which a fault may repeat.
        returns: Type of the message that its handler returns for every message, or None.
    """

    name: str
    types: frozenset[str]
    exactly_once: bool = True
    attempts: int | None = None
    on_dead: Literal["park", "skip"] = "park"
    start: int = 0
    in_flight: int = 1
    returns: str | None = None


class Effect(msgspec.Struct, frozen=True, gc=False):
    """An effect as it was found: a row of a table, or a line of a ledger outside the store.

    Attributes:
        group: Full name of the group whose handler left it.
        id: CloudEvents id of the message.
        digest: Of the message as the handler received it, or None.
        member: Worker that ran the handler, or None.
        owned: Whether that worker held the lease, as the store said in the transaction that left the effect; None where
            it was not asked.
    """

    group: str
    id: str
    digest: str | None = None
    member: int | None = None
    owned: bool | None = None


@dataclass(frozen=True)
class ReadModel:
    """A read model as it stands, and what a fresh fold over the log gives."""

    name: str
    live: Mapping[Any, Any]
    folded: Mapping[Any, Any]


@dataclass(frozen=True)
class Final:
    """What is found after the faults ended and the work was done.

    Attributes:
        log: The whole log, in order.
        effects: In the order of their commits.
        held: Every delivery that is held.
        checkpoints: Of each group.
        groups: What each group promised.
        views: The read models.
        rows: Tags of the transactions whose business row exists; None where no transaction was part of the run.
        recovery: Seconds within which the work of a killed process is under way elsewhere; None is not judged.
        deadline: Seconds within which a drain ends.
    """

    log: Sequence[Envelope]
    effects: Sequence[Effect]
    held: Sequence[Held]
    checkpoints: Mapping[str, int]
    groups: Sequence[Group]
    views: Sequence[ReadModel] = ()
    rows: frozenset[str] | None = None
    recovery: float | None = None
    deadline: float = 30.0


async def read_out(
    store: Store, groups: Sequence[Group], app: str
) -> tuple[list[Envelope], list[Held], dict[str, int]]:
    """The log, the held deliveries and the checkpoints: the part of a `Final` that every store can give."""
    head = await store.head()
    log: list[Envelope] = []
    while page := await store.read(log[-1].position if log else 0, head, 10_000, app=app):
        log.extend(page)
    held = await store.held(limit=1_000_000)
    return log, list(held), {group.name: await store.checkpoint(group.name) for group in groups}


class Facts(msgspec.Struct):
    """What a message of a test says about itself, whatever else it carries."""

    producer: str | None = None
    pseq: int | None = None
    txn: str | None = None


_OUTWEIGHS = {"invoke": 0, "fail": 1, "unknown": 2, "ok": 3}
"""Of several tries with one id: one that succeeded is a success, and one that may have is not undone by a failure."""


class Evidence:
    """The history and the final reading, indexed once.

    Attributes:
        final: What was found in the end.
        ops: Operation -> its records, in the order in which they were written.
        by_id: Id -> envelopes of the log with it; more than one is a finding.
        by_position: Position -> envelope.
        facts: Position -> what the message says about itself.
        tags: Transaction tags that messages carry.
        invoked: Id or tag -> the record that announced it.
        last_word: Id or tag -> how it ended for the client, over all times it was tried; "invoke" is open.
        effects: Group -> its effects, in the order of their commits.
        held: Group -> id -> held delivery.
    """

    def __init__(self, history: Iterable[Record], final: Final) -> None:
        self.final = final
        self.ops: dict[str, list[Record]] = defaultdict(list)
        for record in history:
            self.ops[record.op].append(record)
        self.by_id: dict[str, list[Envelope]] = defaultdict(list)
        self.by_position: dict[int, Envelope] = {}
        self.facts: dict[int, Facts] = {}
        self.tags: set[str] = set()
        self._log(final.log)
        self.invoked: dict[str, Record] = {}
        self.last_word: dict[str, str] = {}
        self._words([*self.ops["publish"], *self.ops["append"], *self.ops["commit"]])
        self.effects: dict[str, list[Effect]] = defaultdict(list)
        for effect in final.effects:
            self.effects[effect.group].append(effect)
        self.held: dict[str, dict[str, Held]] = defaultdict(dict)
        for item in final.held:
            self.held[item.group][item.envelope.id] = item

    def _log(self, log: Iterable[Envelope]) -> None:
        decode = msgspec.json.Decoder(Facts).decode
        for envelope in log:
            self.by_id[envelope.id].append(envelope)
            self.by_position[envelope.position] = envelope
            try:
                facts = decode(envelope.data)
            except msgspec.MsgspecError:
                facts = Facts()
            self.facts[envelope.position] = facts
            if facts.txn is not None:
                self.tags.add(facts.txn)

    def _words(self, records: Iterable[Record]) -> None:
        for record in records:
            name = record.id or record.txn
            if name is None:
                continue
            if record.ph == "invoke":
                self.invoked.setdefault(name, record)
                self.last_word.setdefault(name, "invoke")
            elif _OUTWEIGHS[record.ph] >= _OUTWEIGHS[self.last_word.get(name, "invoke")]:
                self.last_word[name] = record.ph

    def logged(self, record: Record) -> bool:
        """Whether the message, or the transaction, of this record is in the log."""
        return record.id in self.by_id if record.id is not None else record.txn in self.tags

    def stands(self, record: Record) -> bool:
        """Whether the log has the message of this record at the position that the record names."""
        at = self.by_position.get(record.pos or 0)
        if at is None:
            return False
        return (at.id == record.id) if record.id is not None else (self.facts[at.position].txn == record.txn)
