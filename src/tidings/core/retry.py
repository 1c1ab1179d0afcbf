"""Retry policy: how many attempts, and how long to wait between them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from tidings.errors import BadArgument


def seconds(value: float | timedelta, name: str) -> float:
    """A duration as finite float seconds, 0 or more.

    Raises:
        BadArgument: It is negative, infinite or not a number; the message names the argument.
    """
    result = value.total_seconds() if isinstance(value, timedelta) else _number(value)
    if not math.isfinite(result) or result < 0:
        msg = f"{name} is {value!r}"
        raise BadArgument(msg, "give seconds as a number of 0 or more, or a timedelta")
    return result


def _number(value: object) -> float:
    """A float, or NaN for what is no number; text such as "5" is none."""
    try:
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    except OverflowError:  # a whole number beyond all floats
        return math.inf


@dataclass(frozen=True)
class Retry:
    """How a failing delivery is tried again before it becomes a dead letter.

    The wait before attempt n + 1 is drawn uniformly between 0 and `min(maximum, initial * factor ** (n - 1))` ("full
    jitter", M. Brooker, "Exponential Backoff and Jitter", AWS Architecture Blog, 2015), so that failing workers do not
    come back in step.

    Args:
        attempts: Attempts in all, the first one included; 1 or more.
        initial: Upper bound of the first wait, seconds.
        maximum: Upper bound of any wait, seconds.
        factor: Growth of the bound per attempt, 1 or more.
        per: Policies for particular exception classes; the first class in the exception's own order of inheritance
            wins. Its attempts count all attempts of the delivery.
        never: Exception classes that become a dead letter at once.

    Raises:
        BadArgument: A number is outside its range.
    """

    attempts: int = 8
    initial: float | timedelta = 0.5
    maximum: float | timedelta = 300.0
    factor: float = 2.0
    per: Mapping[type[BaseException], Retry] = field(default_factory=dict)
    never: tuple[type[BaseException], ...] = ()

    def __post_init__(self) -> None:
        if isinstance(self.attempts, bool) or not isinstance(self.attempts, int) or self.attempts < 1:
            msg = f"Retry(attempts={self.attempts!r})"
            raise BadArgument(msg, "attempts is a whole number of 1 or more; 1 means no second attempt")
        factor = _number(self.factor)
        if not (math.isfinite(factor) and factor >= 1):
            msg = f"Retry(factor={self.factor!r})"
            raise BadArgument(msg, "factor is a finite number of 1 or more")
        first, longest = seconds(self.initial, "Retry(initial)"), seconds(self.maximum, "Retry(maximum)")
        if first > longest:
            msg = f"Retry(initial={self.initial!r}, maximum={self.maximum!r})"
            raise BadArgument(msg, "maximum is at least as long as initial")
        given = self.per.items() if isinstance(self.per, Mapping) else [(None, self.per)]
        if not all(_is_error_class(cls) and isinstance(policy, Retry) for cls, policy in given):
            msg = f"Retry(per={self.per!r})"
            raise BadArgument(msg, "per maps exception classes to policies: per={TimeoutError: Retry(attempts=20)}")
        if not (isinstance(self.never, tuple) and all(_is_error_class(cls) for cls in self.never)):
            msg = f"Retry(never={self.never!r})"
            raise BadArgument(msg, "never is a tuple of exception classes: never=(ValueError,)")

    def for_error(self, error: BaseException) -> Retry:
        """The policy that applies to this error: the most specific entry of `per`, else this one."""
        if isinstance(error, self.never):
            return NO_RETRY
        for cls in type(error).__mro__:
            if cls in self.per:
                return self.per[cls]
        return self

    def wait(self, attempt: int, draw: float) -> float | None:
        """Seconds to wait after failed attempt number `attempt` (from 1), or None when the attempts are used up.

        Args:
            attempt: Number of the attempt that failed, from 1.
            draw: A uniform random number in [0, 1): the caller owns randomness.
        """
        if attempt >= self.attempts:
            return None
        longest = seconds(self.maximum, "maximum")
        try:
            bound = min(longest, seconds(self.initial, "initial") * self.factor ** (attempt - 1))
        except OverflowError:
            bound = longest
        return draw * bound


def _is_error_class(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, BaseException)


NO_RETRY = Retry(attempts=1)
