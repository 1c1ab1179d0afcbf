"""Operations: everything that changes a store, as plain values; and the values that are read from it.

An operation is applied atomically. The runtime hands them over one by one; a store commits as many together as are
waiting (group commit). The same operations are applied inside an open transaction, next to a handler's own SQL.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from tidings.core.envelope import Envelope

ANY = -1
"""Expected version of an append that does not care; 0 means that the stream must not exist yet."""


CRASHED = "the worker stopped during this attempt"
"""Reason of a held delivery whose handler was started and is not known to have ended."""


class Append(msgspec.Struct, frozen=True, gc=False):
    """Append envelopes to the log. Returns `Appended`. Raises WrongVersion or IdConflict; then nothing is appended.

    The store sets `position`, and `version` where `stream` is set. It keeps the version that the owner of a state
    elsewhere gave it; one that is not newer than the stream is appended without the stream. An envelope whose
    (source, id) is stored already with the same type, key and data is not stored again: its old position is returned.

    Attributes:
        envelopes: In order, all or nothing. Empty is allowed and does nothing.
        expected: Version every named stream must have before the append (one stream then), or ANY.
        due: When to append, microseconds since 1970 UTC; None means now. A later append waits as timers.
        fresh: True when the ids were made up for this very operation, which is not repeated: nobody can have them yet,
            so that a store need not look them up.
    """

    envelopes: Sequence[Envelope]
    expected: int = ANY
    due: int | None = None
    fresh: bool = False


class Appended(msgspec.Struct, frozen=True, gc=False):
    """Where envelopes went.

    Attributes:
        positions: Place in the log of each envelope, in the order given; 0 for one that waits as a timer.
        version: Version of the stream after the append, or None where no stream was named.
    """

    positions: Sequence[int]
    version: int | None = None

    @property
    def position(self) -> int:
        """The last position, which a query can wait for; 0 for an empty append."""
        return self.positions[-1] if self.positions else 0


State = Literal["retry", "parked", "dead"]


class Held(msgspec.Struct, frozen=True):
    """A delivery that did not end with its first attempt: it waits to be retried, is parked, or is a dead letter.

    Attributes:
        id: Row id; 0 while not yet stored.
        group: Full name of the group.
        position: Place in the log; orders the deliveries of one key.
        state: "retry" is tried when due; "parked" waits behind an earlier one of its key; "dead" gave up.
        attempt: Attempts started so far.
        due: When to try again, microseconds since 1970 UTC; 0 means at once. Not used for parked and dead.
        envelope: The message with its original bytes.
        reason: Last failure in one line: exception class and text, or why it was parked.
        traceback: Of the last failure, or "".
        history: One line per attempt: when, outcome, wait.
        since: When it was first held, microseconds since 1970 UTC.
    """

    id: int
    group: str
    position: int
    state: State
    attempt: int
    due: int
    envelope: Envelope
    reason: str = ""
    traceback: str = ""
    history: Sequence[str] = ()
    since: int = 0


class Settle(msgspec.Struct, frozen=True):
    """Settle deliveries of one group, together with everything their handlers returned. Raises Fenced.

    Attributes:
        group: Full name of the group.
        epochs: Slot -> epoch under which the deliveries were taken; any difference refuses the whole operation.
        checkpoint: Every one of these slots has finished up to here; None leaves it. Never moves backwards.
        started: Deliveries up to here are about to be handed to the handler; None leaves it.
        hold: Deliveries to insert (id 0) or replace in the table of held deliveries.
        done: Ids of held deliveries that ended; they are removed.
        marks: Positions handled out of order, to be remembered until the checkpoint of their slot passes them.
        append: Messages the handlers returned or published.
        later: Appends with a due time.
        durable: False for a mere `started` mark, which must survive the process but not the machine.
    """

    group: str
    epochs: Mapping[int, int]
    checkpoint: int | None = None
    started: int | None = None
    hold: Sequence[Held] = ()
    done: Sequence[int] = ()
    marks: Sequence[int] = ()
    append: Sequence[Envelope] = ()
    later: Sequence[Append] = ()
    durable: bool = True


class Join(msgspec.Struct, frozen=True):
    """Create a group if it is new, and tables it brings. Returns the number of retained events before its start.

    Raises GroupConflict where another handler holds the group, ProjectionChanged where the fingerprint differs.

    Attributes:
        group: Full name.
        where: Identity of the handler.
        types: Names of the message types it handles.
        commands: Those of them that are commands, which one group alone may handle.
        slots: Number of slots.
        start: "earliest", "latest", or the position after which it starts.
        schema: SQL that creates its tables; run when the group is new.
        fingerprint: Of the code that fills them.
        seed: True for a replica: a new group starts with a bootstrap (see `Seed`), for which states in the log that
            have no stream, for they came from elsewhere, count as current ones; their positions are their versions.
        on_dead: "park": a dead letter blocks what is behind it; "skip": it does not.
    """

    group: str
    where: str
    types: Sequence[str]
    commands: Sequence[str]
    slots: int
    start: Literal["earliest", "latest"] | int
    schema: str | None = None
    fingerprint: str | None = None
    seed: bool = False
    on_dead: Literal["park", "skip"] = "park"


class Seed(msgspec.Struct, frozen=True, gc=False):
    """Note how far a replica's bootstrap has come.

    Attributes:
        group: Full name.
        cursor: Last key that was copied from the owner's current states; "" starts anew, None ends the bootstrap.
    """

    group: str
    cursor: str | None


class Claim(msgspec.Struct, frozen=True, gc=False):
    """Renew the leases of a member on a group, claim free ones up to `want`, give up those above it.

    Returns Slot -> Lease for all slots the member holds now. A slot is free when its lease ran out or its owner's
    process is gone.

    Attributes:
        group: Full name.
        member: Identity of the worker.
        want: Slots the member should hold at most.
        give: Slots it hands back now (their deliveries are settled).
        lease: Seconds.
    """

    group: str
    member: str
    want: int
    give: Sequence[int] = ()
    lease: float = 10.0


class Lease(msgspec.Struct, frozen=True, gc=False):
    """A slot held by a member.

    Attributes:
        epoch: Grows with every change of owner.
        checkpoint: Finished up to here.
        started: Handed to a handler up to here; beyond the checkpoint after a crash.
    """

    epoch: int
    checkpoint: int
    started: int


class Beat(msgspec.Struct, frozen=True, gc=False):
    """Tell the others that this worker lives, and renew its leases.

    Returns the members of its app that live, sorted, each with the groups it runs: workers of one app may run different
    ones, and share only those that they have in common.

    Attributes:
        app: Name of the app.
        member: Identity of the worker.
        lease: Seconds until the others may take it for dead.
        leaving: True when it stops: its leases are free at once.
        groups: Full names of the groups it runs.
    """

    app: str
    member: str
    lease: float
    leaving: bool = False
    groups: Sequence[str] = ()


class Fire(msgspec.Struct, frozen=True, gc=False):
    """Move timers that are due to the log. Returns microseconds of the next due timer, or None.

    Attributes:
        now: Microseconds since 1970 UTC.
        limit: At most this many at once.
    """

    now: int
    limit: int = 1000


class Ship(msgspec.Struct, frozen=True, gc=False):
    """Move what is in the outbox to the log, oldest first. Returns `Appended` with a position for each row that left.

    One process moves at a time: where another one does, nothing is moved here, and the positions are empty. A row whose
    id stands for other content already, or that cannot be read, becomes a dead letter of the group `<app>.outbox`; its
    position is 0.

    Attributes:
        limit: At most this many rows at once.
    """

    limit: int = 500


class Redrive(msgspec.Struct, frozen=True):
    """Put dead letters back to work (attempts count anew), but not what belongs to no group. Returns how many.

    Attributes:
        ids: Row ids of held deliveries.
        discard: True removes them instead; their parked successors then run.
    """

    ids: Sequence[int]
    discard: bool = False


class Rewind(msgspec.Struct, frozen=True):
    """Drop the tables of a projection and set its group back to the start. Returns events to replay.

    Attributes:
        group: Full name.
        schema: SQL that creates the tables anew.
        fingerprint: Of the code that will fill them.
        seed: True for a replica: its bootstrap starts anew.
    """

    group: str
    schema: str
    fingerprint: str | None = None
    seed: bool = False


class Repair(msgspec.Struct, frozen=True, gc=False):
    """Set a group that has finished more than the log holds back, fencing those who work on it.

    Returns how many positions it had finished beyond the end of the log; 0 where there are none, and nothing changes.

    Attributes:
        group: Full name.
        to: The position after which it goes on, before the end of the log; None for that end.
    """

    group: str
    to: int | None = None


Op = Append | Settle | Join | Seed | Claim | Beat | Fire | Ship | Redrive | Rewind | Repair


# ---- what is read ----------------------------------------------------------------------------------------------------


class Backlog(msgspec.Struct, frozen=True):
    """How a group stands.

    Attributes:
        group: Full name.
        where: Identity of the handler.
        types: Names of the message types it handles.
        checkpoint: Lowest position all slots have finished.
        lag: Events of its types behind the head (counted up to 100,000).
        oldest: Seconds since the oldest unhandled one was published; 0.0 when none waits.
        retrying: Held deliveries that wait for another attempt.
        parked: Held deliveries that wait behind one of the same key.
        dead: Dead letters.
        owners: Slot -> member that holds its lease.
    """

    group: str
    where: str
    types: Sequence[str]
    checkpoint: int
    lag: int
    oldest: float
    retrying: int
    parked: int
    dead: int
    owners: Mapping[int, str]


class Member(msgspec.Struct, frozen=True, gc=False):
    """A worker that said it lives.

    Attributes:
        app: Name of its app.
        member: Its identity.
        groups: Full names of the groups it runs.
        alive: True while its lease holds.
    """

    app: str
    member: str
    groups: Sequence[str]
    alive: bool


class CurrentState(msgspec.Struct, frozen=True, gc=False):
    """The newest state of one key, as its owner published it.

    Attributes:
        key: The key.
        version: The owner's version, from 1.
        position: Place in the log.
        time: Publication time, microseconds since 1970 UTC.
        data: JSON; empty, or null from elsewhere, when the record is gone.
    """

    key: str
    version: int
    position: int
    time: int
    data: bytes


class Delivery(msgspec.Struct, frozen=True, gc=False):
    """One try to hand over an envelope.

    Attributes:
        envelope: The message.
        attempt: Its number, from 1.
        held: Row id of the held delivery it comes from, or 0 for one fresh from the log or broker.
    """

    envelope: Envelope
    attempt: int = 1
    held: int = 0
