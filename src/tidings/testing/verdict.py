"""Verdicts: what a run says about each guarantee. The numbers are those of docs/guarantees.md."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

NAMES = {
    "G1": "durable acknowledgement",
    "G2": "outbox atomicity",
    "G3": "integrity",
    "G4": "honest outcome",
    "G5": "conservation",
    "G7": "exactly-once effect",
    "G8": "bounded duplicates",
    "G9": "per-key order",
    "G10": "one handler per key",
    "G12": "streams contiguous",
    "G14": "gapless positions",
    "G16": "projection = fold",
    "G20": "dead letters lose nothing",
    "G21": "unreadable is not lost",
    "G24": "graceful drain",
    "G25": "self-recovery",
    "G26": "fencing",
}
WITNESSES = 5
"""Contradictions kept per guarantee: enough to see a pattern."""


@dataclass
class Verdict:
    """One guarantee after one run.

    Attributes:
        guarantee: Its number, "G1".
        checked: How many facts could have contradicted it.
        broken: How many did.
        witnesses: The first of those, a line each.
    """

    guarantee: str
    checked: int = 0
    broken: int = 0
    witnesses: list[str] = field(default_factory=list)

    def expect(self, good: object, otherwise: str) -> None:
        """Count one fact; where it is not good, `otherwise` says how it contradicts the guarantee."""
        self.checked += 1
        if not good:
            self.broken += 1
            if self.broken <= WITNESSES:
                self.witnesses.append(otherwise)

    @property
    def status(self) -> Literal["HELD", "BROKEN", "NOT EXERCISED"]:
        """BROKEN where a fact contradicts the guarantee; NOT EXERCISED where no fact could have."""
        return "BROKEN" if self.broken else "HELD" if self.checked else "NOT EXERCISED"

    def __str__(self) -> str:
        head = f"{self.guarantee} {NAMES[self.guarantee]} ".ljust(34, ".")
        if self.status == "NOT EXERCISED":
            return f"{head} NOT EXERCISED"
        if self.status == "HELD":
            return f"{head} HELD ({self.checked:,})"
        more = self.broken - len(self.witnesses)
        lines = [f"{head} BROKEN", *self.witnesses, *([f"and {more:,} more"] if more else [])]
        return "\n      ".join(lines)


@dataclass(frozen=True)
class Report:
    """The verdicts of one run, by number."""

    verdicts: Mapping[str, Verdict]

    @property
    def broken(self) -> list[str]:
        """Numbers of the guarantees that did not hold."""
        return [number for number, verdict in self.verdicts.items() if verdict.status == "BROKEN"]

    def require(self, *guarantees: str) -> None:
        """Do nothing when no guarantee is broken and each of these was put to the test.

        Raises:
            AssertionError: Otherwise; it shows the whole report.
        """
        idle = [number for number in guarantees if self.verdicts[number].status == "NOT EXERCISED"]
        assert not self.broken, f"{', '.join(self.broken)} broken:\n{self}"
        assert not idle, f"{', '.join(idle)} not exercised, so this run proves nothing about it:\n{self}"

    def __str__(self) -> str:
        return "\n".join(str(verdict) for verdict in self.verdicts.values())
