"""A finding about how something stands: what was looked at, what was found, and what to do."""

from __future__ import annotations

from typing import Literal, NamedTuple

Verdict = Literal["ok", "warn", "fail"]


class Check(NamedTuple):
    """One finding.

    Attributes:
        name: What was looked at.
        verdict: "ok"; "warn" where something deserves a look; "fail" where a promise does not hold.
        found: What was found.
        fix: What to do; "" where nothing is.
    """

    name: str
    verdict: Verdict
    found: str
    fix: str = ""
