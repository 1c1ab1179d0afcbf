"""Renamed handlers: a new name is a new group, which begins anew, while the old one stays behind and nobody runs it."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence

from tidings.core.operations import Backlog
from tidings.core.ports import Store
from tidings.core.subscription import Subscription
from tidings.errors import NotFound
from tidings.runtime.claims import GROUP as CLAIMS
from tidings.runtime.outbound import GROUP as OUTBOUND
from tidings.runtime.quarantine import GROUP as QUARANTINE
from tidings.runtime.wanted import GROUP as WANTED

log = logging.getLogger("tidings")


def left_behind(app: str, subscriptions: Sequence[Subscription], groups: Sequence[Backlog]) -> list[Backlog]:
    """Those groups of an app that none of its subscriptions has any more."""
    own = {f"{app}.{name}" for name in (QUARANTINE, OUTBOUND, WANTED, CLAIMS)}
    known = {f"{app}.{each.group}" for each in subscriptions} | own
    return [each for each in groups if each.group.startswith(f"{app}.") and each.group not in known]


async def new_ones(store: Store, app: str, subscriptions: Sequence[Subscription]) -> list[Subscription]:
    """Those subscriptions whose group is not in the store yet."""
    found = []
    for each in subscriptions:
        try:
            await store.checkpoint(f"{app}.{each.group}")
        except NotFound:
            found.append(each)
    return found


async def warn(
    store: Store, app: str, subscriptions: Sequence[Subscription], new: Sequence[Subscription], running: Collection[str]
) -> None:
    """Warn of new groups that handle what a group handled which nobody runs any more.

    Args:
        store: Of the app.
        app: Its name.
        subscriptions: All of them.
        new: Those of them whose group is new.
        running: Full names of the groups that some living worker runs.
    """
    if not new:
        return
    gone = [each for each in left_behind(app, subscriptions, await store.backlog()) if each.group not in running]
    for each in new:
        names = set(each.names or ())
        for old in gone:
            if shared := names.intersection(old.types):
                keep = "group" if each.schema is None else "name"
                log.warning(
                    "%s.%s is new and begins anew; %s (%s), which handled %s as well, is run by nobody any more. "
                    "Was it renamed? Then stop, and go on where it stopped: %s=%r",
                    *(app, each.group, old.group, old.where, ", ".join(sorted(shared))),
                    *(keep, old.group.removeprefix(f"{app}.")),
                )
