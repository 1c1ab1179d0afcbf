"""The delivery state table: what becomes of a delivery whose attempt failed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from tidings.core.operations import Delivery, Held, State
from tidings.core.outcome import Again, Dead
from tidings.core.retry import Retry
from tidings.errors import Unreadable

MAX_REASON = 2_000
"""Longest description of an error, characters."""

MAX_TRACEBACK = 20_000
"""Longest traceback kept, characters; of a longer one the end, where the error is."""

MAX_HISTORY = 100
"""Attempts kept in the history of a delivery, the newest."""

_LINE = 300  # longest description of an error in one line of the history
_MICROSECONDS = 1_000_000
_LONGEST_WAIT = 100 * 365 * 86_400.0  # seconds; beyond it nobody waits, and times still have a date


def settle(  # noqa: PLR0917 - one value for each column of the table below
    row: Held | None,
    delivery: Delivery,
    error: BaseException,
    traceback: str,
    retry: Retry,
    draw: float,
    now: int,
    group: str,
) -> Held:
    """What becomes of a delivery whose attempt failed.

    | error | attempts left | becomes |
    |---|---|---|
    | `Dead`, `Unreadable`, one of `Retry.never` | any | dead |
    | `Again(after=s)` | yes | retry, due in s seconds |
    | any other, `Again()` included | yes | retry, due after the wait of the policy for this error |
    | any | no | dead |

    Args:
        row: The held delivery it comes from, or None for one fresh from the log.
        delivery: The delivery, with the number of the attempt that failed.
        error: What the handler raised. Being cancelled is no failure and does not come here.
        traceback: Its traceback as text, or "".
        retry: The policy of the subscription.
        draw: A uniform random number in [0, 1).
        now: Microseconds since 1970 UTC.
        group: Full name of the group.

    Returns:
        The held delivery as it is to be stored: waiting for its retry, or a dead letter.
    """
    attempt = delivery.attempt
    wait = None if isinstance(error, Dead | Unreadable) else _wait(retry, error, attempt, draw)
    reason = describe(error)
    if wait is None:
        state: State = "dead"
        due = 0
        outcome = f"dead letter after {attempt} attempts" if attempt > 1 else "dead letter"
    else:
        state = "retry"
        due = now + round(wait * _MICROSECONDS)
        outcome = f"again in {wait:.1f} s"
    line = f"attempt {attempt} at {_time(now)}: {reason[:_LINE]}; {outcome}"
    return Held(
        id=row.id if row else 0,
        group=group,
        position=delivery.envelope.position,
        state=state,
        attempt=attempt,
        due=due,
        envelope=delivery.envelope,
        reason=reason,
        traceback=_tail(traceback),
        history=[*(row.history if row else ()), line][-MAX_HISTORY:],
        since=(row.since if row else 0) or now,  # 0 where a worker died: nobody noted when
    )


def describe(error: BaseException) -> str:
    """An error in one printable line: class and text, at most MAX_REASON characters, control characters escaped.

    An error whose own `__str__` fails is described all the same.
    """
    name = type(error).__qualname__
    try:
        text = str(error)
    except BaseException as inner:  # noqa: BLE001 - user code; whatever it raises, the first error is the one to keep
        text = f"(its __str__ raised {type(inner).__qualname__})"
    line = printable(f"{name}: {text[: MAX_REASON + 1]}" if text else name)
    return line if len(line) <= MAX_REASON else f"{line[: MAX_REASON - 3]}..."


def printable(text: str, keep: str = "") -> str:
    """Text that a terminal and a log show as it is: everything else is escaped as in Python's own notation.

    Args:
        text: Any text, from anywhere.
        keep: Characters to keep although they are not printable, such as a line feed.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in text)


def _wait(retry: Retry, error: BaseException, attempt: int, draw: float) -> float | None:
    wait = retry.for_error(error).wait(attempt, draw)
    if wait is not None and isinstance(error, Again) and error.after is not None:
        return min(error.after, _LONGEST_WAIT)
    return wait


def _tail(traceback: str) -> str:
    text = printable(traceback[-MAX_TRACEBACK:], keep="\n\t")
    if len(traceback) <= MAX_TRACEBACK and len(text) <= MAX_TRACEBACK:
        return text
    note = "[the beginning is left out]\n"
    return note + text[len(note) - MAX_TRACEBACK :]


def _time(now: int) -> str:
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=now)
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")
