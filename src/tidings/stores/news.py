"""News: what those who watch a store are told of a commit."""

from __future__ import annotations

from collections.abc import Sequence

from tidings.core.envelope import Envelope
from tidings.core.operations import Append, Appended, Beat, Claim, Op, Settle

News = tuple[Sequence[Envelope], Sequence[int]]
"""What was appended, and at which positions; see `tidings.core.ports.Changed`."""
UNKNOWN: News = ((), ())
"""Something may have changed."""


def news_of(ops: Sequence[Op], outcomes: Sequence[tuple[object, BaseException | None]]) -> News | None:
    """What operations have changed for readers, who need not look where all of it is told; None for nothing.

    Args:
        ops: What was committed together.
        outcomes: For each its result, or why it was refused.
    """
    envelopes: list[Envelope] = []
    positions: list[int] = []
    for op, (result, error) in zip(ops, outcomes, strict=True):
        if error is not None or not _concerns_readers(op):
            continue
        if type(op) is Append and op.due is None:
            envelopes += op.envelopes
        elif type(op) is Settle and not (op.later or op.hold or op.done):
            envelopes += op.append
        else:
            return UNKNOWN
        if isinstance(result, Appended):
            positions += result.positions
    if not positions:
        return None
    ends_there = positions[-1] == max(positions)  # else an id was known, and has its place of old
    return (envelopes, positions) if ends_there else UNKNOWN


def _concerns_readers(op: Op) -> bool:
    """True where the log has grown, or what is held, or who holds slots, is not what it was."""
    if type(op) is Append:
        return bool(op.envelopes)
    if type(op) is Settle:
        return bool(op.append or op.later or op.hold or op.done)
    if type(op) is Claim:
        return bool(op.give)
    return op.leaving if type(op) is Beat else True
