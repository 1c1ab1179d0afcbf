"""Catching up: waiting until a part has reached a position."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from tidings.core.ports import Store
from tidings.core.subscription import Subscription
from tidings.errors import NotCaughtUp, NotFound

SCAN = 1000
"""Positions looked at for one that a subscription wants; where there are more, it has not caught up anyway."""


async def reached(store: Store, group: str, subscription: Subscription, position: int) -> bool:
    """True when a group has finished every event of its types up to a position, and its bootstrap if it has one."""
    try:
        checkpoint = await store.checkpoint(group)
    except NotFound:
        return False
    if subscription.bootstrap is not None and await store.seeding(group) is not None:
        return False
    if checkpoint >= position:
        return True
    app = group.split(".", 1)[0]
    wants = subscription.wants
    rows = await store.read(checkpoint, position, 1 if wants is None else SCAN, types=subscription.names, app=app)
    wanted = rows if wants is None else len(rows) == SCAN or any(map(wants, rows))
    return not wanted and await store.head() >= position  # what is not written yet is not finished


async def wait_for(
    store: Store,
    group: str,
    subscription: Subscription,
    position: int,
    timeout: float,
    sleep: Callable[[float], Awaitable[None]],
    now: Callable[[], float],
) -> None:
    """Return when a group has finished everything up to a position.

    Args:
        store: Where the checkpoint is.
        group: Full name.
        subscription: Of the part that is waited for.
        position: As `publish` or `execute` returned it.
        timeout: Seconds.
        sleep: Waits some seconds; the caller's way of waiting.
        now: Monotonic seconds.

    Raises:
        NotCaughtUp: It took longer; the write itself is done.
    """
    until = now() + timeout
    pause = 0.001
    while not await reached(store, group, subscription, position):
        if now() >= until:
            msg = f"{group} did not reach position {position} within {timeout} s"
            raise NotCaughtUp(msg, "the write is done; is a worker running? `tidings status` shows the lag")
        await sleep(pause)
        pause = min(0.02, pause * 1.5)
