"""The doctor: looks at the machine, the log and the groups, and says what is wrong and what to do.

What is particular to a store the store says itself: see `Store.look` and `Store.inspect`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from tidings.core.check import Check
from tidings.core.operations import Backlog
from tidings.core.ports import Store
from tidings.ops.survey import timers, views
from tidings.runtime.renamed import left_behind

if TYPE_CHECKING:
    from tidings.runtime.app import App

MB = 1_000_000
LATE = 60.0
"""Seconds an event may wait before somebody should look."""

# ---- the machine -----------------------------------------------------------------------------------------------------


def machine() -> Iterator[Check]:
    """What every store on this machine stands on."""
    version = ".".join(map(str, sys.version_info[:3]))
    yield Check("python", "ok", f"{version}, {sys.platform}")
    yield _clock(time.time())


def _clock(now: float) -> Check:
    earliest = 1_700_000_000  # November 2023: before this was written
    if now < earliest:
        return Check("clock", "fail", f"it is {time.ctime(now)} here", "set the clock; event times and timers use it")
    return Check("clock", "ok", time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now)))


# ---- the store -------------------------------------------------------------------------------------------------------


async def log(store: Store) -> list[Check]:
    """The log against the checkpoints and the clock, and what waits for its time."""
    head = await store.head()
    last = await store.read(head - 1, head, 1) if head else []
    ahead = (last[-1].time / MB - time.time()) if last else 0.0
    checks = [
        Check("time", "warn", f"the newest event is {ahead:,.0f} s ahead of this clock", "compare the machines' clocks")
        if ahead > LATE
        else Check("retention", "ok", f"{head:,} events; all are kept")
    ]
    beyond = await store.query(
        "SELECT name, max(checkpoint) FROM tidings_slot GROUP BY name HAVING max(checkpoint) > ?", [head]
    )
    checks += [
        Check(
            "log",
            "fail",
            f"{group} has finished position {checkpoint:,}, but the log ends at {head:,}",
            "the log is older than its groups: restore all of the store from one backup",
        )
        for group, checkpoint in beyond
    ]
    waiting, first = await timers(store)
    late = time.time() - first / MB if first is not None else 0.0
    if late > LATE:
        fix = "start a worker of any app on this store: `tidings run`"
        checks.append(Check("timers", "warn", f"{waiting:,} wait, the first is {late:,.0f} s late", fix))
    else:
        checks.append(Check("timers", "ok", f"{waiting:,} wait"))
    return checks


async def groups(store: Store, app: App | None) -> list[Check]:
    """Workers, and every group that is late, has dead letters, or has lost its handler."""
    members = await store.members()
    alive = {each.member for each in members if each.alive}
    silent = [each.member for each in members if not each.alive]
    shown = ", ".join(sorted(alive)) or "none"
    checks = [Check("workers", "ok", f"alive: {shown}" + (f"; gone: {', '.join(silent)}" if silent else ""))]
    backlogs = await store.backlog()
    gone = [] if app is None else left_behind(app.name, app.subscriptions(), backlogs)
    for backlog in backlogs:
        checks += _group(backlog, alive, is_gone=backlog in gone)
    if len(checks) == 1:
        checks.append(Check("groups", "ok", f"{len(backlogs)} groups, none late, no dead letters"))
    return checks + (await _against(store, app, backlogs, gone) if app is not None else [])


def _group(backlog: Backlog, alive: set[str], *, is_gone: bool) -> Iterator[Check]:
    name = backlog.group
    if backlog.dead:
        fix = f"tidings dead ls --group {name}; correct the handler, then tidings dead redrive --group {name}"
        yield Check("dead letters", "warn", f"{name} has {backlog.dead:,}, {backlog.parked:,} wait behind them", fix)
    if is_gone:  # what it does not handle is nobody's any more
        return
    waits = f"{name} has {backlog.lag:,} events to handle, the oldest for {backlog.oldest:,.0f} s"
    if backlog.lag and not alive & set(backlog.owners.values()):
        yield Check("lag", "warn", f"{waits}; no worker has it", "tidings run")
    elif backlog.lag and backlog.oldest > LATE:
        yield Check("lag", "warn", waits, "add workers (`tidings run --workers N`), or look why the handler is slow")


async def _against(store: Store, app: App, backlogs: Sequence[Backlog], gone: Sequence[Backlog]) -> list[Check]:
    """The groups of the store against the handlers of the app."""
    code: dict[str, Any] = {f"{app.name}.{each.group}": each for each in app.subscriptions()}
    filled = await views(store)
    checks = []
    for backlog in gone:
        found = f"{backlog.group} has no handler in the app any more; it was {backlog.where}"
        keep = f"group={backlog.group.removeprefix(f'{app.name}.')!r}"
        fix = f"renamed? give the new one its group, {keep}; else nothing is needed, it just stays"
        checks.append(Check("handlers", "warn", found, fix))
    for name in [backlog.group for backlog in backlogs if backlog.group in code]:
        if filled.get(name, (None,))[0] not in (None, code[name].fingerprint):
            found = f"the code of {name} differs from the code that filled its tables"
            checks.append(Check("handlers", "fail", found, f"tidings projection rebuild {code[name].group}"))
    new = sorted(set(code) - {backlog.group for backlog in backlogs})
    if new:
        checks.append(Check("handlers", "ok", f"{', '.join(new)} will start with the next `tidings run`"))
    return checks or [Check("handlers", "ok", f"all {len(code)} have their group")]
